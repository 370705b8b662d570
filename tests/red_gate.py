"""The picture of a red gate that the README shows, docs/gate.svg: `tox run -e looks -- --gate` draws it anew.

It is what a terminal showed at the end of one session, whose judgement is kept in report/recorded/red_gate.json: a
decoder of two layers in plain PyTorch, 1024 tokens, on one core of a busy machine. Head replaced
`F.scaled_dot_product_attention(query, key, value, is_causal=True)` by `softmax` of masked scores, "attention whose
weights can be looked at". Typed was COMMAND, with --perf-warmup 2 --perf-steps 8. Left out are the notes on that
machine and the command that looks again.
"""

import re
from io import StringIO
from pathlib import Path

from trainpace.judge.verdict import Judgement
from trainpace.report.terminal import render

RECORDED = Path(__file__).parent / "report" / "recorded" / "red_gate.json"
COMMAND = "pytest perf --perf-against main"
WIDTH = 108
"""Columns."""
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>A red gate: what was slower, by how much, and in which part of the step</title>
<style>
.{unique_id}-matrix {{ font-family: DejaVu Sans Mono, Menlo, Consolas, monospace; font-size: {char_height}px; }}
{styles}
</style>
<rect fill="#1b1f23" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def judgement() -> Judgement:
    """What was judged, without what only the session's own reader needs."""
    found = Judgement.model_validate_json(RECORDED.read_text(encoding="utf-8"))
    return found.model_copy(update={"notes": (), "startup_seconds": None, "reasons": found.reasons[:1]})


def draw() -> str:
    """The picture, SVG. The same judgement gives the same bytes."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=WIDTH, record=True, file=StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi(f"\x1b[1m$ {COMMAND}\x1b[0m"))
    for line in render([judgement()], width=WIDTH, colour=True).splitlines():
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title="", code_format=FORMAT, unique_id="gate", font_aspect_ratio=0.61)
    # rich cuts each line at its own height, and with it the underscores of a font that is a little deeper.
    svg = re.sub(r' clip-path="url\([^)]*\)"', "", svg)
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())
