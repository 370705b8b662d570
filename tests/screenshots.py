"""Pictures of all that people see, to be looked at: pages at two widths, light and dark, with a tooltip; terminals.

    tox run -e looks -- FOLDER

Pages are what the commands write, of published tables and of made-up runs; terminals are what a session prints, shown
by tmux where it is installed. Nothing is judged: whoever changed a report looks at them before and after.
"""

import argparse
import hashlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import browser
import red_gate
from factories import make_run, make_side_by_side, make_system
from judgements import of_paired_gate, of_stored_gate
from trainpace.__main__ import main
from trainpace.report import compare, predict, published, terminal
from trainpace.report.history import Web, judge
from trainpace.runs.summary import RunSummary, SeriesKey
from trainpace.store.reports import write_compare, write_history

GATE = Path(__file__).resolve().parents[1] / "docs" / "gate.svg"
WIDTHS = (500, 1280)
"""Pixels of a page."""
COLUMNS = (80, 120, 200)
"""Of a terminal."""
TALL = 12000
"""Pixels; longer than any page, whose picture is cut where nothing follows."""
SCHEMES = {"light": 1, "dark": 0}
"""Chromium's numbers of what a reader prefers."""
DAY = 86_400
FIRST = (1000.0, 1010.0, 990.0)


def made(cases: dict[str, list[float]]) -> dict[SeriesKey, list[RunSummary]]:
    """A history: of each case a run a day and a commit a run, at the levels given."""
    found: dict[SeriesKey, list[RunSummary]] = {}
    for case, levels in cases.items():
        chance = random.Random(case)  # noqa: S311 - noise, no secret
        run = make_run(case)
        kind = SeriesKey(case, run.workload.scale, run.workload.trainer, run.workload.hash, run.device.slug)
        found[kind] = [
            RunSummary(
                kind=kind,
                started=1_767_225_600 + DAY * number,
                id=f"{case}-{number}",
                revision=hashlib.sha1(f"{number}".encode()).hexdigest(),  # noqa: S324 - a name
                software=(("torch", "2.12.0" if number < 30 else "2.13.0"),),
                tgs=level * chance.lognormvariate(0, 0.008),
                peak_memory_bytes=int((1.2 + 0.2 * (number > 70)) * 2**30),
                startup_seconds=6 + chance.random() + 3 * (number > 40),
                fault=None,
            )
            for number, level in enumerate(levels)
        ]
    return found


def compared() -> list[compare.SideBySide]:
    """Two lengths, systems of every status, footnotes and commands."""
    command = "MASTER_PORT=29501 /env/bin/python -m torch.distributed.run --nproc-per-node 2 --standalone train.py"
    native = make_system("native", *FIRST, title="native (deepspeed)")
    factory = make_system(
        "llamafactory",
        *(760.0, 770.0, 750.0),
        first=FIRST,
        title="LLaMA-Factory",
        command=f"{command} train.yaml",
        footnotes=("logs after every step", "the logits are whole"),
    )
    hf = make_system("hf", *(700.0, 690.0, 710.0), first=FIRST, title="HF Trainer", footnotes=("the logits are whole",))
    skipped = make_system("trl", title="TRL")
    full = make_system("axolotl", title="Axolotl", status="out of memory", reason="step 3: out of memory")
    wrong = make_system("xtuner", title="XTuner", status="invalid", reason="expected loss 6.24, got 9.1: another job")
    return [
        make_side_by_side(native, factory, hf, skipped),
        make_side_by_side(native, factory, full, wrong, skipped, case="llama2_7b-32k-sp1"),
    ]


def write_pages(folder: Path) -> list[Path]:
    """Write every page below `folder`; their paths."""
    steady, lost = [1000.0] * 100, [1000.0] * 60 + [930.0] * 40
    moving = [1000.0] * 30 + [1060.0] * 30 + [980.0] * 40
    cases = {"llama2_7b-8k-sp1": steady, "llama2_7b-32k-sp1": lost, "yi_34b_200k-8k-sp1": moving}
    web = Web.of_remote("https://github.com/ours/training")
    write_history(judge(made(cases)), folder / "history", web)
    write_compare(compared(), folder / "compare", said=("no CUDA GPU: mini",))
    for command in (
        ["published", "--report", str(folder / "published")],
        ["published", "torchtitan", "--report", str(folder / "torchtitan")],
        ["predict", "h100-sxm", "--errors", "--report", str(folder / "prediction")],
    ):
        with redirect_stdout(StringIO()):
            assert main(command) == 0
    return sorted(folder.rglob("*.html"))


