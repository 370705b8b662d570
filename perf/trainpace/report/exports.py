"""A session's speed cases in the formats of other tools: Bencher, github-action-benchmark, OpenMetrics, CSV.

    pytest perf --perf-export bencher:bmf.json --perf-export csv:speed.csv

An invalid case exports no figure, in any format: what was measured there is not known to be right.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trainpace.report.record import CaseResult, Results
from trainpace.runs.verdict import Verdict


@dataclass(frozen=True)
class Figure:
    """One number of a case."""

    name: str
    help: str
    of: Callable[[CaseResult], float | None]


FIGURES = (
    Figure("tgs", "Tokens per GPU per second.", lambda case: case.tgs),
    Figure("reference_tgs", "TGS of the baseline or the base.", lambda case: case.versus.tgs if case.versus else None),
    Figure("ratio", "TGS / TGS of the baseline or the base.", lambda case: case.ratio),
    Figure("ratio_low", "Lower end of the ratio's interval.", lambda case: case.versus.low if case.versus else None),
    Figure("ratio_high", "Upper end of the ratio's interval.", lambda case: case.versus.high if case.versus else None),
    Figure("tolerance", "Share of the TGS that may be lost to noise.", lambda case: case.tolerance),
    Figure("tflops", "TFLOPs of a GPU per second.", lambda case: case.tflops),
    Figure("mfu", "Model FLOPs utilization, 0 to 1.", lambda case: case.mfu),
    Figure("hfu", "Hardware FLOPs utilization, 0 to 1.", lambda case: case.hfu),
    Figure("peak_memory_bytes", "Peak memory of a rank.", lambda case: case.peak_memory_bytes),
)

VERDICT_NUMBERS = {
    Verdict.IMPROVEMENT: 2,
    Verdict.PASS: 1,
    Verdict.INCONCLUSIVE: 0,
    Verdict.NO_BASELINE: -1,
    Verdict.REGRESSION: -2,
}
"""The verdict where a format holds numbers alone. A regression is the lowest, so that a lower boundary finds it."""


def figures(case: CaseResult) -> dict[str, float]:
    """The known figures of a case by name; none of an invalid one."""
    if case.verdict is Verdict.INVALID:
        return {}
    found = {figure.name: figure.of(case) for figure in FIGURES}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def facts(case: CaseResult) -> dict[str, str]:
    """What a case is and what was said of it, as text; "" where it is not known."""
    versus = case.versus
    return {
        "case": case.case,
        "scale": case.scale or "",
        "trainer": case.trainer or "",
        "device": case.device or "",
        "commit": case.revision or "",
        "verdict": case.verdict.value,
        "judged": "yes" if case.verdict.judged else "no",
        "versus": versus.kind if versus else "",
        "versus_name": versus.name if versus else "",
    }


def name(case: CaseResult) -> str:
    """Name of a series, `llama2_7b-8k-sp1 mini on cpu-amd-epyc-2c`: other scales and devices are other series."""
    return " ".join(filter(None, (case.title, case.scale, case.device and f"on {case.device}")))


# The formats


def bencher(results: Results) -> str:
    """Bencher Metric Format, https://bencher.dev/docs/reference/bencher-metric-format: numbers by name and measure.

    The format has no text: the verdict is a number of VERDICT_NUMBERS, and the commit is told to `bencher run --hash`.
    An invalid case is there without a measure.
    """
    return _json({name(case): _measures(case) for case in results.cases})


def _measures(case: CaseResult) -> dict[str, dict[str, float]]:
    found = figures(case)
    low, high = found.pop("ratio_low", None), found.pop("ratio_high", None)
    measures = {measure: {"value": value} for measure, value in found.items()}
    if "ratio" in measures and low is not None and high is not None:
        measures["ratio"] |= {"lower_value": low, "upper_value": high}
    if case.verdict in VERDICT_NUMBERS:
        measures["verdict"] = {"value": VERDICT_NUMBERS[case.verdict]}
    return measures


def github_action_benchmark(results: Results) -> str:
    """A list for `tool: customBiggerIsBetter` of github-action-benchmark: one entry a case, its TGS.

    An entry must have a value: a case without TGS, an invalid one for instance, is left out.
    """
    return _json([_entry(case) for case in results.cases if "tgs" in figures(case)])


def _entry(case: CaseResult) -> dict[str, str | float]:
    found = figures(case)
    rest = {key: value for key, value in found.items() if key != "tgs"}
    extra = [f"{key}: {value}" for key, value in (facts(case) | rest).items() if value != ""]
    entry: dict[str, str | float] = {"name": name(case), "unit": "tokens/s/GPU", "value": found["tgs"]}
    if "ratio_low" in found and "ratio_high" in found:
        entry["range"] = f"{found['ratio_low']} .. {found['ratio_high']} of the base"
    return {**entry, "extra": "\n".join(extra)}


def openmetrics(results: Results) -> str:
    """OpenMetrics 1.0 text. It holds gauges alone, so that Prometheus' older text format (textfile) reads it too.

    The figures of a case keep their labels from commit to commit. Verdict and commit are labels of trainpace_verdict,
    which is 1 for each case, also for one that was not judged.
    """
    return "\n".join([*_metric_lines(results), "# EOF\n"])


def _metric_lines(results: Results) -> Iterator[str]:
    for figure in FIGURES:
        samples = [(case, figures(case)[figure.name]) for case in results.cases if figure.name in figures(case)]
        if samples:
            yield from _family(figure.name, figure.help)
            for case, value in samples:
                yield f"trainpace_{figure.name}{_labels(_series(case))} {value!r}"
    yield from _family("verdict", "1 for the verdict and the commit of each case.")
    for case in results.cases:
        told = facts(case)
        said = {key: told[key] for key in ("verdict", "judged", "commit")}
        yield f"trainpace_verdict{_labels(_series(case) | said)} 1"
    yield from _family("exit_status", "Exit status of the session.")
    yield f"trainpace_exit_status {results.exit_status}"


def _family(metric: str, words: str) -> list[str]:
    return [f"# HELP trainpace_{metric} {words}", f"# TYPE trainpace_{metric} gauge"]


def _series(case: CaseResult) -> dict[str, str]:
    told = facts(case)
    return {key: told[key] for key in ("case", "scale", "trainer", "device")}


def _labels(labels: Mapping[str, str]) -> str:
    parts = (f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{','.join(parts)}}}"


def _escaped(value: str) -> str:
    # As the format asks, one sign after the other: a line break ends a sample, a quote a label.
    return "".join({"\\": r"\\", '"': r"\"", "\n": r"\n"}.get(sign, sign) for sign in value)


def comma_separated(results: Results) -> str:
    """CSV with a line a case; a figure that is not known is empty, and so is every figure of an invalid case."""
    text = io.StringIO()
    columns = [*FACTS, *(figure.name for figure in FIGURES), "reasons"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for case in results.cases:
        writer.writerow({**facts(case), **figures(case), "reasons": "; ".join(case.reasons)})
    return text.getvalue()


def _json(content: object) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FACTS = ("case", "scale", "trainer", "device", "commit", "verdict", "judged", "versus", "versus_name")
"""The keys of `facts`, in the order of the CSV's columns."""

TEXTS: Mapping[str, Callable[[Results], str]] = {
    "bencher": bencher,
    "csv": comma_separated,
    "github-action-benchmark": github_action_benchmark,
    "openmetrics": openmetrics,
}
"""The formats that are files, by the name that --perf-export knows them by."""
