"""What excludes what: one table, and each of its rows is met."""

import pytest

from trainpace.app import exclusions
from trainpace.app.exclusions import EXCLUDES, refuse
from trainpace.app.options import Gate, Options
from trainpace.plugin import _SUITE

NEEDS = [(wanted, needed.removeprefix("no ")) for wanted, needed, _ in EXCLUDES if needed.startswith("no ")]


@pytest.mark.parametrize(("wanted", "excluded", "words"), EXCLUDES, ids=lambda value: value[:30])
def test_a_row_is_refused_in_its_words(wanted, excluded, words):
    """Both of a pair, where all else that it needs is there; or one without what it needs."""
    needed = {needed for each, needed in NEEDS if each == wanted}
    with pytest.raises(pytest.UsageError) as raised:
        refuse({wanted} if excluded.startswith("no ") else {wanted, excluded, *needed})

    assert str(raised.value) == words


def test_rows_name_what_there_is():
    """A flag that is spelt wrong would exclude nothing."""
    flags = {
        each.metadata["flag"] for cls in (Options, Gate) for each in cls.__dataclass_fields__.values() if each.metadata
    }
    named = {side.removeprefix("no ").split(" ")[0] for row in EXCLUDES for side in row[:2] if "--perf" in side}

    assert named <= flags


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--perf-self-test", "--perf-head=x"], "--perf-self-test compares this checkout with itself"),
        (["--perf-build=make"], "--perf-build compares two sides: name the other with --perf-head"),
        (["--perf-new-numerics=why"], "--perf-new-numerics compares two sides"),
        (["--perf-explain"], "--perf-explain compares two sides"),
        (["--perf-head=x", "--perf-refresh"], "--perf-refresh has one side: leave out --perf-head and --perf-against"),
        (["--perf-head=x", "--perf-against-runs=."], "--perf-against-runs has one side"),
        (["--perf-slurm=time=60"], "--perf-slurm asks Slurm for nodes: add --perf-launcher slurm"),
        (["--perf-trainer=hf", "--perf-launcher=slurm"], "--perf-launcher: an external system starts its own ranks"),
        (["--perf-trainer=native", "--perf-trainer=a:b", "--perf-refresh"], "--perf-refresh takes one trainer"),
        (["--perf-resume"], "--perf-resume: expected --perf-runs DIR"),
        (["--perf-resume", "--perf-runs=r", "--perf-replay=."], "one side: leave out --perf-replay"),
        (["--perf-accepted=why", "--perf-refresh"], "--perf-accepted belongs to judging"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_typed_is_held_against_the_table(pytester, arguments, said):
    """From the command line to the words."""
    with pytest.raises(pytest.UsageError) as raised:
        pytester.parseconfigure(*arguments)

    assert said in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--perf-launcher=slurm", "--perf-slurm=time=60"],
        ["--perf-head=x", "--perf-build=make", "--perf-explain"],
        ["--perf-build=", "--perf-new-numerics="],
        ["--perf-trainer=native", "--perf-trainer=a:b"],
        ["--perf-refresh", "--perf-accept-slower="],
    ],
    ids=" ".join,
)
def test_what_goes_together(pytester, arguments):
    """A need that is met, and an empty text, which is nothing asked for."""
    assert pytester.parseconfigure(*arguments).stash[_SUITE].options


def test_other_plugins(pytester):
    """They are asked for only where cases are selected."""
    config = pytester.parseconfigure("--benchmark-disable")

    exclusions.refuse_other_plugins(config, set())
    exclusions.refuse_other_plugins(config, {exclusions.COMPARISON})
    with pytest.raises(pytest.UsageError, match="--benchmark-disable drops the measurement"):
        exclusions.refuse_other_plugins(config, {exclusions.SPEED_CASE})
