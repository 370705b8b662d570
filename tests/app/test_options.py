"""The options: what they become, and by which words they are refused."""

import pytest

from trainpace.app.option_values import in_ci
from trainpace.plugin import _SUITE


@pytest.fixture
def options(pytester):
    """Parses options as a session does."""
    return lambda *arguments: pytester.parseconfigure(*arguments).stash[_SUITE].options


def test_defaults(options):
    """Without options: the largest scale that runs, the native trainer as published, the repository's baselines."""
    chosen = options()

    assert (chosen.scale, chosen.trainer, chosen.engine, chosen.dtype) == ("auto", "native", "deepspeed", "bf16")
    assert (chosen.data, chosen.tokenizer, chosen.varlen) == ((), "bytes", False)
    assert (chosen.warmup, chosen.steps, chosen.runs_per_case, chosen.tolerance) == (None, None, None, None)
    assert (chosen.baselines, chosen.runs, chosen.replay, chosen.step_timeout) == (None, None, (), None)
    assert (chosen.refresh, chosen.max_spread, chosen.accept_slower, chosen.require_verdict) == (
        False,
        0.1,
        None,
        False,
    )


def test_numbers(options):
    """Numbers arrive as numbers."""
    chosen = options(
        "--perf-warmup=2",
        "--perf-steps=7",
        "--perf-runs-per-case=3",
        "--perf-tolerance=0.04",
        "--perf-max-spread=.2",
        "--perf-step-timeout=1.5",
    )

    assert (chosen.warmup, chosen.steps, chosen.runs_per_case) == (2, 7, 3)
    assert (chosen.tolerance, chosen.max_spread, chosen.step_timeout) == (0.04, 0.2, 1.5)


def test_paths_are_of_the_invocation(options, pytester):
    """A relative path is relative to where pytest was called."""
    pytester.mkdir("runs")
    chosen = options("--perf-baselines=stored", "--perf-runs=kept", "--perf-replay=runs", "--perf-replay=.")

    assert chosen.baselines == pytester.path / "stored"
    assert chosen.runs == pytester.path / "kept"
    assert chosen.replay == (pytester.path / "runs", pytester.path)


def test_data_is_a_file_or_a_name(options, pytester):
    """What is a file goes by its whole path; anything else is a name on the hub, as it is."""
    pytester.makefile(".json", records="[]")
    chosen = options("--perf-data=records.json", "--perf-data=tatsu-lab/alpaca")

    assert chosen.data == (str(pytester.path / "records.json"), "tatsu-lab/alpaca")


def test_tokenizer_is_a_path_or_a_name(options, pytester):
    """So is a tokenizer."""
    pytester.mkdir("mine")

    assert options("--perf-tokenizer=mine").tokenizer == str(pytester.path / "mine")
    assert options("--perf-tokenizer=org/theirs").tokenizer == "org/theirs"


