"""The Markdown summary: what it says and in which order, and that nothing quoted in it means anything but itself."""

import re

import pytest

from factories import (
    make_case_result,
    make_compare_result,
    make_cost_result,
    make_results,
    make_slower,
    make_system,
)
from hostile import GITHUB_LINKS, HOSTILE, drawn, seen, text_of
from trainpace.report.markdown import headline, render
from trainpace.report.record import Reference

# What is said


def test_verdict_table_reasons():
    """Verdict first, then the table, what was not judged, why, baselines' versions, notes."""
    unjudged = make_case_result(
        "yi_34b_200k-8k-sp1",
        verdict="no baseline",
        outcome="skipped",
        versus=None,
        ratio=None,
        tolerance_source="",
        reasons=("no baseline for yi: record it with `pytest perf --perf-refresh`",),
    )
    slower = make_slower(reasons=("TGS 700.0 is 30 % below", "look again with `pytest perf -k x`"))
    passed = make_case_result(notes=("power was capped",), version_differences=("torch 2.12.0 -> 2.13.0",))
    results = make_results(passed, slower, unjudged, exit_status=1, summary="3 cases: 1 pass", said=("mini: no GPU",))

    assert render(results) == (
        "## ❌ Slower: 1 of 3 cases\n"
        "\n"
        "3 cases: 1 pass\n"
        "\n"
        "| case | scale | GPUs | TGS | TFLOPs | MFU | HFU | memory | against | ratio | tolerance | verdict |\n"
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |\n"
        "| llama2\\_7b-8k-sp1 | mini | 2 cpu | 1000.0 | 0.0123 | - | - | 1.00 GiB | 1001.0 measured | 0.999 "
        "| 5 % | pass |\n"
        "| llama2\\_7b-32k-sp1 | mini | 2 cpu | 700.0 | 0.0123 | - | - | 1.00 GiB | 1001.0 measured | 0.700 "
        "| 5 % | **regression** |\n"
        "| yi\\_34b\\_200k-8k-sp1 | mini | 2 cpu | 1000.0 | 0.0123 | - | - | 1.00 GiB | - | - | - | **no baseline** |\n"
        "\n"
        "### Not judged\n"
        "\n"
        "- **yi\\_34b\\_200k-8k-sp1: no baseline** no baseline for yi: record it with `pytest perf --perf-refresh`\n"
        "\n"
        "### Why\n"
        "\n"
        "- **llama2\\_7b-32k-sp1: regression**\n"
        "  - TGS 700.0 is 30 % below\n"
        "  - look again with `pytest perf -k x`\n"
        "\n"
        "### Versions, baseline to now\n"
        "\n"
        "- torch 2.12.0 -\\> 2.13.0 (llama2\\_7b-8k-sp1)\n"
        "\n"
        "### Notes\n"
        "\n"
        "- mini: no GPU\n"
        "- tolerance: 5 runs, 1 now: 5 % (llama2\\_7b-8k-sp1, llama2\\_7b-32k-sp1)\n"
        "- power was capped (llama2\\_7b-8k-sp1)\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("device", "scale", "said"),
    [
        ("a100-sxm4-80gb", "mini", "| mini | 2 |"),
        ("a100-sxm4-80gb", "proxy", "| proxy | 2 |"),
        (None, "mini", "| mini | 2 cpu |"),
    ],
)
def test_what_ranks_ran_on(device, scale, said):
    """A mini case's ranks are a CPU's, unless they were on GPUs, as --perf-device cuda has them."""
    assert said in render(make_results(make_case_result(device=device, scale=scale)))


INVALID = {"verdict": "invalid", "outcome": "failed"}
UNJUDGED = {"verdict": "inconclusive", "outcome": "skipped"}
MORE = {"verdict": "regression", "outcome": "failed"}


