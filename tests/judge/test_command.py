"""The commands that reports print: what was typed, for one test, with what a hint changes."""

from factories import make_workload
from trainpace.judge.command import Command

COMMAND = "pytest perf -k llama2_7b-8k-sp1 --perf-scale mini"
TYPED = Command(
    test="perf/test_speed.py::test_speed[llama2_7b-8k-sp1]",
    pytest=("-c", "my tests.ini"),
    options={"--perf-data": ("a b.json", "c.json"), "--perf-runs-per-case": ("2",), "--perf-against-runs": ("kept",)},
)


def test_names_what_differs_from_the_defaults():
    """Without anything typed the command measures the same workload again."""
    workload = make_workload(engine="fsdp2", dtype="fp32", attention="varlen", warmup=1, steps=5)
    options = "--perf-engine fsdp2 --perf-dtype fp32 --perf-warmup 1 --perf-steps 5 --perf-varlen"

    assert f"{COMMAND} {options} --perf-refresh" == Command().speed(workload, refresh=True)


def test_compiled_layers():
    """They are named, but where the case says so itself."""
    compiled, case = make_workload(compile=True), make_workload(compile=True, case="llama2_7b-8k-sp1-compile")

    assert f"{COMMAND} --perf-compile" == Command().speed(compiled)
    assert "--perf-compile" not in Command().speed(case)


def test_a_user_trainer():
    """A user's trainer has no engine that could be chosen."""
    workload = make_workload(trainer="ours.train:fast", engine="own")

    assert f"{COMMAND} --perf-trainer ours.train:fast" == Command().speed(workload)


def test_a_program_with_steps_of_its_own():
    """An option that would change nothing is not printed; one that was typed is repeated."""
    workload = make_workload(trainer="axolotl", engine="own", warmup=4, steps=7)

    assert f"{COMMAND} --perf-trainer axolotl" == Command(own_steps=True).speed(workload)
    assert Command(own_steps=True, options={"--perf-steps": ("9",)}).speed(workload).endswith(" --perf-steps 9")


def test_carries_what_was_typed():
    """One test by its node id, quoted for a shell, with every option that was typed and what the hint sets."""
    assert TYPED.speed(make_workload(), runs_per_case=10) == (
        "pytest 'perf/test_speed.py::test_speed[llama2_7b-8k-sp1]' -c 'my tests.ini' --perf-scale mini "
        "--perf-data 'a b.json' --perf-data c.json --perf-against-runs kept --perf-runs-per-case 10"
    )


def test_a_hint_leaves_out_what_it_excludes():
    """A refresh takes as many runs as a refresh does, and judges against nothing."""
    assert TYPED.speed(make_workload(), refresh=True).endswith("--perf-data c.json --perf-refresh")


def test_a_default_that_was_typed_stays():
    """It may stand above what an ini option says."""
    typed = Command(options={"--perf-trainer": ("native",), "--perf-dtype": ("bf16",)})

    assert f"{COMMAND} --perf-trainer native --perf-dtype bf16" == typed.speed(make_workload())


def test_of_a_run_that_another_command_measured():
    """What is replayed was measured as its workload says, whatever was typed for the replay."""
    typed = Command(options={"--perf-dtype": ("bf16",)})

    assert f"{COMMAND} --perf-dtype fp32" == typed.speed(make_workload(dtype="fp32"))