def test_slower_with_a_reason(options):
    """A refresh may be told why slower is right."""
    assert options("--perf-refresh", "--perf-accept-slower=safer sums").accept_slower == "safer sums"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--perf-warmup=0"], "argument --perf-warmup: expected a whole number of at least 1, got '0'"),
        (["--perf-steps=1.5"], "argument --perf-steps: expected a whole number of at least 1, got '1.5'"),
        (["--perf-runs-per-case=-1"], "argument --perf-runs-per-case: expected a whole number of at least 1, got '-1'"),
        (["--perf-max-pairs=1"], "argument --perf-max-pairs: expected a whole number of at least 2, got '1'"),
        (["--perf-tolerance=5"], "argument --perf-tolerance: expected a share between 0 and 1 (0.05 is 5 %), got '5'"),
        (["--perf-tolerance=nan"], "argument --perf-tolerance: expected a share between 0 and 1 (0.05 is 5 %), got"),
        (
            ["--perf-max-spread=0"],
            "argument --perf-max-spread: expected a share between 0 and 1 (0.05 is 5 %), got '0'",
        ),
        (["--perf-step-timeout=inf"], "argument --perf-step-timeout: expected a positive number of seconds, got 'inf'"),
        (["--perf-step-timeout=soon"], "argument --perf-step-timeout: expected a positive number of seconds, got"),
        (["--perf-scale=huge"], "argument --perf-scale: invalid choice: 'huge' (choose from"),
        (["--perf-engine=ddp"], "argument --perf-engine: invalid choice: 'ddp' (choose from"),
        (["--perf-dtype=fp8"], "argument --perf-dtype: invalid choice: 'fp8' (choose from"),
        (
            ["--perf-trainer=ours"],
            "--perf-trainer: expected native, package.module:object, axolotl, hf, llamafactory, torchtitan, trl, "
            "xtuner or a .toml file, got 'ours'",
        ),
        (
            ["--perf-trainer=a:b:c"],
            "--perf-trainer: expected native, package.module:object, axolotl, hf, llamafactory, torchtitan, trl, "
            "xtuner or a .toml file, got 'a:b:c'",
        ),
        (["--perf-data=missing.jsonl"], "--perf-data: no file "),
        (["--perf-data=./missing"], "--perf-data: no file "),
        (["--perf-replay=missing"], "missing does not exist"),
        (["--perf-replay=.", "--perf-refresh"], "--perf-refresh records fresh runs only: --perf-replay cannot be"),
        (
            ["--perf-accept-slower=x"],
            "--perf-accept-slower belongs to --perf-refresh: judging never accepts a slowdown",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(options, arguments, said):
    """What cannot be used is a usage error that names the option, what it takes and what came."""
    with pytest.raises(pytest.UsageError) as raised:
        options(*arguments)

    assert said in str(raised.value)


def test_variables_are_named_without_values(options):
    """--perf-env takes names, several times; what is no name is refused."""
    assert options("--perf-env=HF_TOKEN", "--perf-env", "OURS").environment == ("HF_TOKEN", "OURS")
    with pytest.raises(pytest.UsageError, match="--perf-env: expected the name of an environment variable, got 'A=1'"):
        options("--perf-env=A=1")


def test_the_label_of_a_device(options, pytester):
    """What is typed stands above the ini file; empty, as a workflow leaves it, is none; it is a part of file names."""
    assert options().device_label is None
    assert options("--perf-device-label=rack-b").device_label == "rack-b"
    pytester.makeini("[pytest]\nperf_device_label = rack-a\n")
    assert options().device_label == "rack-a"
    assert options("--perf-device-label=b").device_label == "b"
    assert options("--perf-device-label=").device_label is None
    for wrong in ("Rack", "a b", "-a", "a-", "../a", "a.b", "a" * 41):
        with pytest.raises(pytest.UsageError, match="--perf-device-label: expected at most 40 lower-case letters"):
            options(f"--perf-device-label={wrong}")


def test_minimum_effects_are_of_all_and_of_cases(options):
    """The last plain share counts, and each case's own; typed after the ini file's they stand above them."""
    chosen = options("--perf-head=.", "--perf-detect=0.1", "--perf-detect=a-8k=0.2", "--perf-detect=0.03").gate

    assert (chosen.detect.of("a-8k"), chosen.detect.of("b")) == (0.2, 0.03)
    assert options("--perf-head=.").gate.detect.of("a-8k") == 0.05
    assert options("--perf-head=.").gate.max_pairs is None
    for wrong in ("2", "a=", "=0.1", "a=x", "nan"):
        with pytest.raises(pytest.UsageError, match="--perf-detect: expected a share between 0 and 1"):
            options("--perf-head=.", f"--perf-detect={wrong}")


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("1", True), ("", False), ("0", False), (None, False)])
def test_ci_is_told_by_its_variable(value, expected, monkeypatch):
    """All services set CI; what is empty or false is as if it were not set."""
    monkeypatch.delenv("CI") if value is None else monkeypatch.setenv("CI", value)

    assert in_ci() is expected