@pytest.mark.parametrize(
    ("told", "status", "words"),
    [
        ([make_case_result()], 0, "✅ No slowdown: 1 of 1 case"),
        ([make_case_result(), make_slower()], 1, "❌ Slower: 1 of 2 cases"),
        ([make_slower(), make_case_result(**INVALID)], 1, "❌ Slower: 1, no valid measurement: 1 of 2 cases"),
        ([make_case_result(**INVALID)], 7, "❌ No valid measurement: 1 of 1 case"),
        ([make_case_result(**UNJUDGED | {"outcome": "failed"})], 6, "❌ Not judged: 1 of 1 case"),
        (
            [make_case_result(), make_case_result(**UNJUDGED)],
            0,
            "⚠️ No slowdown: 1 of 2 cases; nothing is said of the others",
        ),
        ([make_case_result(**UNJUDGED)], 0, "⚠️ Not judged"),
        ([make_case_result(), make_slower(outcome="excused")], 0, "⚠️ Slower, but excused: 1 of 2 cases"),
        ([make_case_result(**UNJUDGED | {"outcome": "excused"})], 0, "⚠️ Not judged"),
        ([make_case_result()], 1, "❌ The session ended with status 1"),
        ([], 4, "❌ The session ended with status 4"),
        ([], 0, "⚠️ Not judged"),
        ([make_case_result(refresh="recorded")], 0, "✅ Recorded: 1 of 1 case"),
        (
            [make_case_result(refresh="recorded"), make_case_result(refresh="refused")],
            1,
            "❌ Not recorded: 1 of 2 cases",
        ),
        ([make_case_result(refresh="recorded"), make_case_result(**INVALID)], 7, "❌ Not recorded: 1 of 2 cases"),
    ],
)
def test_headline(told, status, words):
    """One line says the verdict; what was not judged is never called good."""
    assert words == headline(make_results(*told, exit_status=status))


@pytest.mark.parametrize(
    ("cases", "costs", "words"),
    [
        ([], [make_cost_result()], "✅ No more to do: 1 of 1 case"),
        ([], [make_cost_result(), make_cost_result(**MORE)], "❌ More to do: 1 of 2 cases"),
        ([make_slower()], [make_cost_result(**MORE)], "❌ Slower: 1, more to do: 1 of 2 cases"),
    ],
)
def test_headline_of_costs(cases, costs, words):
    """A step that has more to do is told from one that is slower."""
    assert words == headline(make_results(*cases, costs=costs))


FIRST = (1000.0, 1010.0, 990.0)
PAIR = make_system("native", *FIRST), make_system("hf", 800.0, 808.0, 792.0, first=FIRST, footnotes=("logs",))


@pytest.mark.parametrize(
    ("comparisons", "status", "words"),
    [
        ([make_compare_result(*PAIR)], 0, "✅ Measured side by side: 1 of 1 case"),
        (
            [make_compare_result(*PAIR), make_compare_result(*PAIR, **INVALID)],
            7,
            "❌ No valid measurement: 1 of 2 cases",
        ),
        ([make_compare_result(make_system("trl"), **UNJUDGED)], 0, "⚠️ Not judged"),
    ],
)
def test_headline_of_comparisons(comparisons, status, words):
    """Whether all was measured; nobody is called slower."""
    assert words == headline(make_results(comparisons=comparisons, exit_status=status))


def test_comparisons_have_a_table():
    """The verdict, then a line a system, then what must be known to read it, then why there is no verdict."""
    wrong = make_compare_result(*PAIR, **INVALID, reasons=("invalid: hf: exit status 1",), detail="Traceback")

    assert render(make_results(comparisons=[wrong], exit_status=7)) == (
        "## ❌ No valid measurement: 1 of 1 case\n"
        "\n"
        "0 cases\n"
        "\n"
        "| case | system | TGS | TGS, 95 % | ratio | ratio, 95 % | TFLOPs | MFU | HFU | memory | start-up | status |\n"
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |\n"
        "| llama2\\_7b-8k-sp1 | native | 1000.0 | 975.4 .. 1025.1 | 1.000 | reference | 0.012 | - | - | 1.00 GiB "
        "| 2.0 s | measured |\n"
        "| llama2\\_7b-8k-sp1 | hf \\[1\\] | 800.0 | 780.3 .. 820.1 | 0.800 | 0.800 .. 0.800 | 0.012 | - | - "
        "| 1.00 GiB | 2.0 s | measured |\n"
        "\n"
        "### Side by side\n"
        "\n"
        "- \\[1\\] logs\n"
        "- llama2\\_7b-8k-sp1: Llama2-7B, mini, 128 tokens, sp 1, 2 CPU ranks, bf16, accumulation 1, 40 steps after 3, "
        "3 rounds on cpu-test-2c\n"
        "- ratio: TGS / that of native in the same round; above 1 is faster\n"
        "- a .. b: 95 % interval over the rounds\n"
        "- TFLOPs: in the convention xtuner\n"
        "\n"
        "### Not judged\n"
        "\n"
        "- **llama2\\_7b-8k-sp1 side by side: invalid** invalid: hf: exit status 1\n"
        "\n"
        "llama2\\_7b-8k-sp1 side by side:\n"
        "\n"
        "<details><summary>What the run printed</summary>\n"
        "\n"
        "```text\nTraceback\n```\n"
        "\n"
        "</details>\n"
        "\n"
    )


