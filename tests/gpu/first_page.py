"""The page that the first minutes on a GPU (first.py) end with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainpace.text import gib, known

MOST_SPREAD = 0.01
"""Coefficient of variation of five runs; more is said on the page. The first H100 had 0.12 %."""

Figures = dict[str, Any]
"""What a step found, as JSON."""


def render(steps: Mapping[str, str], done: Mapping[str, Any], folder: Path) -> str:
    """The page, Markdown.

    Args:
        steps: what each shows, by name, in their order.
        done: what became of those that were begun, by name.
        folder: that they write into.
    """
    facts = done.get("facts", {}).get("figures", {})
    passed = [name for name in steps if done.get(name, {}).get("passed")]
    failed = next((name for name in steps if name in done and name not in passed), None)
    lines = [f"# First minutes on {facts.get('device', 'a GPU')}", ""]
    if failed:
        lines += [f"**Stopped at `{failed}`**: {_cell(done[failed]['reason'])}", ""]
        lines += [f"Its output: `{folder / failed / 'log.txt'}`. Mended, go on there with:", ""]
        lines += ["```sh", f"python tests/gpu/first.py {folder}", "```", ""]
    elif len(passed) == len(steps):
        lines += [f"All {len(steps)} steps passed.", ""]
    lines += ["| step | shows | | seconds | revision |", "|---|---|---|---:|---|"]
    for name, shows in steps.items():
        of = done.get(name)
        word = "not begun" if of is None else "passed" if of["passed"] else "**failed**"
        seconds = "" if of is None else f"{of['seconds']:.0f}"
        revision = (of or {}).get("revision") or ""
        lines.append(f"| {name} | {shows} | {word} | {seconds} | {_short(revision)} |")
    found = {name: done[name]["figures"] for name in passed}
    sections = (_speed_section, _noise_section, _self_test_section, _facts_section)
    return "\n".join([*lines, *(line for section in sections for line in section(found))]) + "\n"


def _speed_section(found: dict[str, Figures]) -> list[str]:
    trained = {name: of for name, of in found.items() if "hfu" in of}
    if not trained:
        return []
    lines = [
        *("", "## Speed and memory against the prediction", ""),
        "| step | case | engine | layers | GPUs | TGS | TFLOPs | HFU | predicted | memory | predicted |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, of in trained.items():
        figures = [of["layers"], of["ranks"], f"{of['tgs']:.0f}", known(of["tflops"], ".0f")]
        shares = [known(of[each], ".1%") for each in ("hfu", "hfu_predicted")]
        memory = [gib(of[each]) for each in ("memory", "memory_predicted")]
        lines.append(f"| {' | '.join(map(str, [name, of['case'], of['engine'], *figures, *shares, *memory]))} |")
    lines += ["", "HFU is predicted of the published row as a whole, on its own GPUs; memory of the cut itself."]
    lines += [
        f"**`{name}` took more memory than estimated**, by {of['memory'] / of['memory_predicted'] - 1:.1%}."
        for name, of in trained.items()
        if of["memory"] > of["memory_predicted"]
    ]
    return lines


def _noise_section(found: dict[str, Figures]) -> list[str]:
    if (of := found.get("noise")) is None:
        return []
    runs = of["tgs_of_runs"]
    lines = [
        *("", f"## Spread of {len(runs)} runs", ""),
        f"{min(runs):.0f} to {max(runs):.0f} TGS, geometric mean {of['mean']:.1f}, coefficient of variation "
        f"{of['spread']:.2%}.",
    ]
    if of["spread"] > MOST_SPREAD:
        lines += [f"**That is more than the {MOST_SPREAD:.0%} that was expected**: find what disturbs this machine."]
    return lines


def _self_test_section(found: dict[str, Figures]) -> list[str]:
    if (of := found.get("self-test")) is None:
        return []
    ends = f" ({of['low']:.3f} .. {of['high']:.3f})" if of["low"] is not None and of["high"] is not None else ""
    pairs = f" in {of['pairs']} pairs" if of["pairs"] else ""
    ratio = known(of["ratio"], ".3f")
    return ["", "## Self-test", "", f"Unchanged code{pairs}: ratio {ratio}{ends}; {_cell(of['found'])}."]


def _facts_section(found: dict[str, Figures]) -> list[str]:
    if (of := found.get("facts")) is None:
        return []
    notes = {note: None for figures in found.values() for note in figures.get("notes", ())}
    return [
        *("", "## Machine", ""),
        f"{of['count']} x {of['device']} (`{of['slug']}`), {gib(of['memory'])}; "
        f"{of['burn_tflops']:.0f} TFLOP/s in products.",
        "",
        ", ".join(f"{name} {version}" for name, version in of["versions"].items()) + ".",
        *(["", *(f"- {_cell(note)}" for note in notes)] if notes else []),
    ]


def _short(revision: str) -> str:
    commit, plus, dirty = revision.partition("+")
    return commit[:10] + plus + dirty


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
