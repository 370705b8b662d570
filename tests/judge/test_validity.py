"""Facts that make a measurement untrusted."""

import pytest

from factories import DATA, LOSSES, make_full_workload, make_run
from trainpace.judge.validity import core_fault, core_note, faults, first_losses
from trainpace.runs.run import Health

OTHER_DATA = DATA.model_copy(update={"seed": 1})


def test_sound_run_has_no_faults():
    """Its own losses as reference and a device that is faster: nothing to say."""
    assert faults(make_run(), peak_tflops=312.0, reference=(DATA, LOSSES)) == []


def test_faults_of_the_device_are_passed_on():
    """What the health of the machine found makes the run untrusted, as it was said; a note does not."""
    health = Health(foreign_cores=0.41, faults=("0.41 cores were busy with other processes",), notes=("power cap",))

    assert faults(make_run(health=health)) == ["0.41 cores were busy with other processes"]


def test_more_than_the_device_can_do_is_wrong():
    """More TFLOPs than the datasheet's peak is a wrong number, no fast one."""
    run = make_run(tgs=6000.0, workload=make_full_workload())

    assert "expected at most the device's peak of 312 TFLOPs, got 367.1" in faults(run, peak_tflops=312.0)[0]
    assert faults(run, peak_tflops=400.0) == []
    assert faults(run) == []


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ((*LOSSES[:2], 6.17 * 1.004, 6.14, 6.1), 0),
        ((*LOSSES[:2], 6.17 * 1.006, 6.14, 6.1), 1),
        ((*LOSSES[:2], 6.17 * 0.994, 6.14, 6.1), 1),
    ],
)
def test_other_losses_are_another_computation(losses, found):
    """The same data and seed must give the baseline's first losses within half a percent."""
    said = faults(make_run(losses=losses), reference=(DATA, LOSSES))

    assert found == len(said)
    assert all("expected a loss of 6.1700 within 0.5 % at step 2" in fault for fault in said)


@pytest.mark.parametrize("reference", [(OTHER_DATA, [1.0]), (None, [1.0])])
def test_losses_of_other_data_are_not_compared(reference):
    """Another seed, tokenizer or text has other losses."""
    assert faults(make_run(), reference=reference) == []


def test_losses_without_known_data_are_not_compared():
    """A trainer that brings its own data has no losses to compare."""
    assert faults(make_run(data=None), reference=(None, [1.0])) == []


def test_first_losses_start_with_the_warm_up():
    """Five losses, the warm-up's first."""
    assert list(LOSSES) == first_losses(make_run())


def test_losses_that_a_program_does_not_log_are_no_fault():
    """There are none to compare, on either side."""
    run = make_run(source="reported", ranks=1)
    silent = run.model_copy(update={"ranks": (run.ranks[0].model_copy(update={"losses": None}),)})

    assert first_losses(silent) == []
    assert faults(silent, reference=(DATA, LOSSES)) == []
    assert faults(make_run(), reference=(DATA, [])) == []


@pytest.mark.parametrize(
    ("yardstick", "reference", "fault", "of_a_pair"),
    [
        (0.00055, 0.00055, False, False),
        (0.00060, 0.00055, False, False),
        (0.00062, 0.00055, True, True),
        (0.00045, 0.00055, False, True),
        (None, 0.00055, False, False),
        (0.00062, None, False, False),
    ],
)
def test_core_fault(yardstick, reference, fault, of_a_pair):
    """A tenth less than before is a fault, a tenth more in a pair alone; what is not known is none."""
    said, paired = core_fault(yardstick, reference), core_fault(yardstick, reference, faster_too=True)

    assert (bool(said), bool(paired)) == (fault, of_a_pair)
    assert all(f"took {1e3 * yardstick:.2f} ms, 0.55 ms before (limit 10%)" in each for each in (said, paired) if each)


def test_core_note():
    """A tenth more than when the baseline was recorded is worth knowing; less is not, nor what is not known."""
    assert "took 0.45 ms, 0.55 ms then" in (core_note(0.00045, 0.00055) or "")
    assert not any(core_note(*each) for each in ((6e-4, 5e-4), (5e-4, 5.2e-4), (None, 5e-4), (5e-4, None)))
