"""The report as a user reads it: the table at both widths, the words below it, the last line."""

import pytest

import factories
from judgements import of_paired_gate
from trainpace.errors import RunFailed
from trainpace.judge.baseline import Published
from trainpace.judge.refresh import Change
from trainpace.judge.verdict import Judgement, judge, judge_failure, unjudged, would_decide
from trainpace.report.terminal import last_line, refresh_lines, render
from trainpace.runs import flops
from trainpace.runs.run import TrainedOn
from trainpace.runs.verdict import Verdict
from trainpace.store.baselines import refresh

STORED = (1000.0, 1010.0, 990.0, 1005.0, 995.0)
QUIET = "llama2_7b-8k-sp1"
SLOW = "llama2_7b-128k-sp8"
NOISY = "yi_34b_200k-8k-sp1"


@pytest.fixture
def stored(tmp_path):
    """Records the baseline of a case, as a refresh does, and returns the change."""

    def record(case: str = QUIET, tgs: tuple[float, ...] = STORED) -> Change:
        (change,) = refresh(tmp_path, factories.make_runs(*tgs, case=case))
        return change

    return record


@pytest.fixture
def judged(stored):
    """One judgement of each verdict."""
    failure = RunFailed("killed by SIGKILL", rank=3)
    return [
        judge(factories.make_runs(1001.0), stored().new),
        judge(factories.make_runs(700.0, case=SLOW), stored(SLOW).new),
        judge(factories.make_runs(1199.0, 1200.0, 1201.0, case="llama2_7b-256k-sp8"), stored("llama2_7b-256k-sp8").new),
        judge(factories.make_runs(12034.2, case="llama2_7b-32k-sp1"), None),
        judge(factories.make_runs(950.0, case=NOISY), stored(NOISY, (1000.0, 1080.0, 930.0, 1005.0, 995.0)).new),
        judge_failure("llama2_7b-1m-sp16", factories.make_workload("llama2_7b-1m-sp16"), failure),
    ]


def published() -> Judgement:
    workload = factories.make_full_workload()
    row = Published(
        origin="published",
        case=workload.case,
        model="Llama2-7B",
        scale="full",
        sequence=workload.sequence,
        sp=1,
        gpus=8,
        tgs=4028.3,
        printed_tflops=200.0,
        tflops=flops.tflops(4028.3, workload, flops.DEFAULT),
        convention=flops.DEFAULT,
        convention_version=flops.CONVENTIONS[flops.DEFAULT].version,
        hardware="A100-SXM4-80GB",
        software={"torch": "1.13"},
        source="a table",
    )
    return judge(factories.make_runs(4000.0, workload=workload), row, peak_tflops=312)


def words(text: str) -> list[str]:
    """What stands between the blanks."""
    return text.split()


def lines(text: str) -> list[list[str]]:
    """The words of every line."""
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("width", [120, 200])
def test_wide_table_has_a_line_a_case(judged, width):
    """From 120 columns on a case is one line with every figure; where no peak is known nothing stands for its share."""
    actual = lines(render(judged, width=width))

    assert words("case scale GPUs TGS TFLOPs memory baseline ratio tolerance verdict") == actual[0]
    assert words("llama2_7b-8k-sp1 mini 2 cpu 1001.0 0.0011 1.00 GiB 1000.0 measured 1.001 3.3 % pass") == actual[2]
    assert actual[8] == []


def test_wide_table_of_a_published_row():
    """On GPUs both shares of the peak are known, and a published baseline is labelled so."""
    text = render([published()], width=120)
    actual = lines(text)

    assert words("case scale GPUs TGS TFLOPs MFU HFU memory baseline ratio tolerance verdict") == actual[0]
    assert words("llama2_7b-8k-sp1 full 8 4000.0 244.7 59.1 % 76.1 %") == actual[2][:9]
    assert words("1.00 GiB 4028.3 published 0.993 5 % pass") == actual[2][9:]
    assert "\ntolerance: no spread\n" in text


def test_nothing_is_wider_than_the_terminal(judged):
    """At 80 columns the table stays within 80, with the same figures stacked."""
    text = render(judged, width=80)
    drawn = text.split("\n\nregression")[0]

    assert max(len(line) for line in drawn.splitlines()) <= 80
    assert words("case TGS baseline ratio") == drawn.splitlines()[0].split()
    assert words("scale, GPUs TFLOPs memory origin tolerance verdict") == drawn.splitlines()[1].split()
    assert drawn.splitlines()[3].split() == ["llama2_7b-8k-sp1", "1001.0", "1.00", "GiB", "1000.0", "1.001", "pass"]


def test_shares_of_the_peak_fit_a_narrow_terminal(judged):
    """With MFU and HFU the cells are stacked higher, and nothing is cut off."""
    drawn = render([*judged, published()], width=80).split("\n\nregression")[0]

    assert max(len(line) for line in drawn.splitlines()) <= 80
    assert "…" not in drawn
    assert [line for line in drawn.splitlines() if "76.1 %" in line]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_words_are_not_cut(judged, width):
    """Reasons and the last line are wrapped between words; only what is to be typed may be longer than the terminal."""
    found = render(judged, width=width).splitlines()

    assert [line for line in found if len(line) > width and not line.lstrip().startswith("pytest ")] == []
    assert " ".join(" ".join(found).split()).endswith(" ".join(last_line(judged).split()))