@pytest.mark.parametrize("hostile", HOSTILE)
def test_comparisons_quote_nothing_that_means_something(hostile):
    """A hostile name, footnote or model stays text, and in its cell."""
    system = make_system("x", *FIRST, title=hostile, footnotes=(hostile,))
    result = make_compare_result(system)
    table = result.side_by_side.model_copy(update={"case": hostile, "title": hostile})
    markdown = render(make_results(comparisons=[result.model_copy(update={"side_by_side": table})]))
    page = drawn(markdown)

    assert not GITHUB_LINKS.search(markdown.replace("&#", "&"))
    assert page.count("<td") == page.count("<tr") * 12 - 12
    assert set(re.findall(r"<(\w+)", page)) <= {
        "h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code",
    }  # fmt: skip
    assert seen(hostile) in text_of(page)


def test_costs_have_a_table():
    """What was counted stands in a table of its own, and why below it."""
    more = make_cost_result(**MORE, reasons=("step.calls 2,400 -> 2,432 (+1.33 %)",))
    unknown = make_cost_result("new", **INVALID, counters=None)
    text = render(make_results(costs=[more, unknown]))

    assert (
        "| cost, counted | FLOPs of a step | operators called | verdict |\n"
        "| --- | --: | --: | --- |\n"
        "| llama2\\_7b-8k-sp1 | 5.1e+14 | 2,400 | **regression** |\n"
        "| new | - | - | **invalid** |\n"
    ) in text
    assert "- **cost of llama2\\_7b-8k-sp1: regression** step.calls 2,400 -\\> 2,432 \\(+1.33 %\\)\n" in text


def test_warnings_come_first():
    """What must be said before anything else stands in the first line."""
    text = render(make_results(make_case_result(), warnings=("head changes baselines",)))

    assert text.startswith("> **head changes baselines**\n\n## ✅ No slowdown: 1 of 1 case\n")


def test_excused_is_named():
    """An excused regression is still called one, with its excuse."""
    text = render(make_results(make_slower(outcome="excused", excused="accepted: exact softmax")))

    assert "**regression** (excused) |\n" in text
    assert "### Excused\n\n- llama2\\_7b-32k-sp1: accepted: exact softmax\n" in text


def test_refresh_tells_changes():
    """A session that records says old -> new, and nothing of verdicts."""
    text = render(make_results(make_slower(refresh="recorded", outcome="passed", change="a/mini: 1.0 -> 2.0 TGS")))

    assert "| recorded |" in text
    assert "### Baselines\n\n- a/mini: 1.0 -\\> 2.0 TGS\n" in text
    assert "### Why" not in text


def test_base_is_named():
    """A comparison names the base's revision beside its speed."""
    versus = Reference(kind="base", name="1a2b3c4", tgs=1000.0, head="5d6e7f8", pairs=3, low=0.68, high=0.72)

    assert "| 1000.0 1a2b3c4 |" in render(make_results(make_slower(versus=versus)))


def test_output_of_a_failed_run_is_folded():
    """What a failed run printed, and what slowed, are there, folded away."""
    case = make_slower(detail="Traceback\n  boom", explanation=("backward: 1 ms -> 2 ms",))
    text = render(make_results(case))

    assert "<summary>What slowed</summary>\n\n```text\nbackward: 1 ms -> 2 ms\n```" in text
    assert "<summary>What the run printed</summary>\n\n```text\nTraceback\n  boom\n```" in text


@pytest.mark.parametrize("field", ["warnings", "summary", "said"])
def test_long_text_does_not_take_the_verdict_along(field):
    """Whatever is too long, the verdict and the table are shown."""
    text = "x " * 35_000
    shown = render(make_results(make_slower(), **{field: text if field == "summary" else (text, "short")}), 65_000)

    assert len(shown) < 65_000
    assert "## ❌ Slower: 1 of 1 case\n" in shown
    assert "| llama2\\_7b-32k-sp1 |" in shown
    assert field != "warnings" or "short" in shown


def test_limit():
    """What is too long is left out as a whole, least important first, and that is said."""
    case = make_slower(detail="x" * 5000, notes=("n" * 400,))
    text = render(make_results(case), limit=1500)

    assert len(text) < 1500
    assert "## ❌ Slower" in text
    assert "### Notes" in text
    assert text.endswith("Too long to be shown here: 1 of the sections. results.json has everything.\n")


@pytest.mark.parametrize("line", ["::error::x", "  ::stop-commands::x", "text ##[error]x"])
def test_no_line_is_a_command(line):
    """A summary that is printed to a workflow's log gives it no command."""
    text = render(make_results(make_slower(case=line, detail=line, notes=(line,)), said=(line,), summary=line))

    assert not re.findall(r"(?m)^\s*::|##\[", text)
