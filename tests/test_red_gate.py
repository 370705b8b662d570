"""The README's picture of a red gate is what the suite prints today of the recorded session."""

from pathlib import Path

import red_gate

COMMITTED = Path(__file__).resolve().parents[1] / "docs" / "gate.svg"


def test_the_picture_is_of_today():
    """`tox run -e looks -- --gate` draws it anew: where it differs, the report has changed since."""
    assert COMMITTED.read_text(encoding="utf-8") == red_gate.draw()


def test_the_picture_says_why():
    """Verdict, speed, part of the step and operators are in it; nothing is cut off, and no font is asked for."""
    svg = COMMITTED.read_text(encoding="utf-8").replace("&#160;", " ")

    assert all(
        word in svg
        for word in (red_gate.COMMAND, "regression", "36.7 % below", "backward", "aten::masked_fill_", "1 case")
    )
    assert "clip-path" not in svg
    assert [part for part in svg.split('"') if part.startswith("http")] == ["http://www.w3.org/2000/svg"]