def test_ids_are_not_folded(judged):
    """A published case's id is whole at 80 columns."""
    text = render(judged, width=80)

    assert [each.case for each in judged if f"\n{each.case} " not in text] == []


def test_long_id_folds():
    """A user's very long id is folded instead of cut."""
    case = "our_model_with_a_very_long_name-123456-sp1"
    text = render([judge(factories.make_runs(1.0, case=case), None)], width=80)
    table = text.split("\n\n")[0]

    assert max(len(line) for line in table.splitlines()) <= 80
    assert "our_model_with" in table


def test_plain_text_has_no_codes(judged):
    """Without colour there is no escape code."""
    assert "\x1b" not in render(judged)


def test_colour_and_word(judged):
    """A verdict is coloured and still worded."""
    text = render(judged, colour=True)

    assert "\x1b[1;31mregression" in text
    assert "\x1b[32mpass" in text


def test_unknown_is_a_dash(judged):
    """A case without a run has a dash for every figure."""
    actual = lines(render(judged[-1:]))[2]

    assert ["llama2_7b-1m-sp16", "mini", "4", "cpu", *["-"] * 6, "invalid"] == actual


def test_case_that_was_never_cut():
    """A case that failed before it had a workload is in the table too."""
    actual = lines(render([judge_failure("llama2_7b-8k-sp1", None, RunFailed("scale full needs 8 GPUs"))]))[2]

    assert ["llama2_7b-8k-sp1", *["-"] * 8, "invalid"] == actual


def test_own_trainer_is_named(stored):
    """A trainer that is not native stands beside the case."""
    workload = factories.make_workload(trainer="ours:fast")

    assert "llama2_7b-8k-sp1 (ours:fast) " in render([judge(factories.make_runs(1.0, workload=workload), None)])


def test_reasons_below_the_table(judged):
    """What did not pass has its reasons below the table; what passed has none."""
    text = render(judged)

    assert "\nregression: llama2_7b-128k-sp8\n  TGS 700.0 is 30 % below" in text
    assert "\nno baseline for llama2_7b-32k-sp1/mini/native/" in text
    assert "pass: " not in text


def test_commands_are_not_broken(judged):
    """A command has a line of its own, unwrapped and without quotes: it is there to be copied."""
    found = render(judged, width=80).splitlines()
    (command,) = [line for line in found if line.startswith("  pytest perf -k llama2_7b-32k-sp1 ")]

    assert len(command) > 80
    assert command.endswith(" --perf-refresh")
    assert not any("`" in line for line in found)


def test_a_word_in_quotes_is_wrapped():
    """Only what has blanks could be broken in two."""
    judged = judge(factories.make_runs(1000.0), None)
    judged = judged.model_copy(update={"notes": ("a trainer says `tokens(batch)` " * 5,)})

    assert max(map(len, render([judged], width=80).split("\nnote: ")[1].splitlines()[:3])) <= 80


def test_versions_that_differ(stored):
    """Versions that differ from the baseline's are shown, once for all cases."""
    baseline = stored().new
    runs = factories.make_runs(1000.0, software={"python": "3.11.7", "torch": "2.14.0"})
    text = render([judge(runs, baseline), judge(runs, baseline)])

    assert text.count("version, baseline -> now: torch 2.13.0 -> 2.14.0\n") == 1


def test_notes_of_some_cases_name_them(judged):
    """A note that is not of every case names those that it is of."""
    text = render([*judged[1:2], published()], width=200)

    assert "another machine of this kind (llama2_7b-8k-sp1)\n" in text


def test_said_is_shown(judged):
    """Choices that the suite made by itself are shown."""
    assert "\nno CUDA GPU: mini\n" in render(judged, said=["no CUDA GPU: mini"])


def test_startup_is_shown():
    """Start-up seconds of every case that ran are shown, and compile seconds where there are any."""
    runs = [factories.make_run(startup_seconds=6.44, compile_seconds=40.0)]

    assert "\nstart-up to the first step: llama2_7b-8k-sp1 6.4 s (compiling 40.0 s)\n" in render([judge(runs, None)])


def test_slow_loading_is_shown():
    """Loading that takes a noticeable part of the steps is said."""
    judgement = judge(factories.make_runs(1000.0), None)

    assert "loading" not in render([judgement])
    assert "\nloading took of the steps: llama2_7b-8k-sp1 20%\n" in render(
        [judgement.model_copy(update={"data_share": 0.2})]
    )


def test_last_line_counts_and_names(judged):
    """The last line counts every verdict and names whatever did not pass."""
    actual = last_line(judged)

    assert actual[: actual.index("1 inconclusive")] == (
        "6 cases: 1 pass, 1 regression (llama2_7b-128k-sp8 0.70 of baseline, tolerance 3.3 %), "
        "1 improvement (llama2_7b-256k-sp8 1.20 of baseline, tolerance 2.3 %), 1 no baseline (llama2_7b-32k-sp1), "
    )
    assert (
        "runs would decide), 1 invalid (llama2_7b-1m-sp16: expected a run of all its steps, got none: rank 3" in actual
    )
    assert actual == render(judged).splitlines()[-1]