def terminals(width: int) -> Iterator[tuple[str, str]]:
    """What sessions print at a width, by name, with colours."""
    stored = of_stored_gate()
    names = ("pass", "slower", "faster", "alone", "close", "hopeless", "uneven", "disturbed", "failed", "no time")
    judged = [
        stored[name].model_copy(update={"case": f"llama2_7b-{length}-sp1"})
        for name, length in zip(names, ("8k", "32k", "128k", "256k", "1m") * 2, strict=True)
    ]
    said = ["no CUDA GPU is there: every case is cut to the mini scale", f"python {sys.version.split()[0]}"]
    yield "stored", terminal.render(judged, said=said, width=width, colour=True)
    on_gpus = [each.model_copy(update={"mfu": 0.591, "hfu": 0.761}) for each in judged[:3]]
    yield "gpu", terminal.render(on_gpus, said=said, width=width, colour=True)
    yield "gate", terminal.render([*of_paired_gate().values()], width=width, colour=True)
    yield "compare", compare.render(compared(), said=said, width=width, colour=True)
    # Their commands ask the terminal; what they print depends on nothing else.
    from trainpace.cost.predict import learnt, published_table

    yield "published", published.render(published_table(), width=width)
    yield "errors", predict.render_errors(learnt(), width=width)


def photograph(page: Path, picture: Path, *, width: int, scheme: str) -> None:
    """Write a picture of the whole page, as Chromium shows it."""
    with tempfile.TemporaryDirectory() as profile:
        browser.run(
            page,
            Path(profile),
            f"--window-size={width},{TALL}",
            f"--screenshot={picture}",
            "--hide-scrollbars",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        )
    _cut(picture)


def with_tooltip(page: Path) -> Path:
    """A copy of the page on which the keyboard has gone to the fifth mark of the first chart."""
    press = "chart.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"
    script = f"const chart = document.querySelector('figure svg'); chart.focus(); for (let i = 0; i < 5; i++) {press};"
    copy = page.with_suffix(".tooltip.htm")
    # The page's own rule lets no other script run.
    text = re.sub(r"<meta http-equiv=.Content-Security-Policy[^>]*>", "", page.read_text(encoding="utf-8"))
    copy.write_text(f"{text}<script>{script}</script>", encoding="utf-8")
    return copy


def _cut(picture: Path) -> None:
    """Cut off what is of one colour at the end."""
    from matplotlib import image

    pixels = image.imread(picture)
    rows = (pixels != pixels[-1, -1]).any(axis=(1, 2)).nonzero()[0]
    if len(rows):
        image.imsave(picture, pixels[: rows[-1] + 24])


def shown(text: str, width: int) -> str:
    """What a terminal of `width` columns shows of `text`: tmux's own answer, or the text where there is no tmux."""
    if shutil.which("tmux") is None:
        return text
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder, "text")
        printed.write_text(text)
        tmux = ["tmux", "-S", str(Path(folder, "socket"))]
        # Started with no settings of whoever calls; `cat` goes on waiting, so that the window stays.
        command = f"cat {printed}; exec sleep 20"
        size = ["-x", str(width), "-y", "150"]
        subprocess.run([*tmux, "-f", "/dev/null", "new-session", "-d", *size, command], check=True)
        try:
            subprocess.run(["sleep", "0.7"], check=True)  # noqa: S607 - the one of this machine
            taken = subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True)
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)
    return taken.stdout.rstrip("\n") + "\n"


def write_terminals(folder: Path) -> None:
    """Write a picture of what each kind of session prints, at each width."""
    from rich.console import Console
    from rich.text import Text

    for width in COLUMNS:
        for name, text in terminals(width):
            console = Console(width=width, record=True, file=StringIO(), force_terminal=True, legacy_windows=False)
            # All at once: a colour may go on over several lines.
            console.print(Text.from_ansi(shown(text, width)), soft_wrap=True)
            svg = console.export_svg(title=f"{width} columns", font_aspect_ratio=0.61)
            # Within a page, or Chromium would stretch it to the window.
            page = folder / "pages" / f"terminal-{name}-{width}.htm"
            page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body style='margin:0'>{svg}")
            picture = folder / f"terminal-{name}-{width}.png"
            photograph(page, picture, width=width * 13 + 40, scheme="light")


def everything(folder: Path, only: str) -> None:
    """Write all pictures whose names hold `only`."""
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    if only in "terminal":
        write_terminals(folder)
    for page in write_pages(folder / "pages"):
        for width in WIDTHS:
            for scheme in SCHEMES:
                name = f"{page.stem}-{width}-{scheme}.png"
                if only in name:
                    photograph(page, folder / name, width=width, scheme=scheme)
                name = f"tooltip-{name}"
                if only in name:
                    photograph(with_tooltip(page), folder / name, width=width, scheme=scheme)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("looks"))
    parser.add_argument("--only", default="", help="pictures whose names hold this")
    parser.add_argument("--gate", action="store_true", help="draw docs/gate.svg anew (red_gate.py), and nothing else")
    chosen = parser.parse_args()
    if chosen.gate:
        GATE.write_text(red_gate.draw(), encoding="utf-8")
    else:
        everything(chosen.folder.resolve(), chosen.only)
