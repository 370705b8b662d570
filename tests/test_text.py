"""Figures as text: digits, units, signs, and what stands for what is not known."""

import pytest

from trainpace import text

OLD = {"python": "3.11.7", "torch": "2.12.0", "gone": "1"}
NEW = {"python": "3.11.7", "torch": "2.13.0", "new": "2"}


@pytest.mark.parametrize(("share", "expected"), [(0.041, "4.1 %"), (0.05, "5 %"), (1.0, "100 %"), (0.1004, "10 %")])
def test_percent(share, expected):
    """A digit after the point where it is not 0."""
    assert text.percent(share) == expected


def test_percent_of_a_column():
    """As many digits in every row, and a sign where it is a difference."""
    assert text.fixed_percent(0.57) == "57.0 %"
    assert [text.signed_percent(each) for each in (0.015, -0.003)] == ["+1.5 %", "-0.3 %"]
    assert text.signed_percent(0.00661, digits=2) == "+0.66 %"


@pytest.mark.parametrize(("value", "expected"), [(0.00107, "0.0011"), (12.347, "12.35"), (2250.0, "2250"), (None, "-")])
def test_tflops(value, expected):
    """Six characters at most."""
    assert text.tflops(value) == expected


def test_gib():
    """Two digits, or as many as are asked for."""
    assert (text.gib(5 << 28), text.gib(5 << 28, 0)) == ("1.25 GiB", "1 GiB")


def test_count():
    """One has no plural."""
    assert [text.count(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_tally():
    """Kinds in the order that is asked for; what passed is not named."""
    named = [("pass", "a"), ("red", "b"), ("pass", "c"), ("red", "b")]

    assert text.tally(named, order=["red", "blue", "pass"], unnamed={"pass"}) == "2 red (b, b), 2 pass"
    assert text.tally(named, order=["red"], once=True) == "2 red (b)"


def test_short_revision():
    """Ten digits; a mark of changes that are not committed stays; None is said."""
    assert text.short_revision("0123456789abcdef", unknown="?") == "0123456789"
    assert text.short_revision("0123456789abcdef+dirty", unknown="?") == "0123456789+dirty"
    assert text.short_revision(None, unknown="none") == "none"


def test_version_changes():
    """By name, with what is absent on one side."""
    assert text.version_changes(OLD, NEW) == ["gone 1 -> absent", "new absent -> 2", "torch 2.12.0 -> 2.13.0"]
    assert text.version_changes(OLD, NEW, ["torch", "python"]) == ["torch 2.12.0 -> 2.13.0"]


def test_grouped():
    """A sentence that two cases share stands once."""
    assert text.grouped([("a", ("x", "y")), ("b", ("y",))]) == {"x": ["a"], "y": ["a", "b"]}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a\tb\n  c é 你", "a\tb\n  c é 你"),
        ("\x1b[31mred\x1b[0m, \x1b[2Jgone", "red, gone"),
        ("\x1b]0;title\x07 \x1b]52;c;eA==\x1b\\", "\ufffd]0;title\ufffd \ufffd]52;c;eA==\ufffd\\"),
        ("\x9b2J\x7f\x00\x08", "\ufffd2J\ufffd\ufffd\ufffd"),
        (" 10 %\r 20 %\r\ndone", " 10 %\n 20 %\ndone"),
        ("half \ud800 of one, \udcff", "half \ufffd of one, \ufffd"),
        ("\u202etxet\u2066", "\ufffdtxet\ufffd"),
    ],
)
def test_harmless(said, shown):
    """What a terminal would obey, what hides, and what is no Unicode is shown as a mark."""
    assert text.harmless(said) == shown


@pytest.mark.parametrize(
    ("sentence", "words", "command"),
    [
        ("look again with `pytest perf -k 'a b'`", "look again with:", "pytest perf -k 'a b'"),
        (
            "too close to tell: 4 runs would decide, `pytest perf`",
            "too close to tell: 4 runs would decide:",
            "pytest perf",
        ),
        ("hf is not installed: `tox run -e peer-hf`", "hf is not installed:", "tox run -e peer-hf"),
        ('say so with `--perf-new-numerics "reason"`', 'say so with `--perf-new-numerics "reason"`', None),
        ("`pytest perf` counts them", "`pytest perf` counts them", None),
        ("no command", "no command", None),
    ],
)
def test_a_command_at_the_end_has_a_line_of_its_own(sentence, words, command):
    """It can be copied whole there; what is no command, or stands within the sentence, stays."""
    assert text.command_apart(sentence) == (words, command)