def test_a_large_gain_is_said_aloud():
    """Beyond 1.5 times as fast the last line warns; up to there, and where it is invalid, it does not."""
    faster = of_paired_gate()["faster"]
    fast, large = (faster.model_copy(update={"ratio": ratio}) for ratio in (1.4, 1.85))
    invalid = large.model_copy(update={"verdict": Verdict.INVALID})

    assert "warning" not in last_line([fast, invalid])
    assert last_line([fast, large]).endswith(
        "; warning: ours-8k-sp1 is 1.85 times as fast as the base: see that it does the same work"
    )


def test_last_line_of_one():
    """One case is a case."""
    assert last_line([judge(factories.make_runs(1.0), None)]) == "1 case: 1 no baseline (llama2_7b-8k-sp1)"


def test_memory_regression_is_not_named_by_its_speed(stored):
    """A regression of memory alone is named by the memory."""
    runs = factories.make_runs(1000.0, peak_memory_bytes=2 << 30)

    assert last_line([judge(runs, stored().new)]) == (
        "1 case: 1 regression (llama2_7b-8k-sp1: peak memory 2.00 GiB is 100 % above the baseline's 1.00 GiB "
        "(tolerance of memory: 3 %))"
    )


def test_columns_of_a_comparison():
    """Head against base has no baseline and no tolerance: what it was compared with, and the interval."""
    judged = [*of_paired_gate().values()]
    wide, narrow = (render(judged, width=width).split("\n\n")[0] for width in (160, 80))

    assert all(word in text for text in (wide, narrow) for word in ("base", "interval"))
    assert not any(word in text for text in (wide, narrow) for word in ("baseline", "tolerance"))
    assert "0.850 .. 0.950" in narrow
    assert "\ninterval: of 2 pairs\n" in render(judged)
    assert "ours-8k-sp1 0.90 of the base, minimum effect 5.0 %" in last_line(judged)


def test_what_a_tolerance_assumes_is_said_once(judged):
    """Below the table, whose cell holds the number and the runs that it is of."""
    text = render(judged, width=80)

    assert text.count("\ntolerance: 0.3 % between sessions assumed") == 1
    assert "assumed" not in text.split("\n\nregression")[0]


def test_data_are_said(judged):
    """What was trained on stands below the table, once."""
    assert "\ntrained on: generated, tokenizer bytes" in render(judged)


def test_what_was_found_in_the_data_is_said(judged):
    """Kind, records and tokens of each source, and what was skipped with its reason."""
    found = TrainedOn(
        name="x.json@12 less 1 record",
        kind="text",
        records=51_000,
        tokens=9_000_000,
        skipped=1,
        reasons=("record 7: no",),
    )
    text = render([each.model_copy(update={"trained_on": (found,)}) for each in judged], width=200)

    assert (
        "\ntrained on: x.json@12 less 1 record (text, 51,000 records, 9,000,000 tokens, 1 skipped), tokenizer" in text
    )
    assert "\ndata: x.json@12 less 1 record: skipped record 7: no" in text


def test_inconclusive_without_end(judged):
    """Where no number of runs decides, the last line says so."""
    judgement = judged[4].model_copy(update={"what_decides": would_decide(None, "run")})

    assert last_line([judgement]) == "1 case: 1 inconclusive (yi_34b_200k-8k-sp1, no number of runs would decide)"


def test_inconclusive_without_a_measurement():
    """The last line says why there is none: more runs would not help."""
    judgement = unjudged("llama2_7b-8k-sp1", "did not fit --perf-max-minutes 1")

    assert last_line([judgement]) == "1 case: 1 inconclusive (llama2_7b-8k-sp1: did not fit --perf-max-minutes 1)"


def test_refresh_is_recorded_or_refused(stored):
    """A refresh says what was recorded, old -> new, and names what was refused."""
    first, runs = stored(), factories.make_runs(500.0, 800.0, case=SLOW)
    refused = Change(runs[0].workload.key, None, None, "expected a spread of at most 10 %, got 33 %")
    judgements = [judge(factories.make_runs(*STORED), None), judge(runs, None)]
    text = render(judgements, changes=[first, refused], width=200)

    assert lines(text)[2][-1] == "recorded"
    assert lines(text)[3][-1] == "refused"
    assert f"\n{first.key}: none -> 1000.0 TGS\n" in text
    assert (
        text.splitlines()[-1]
        == "2 cases: 1 recorded, 1 refused (llama2_7b-128k-sp8: expected a spread of at most 10 %, got 33 %)"
    )


def test_refresh_lines(stored):
    """A refresh is a line a baseline, old -> new."""
    stored()
    again = stored()

    assert [f"{again.key}: 1000.0 -> 1000.0 TGS (+0.0 %)"] == refresh_lines([again])
