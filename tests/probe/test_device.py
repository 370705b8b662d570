"""Identity, datasheets and health of devices."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from trainpace.probe.device import (
    FOREIGN_CORES_LIMIT,
    GpuState,
    GpuWindow,
    cgroup_memory_bytes,
    cpu_faults,
    cpu_model,
    cpu_slug,
    gpu_faults,
    gpu_slug,
    present,
    revision,
    usable_cores,
)
from trainpace.runs.run import Health

WINDOW = 10.0
COLD = GpuState(
    name="GPU 0",
    slowed_ns={"software power cap": 0, "thermal slowdown": 0, "power brake": 0, "hardware slowdown": 0},
    ecc_errors=2,
    clock_mhz=1155,
    celsius=71,
    watts=398.6,
)


def gpu(**changes: object) -> GpuState:
    return GpuState(**(vars(COLD) | changes))  # type: ignore[arg-type]


def files(root: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("A100-SXM-80GB", "a100-sxm4-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm5-80gb"),
        ("NVIDIA H100 PCIe", "h100-pcie-80gb"),
        ("NVIDIA H200", "h200-sxm5-141gb"),
        ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA A800 80GB PCIe", "a800-pcie-80gb"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada-generation"),
        ("NVIDIA GeForce RTX 4090", "geforce-rtx-4090"),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "a100-sxm4-80gb-mig-3g-40gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "h100-sxm5-80gb-mig-1g-10gb"),
    ],
)
def test_gpu_slug(name, expected):
    """A driver's name becomes the name of a baseline file, by alias where people call the card otherwise."""
    assert expected == gpu_slug(name)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("AMD EPYC", "cpu-amd-epyc-2c"),
        ("AMD EPYC 7763 64-Core Processor", "cpu-amd-epyc-7763-2c"),
        ("Intel(R) Xeon(R) Gold 6348 CPU @ 2.60GHz", "cpu-intel-xeon-gold-6348-2c"),
        ("Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz", "cpu-intel-core-i9-9900k-2c"),
        ("aarch64", "cpu-aarch64-2c"),
    ],
)
def test_cpu_slug(model, expected):
    """A CPU's slug keeps what tells models apart, and the cores that can be used."""
    assert expected == cpu_slug(model, 2)


def test_cpu_model_from_the_kernel(tmp_path):
    """The model is the kernel's; where the kernel names none, the architecture."""
    root = files(tmp_path, {"x86": "processor\t: 0\nmodel name\t: AMD EPYC 7763\n", "arm": "processor\t: 0\n"})

    assert cpu_model(root / "x86") == "AMD EPYC 7763"
    assert os.uname().machine == cpu_model(root / "arm") == cpu_model(root / "missing")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({}, len(os.sched_getaffinity(0))),
        ({"sys/fs/cgroup/a/b/cpu.max": "max 100000"}, len(os.sched_getaffinity(0))),
        ({"sys/fs/cgroup/a/b/cpu.max": "100000 100000"}, 1),
        ({"sys/fs/cgroup/a/cpu.max": "150000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000"}, None),
        ({"sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "100000", "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_usable_cores(tmp_path, texts, expected):
    """A cgroup quota, its own or an outer one, of either version, lowers the cores below the affinity's."""
    root = files(tmp_path, {"proc/self/cgroup": "3:cpu:/c\n0::/a/b\n", **texts})

    assert (expected or len(os.sched_getaffinity(0))) == usable_cores(root)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({}, None),
        ({"sys/fs/cgroup/a/b/memory.max": "max"}, None),
        ({"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": "4096"}, 4096),
        ({"sys/fs/cgroup/memory/c/memory.limit_in_bytes": "8192"}, 8192),
    ],
)
def test_cgroup_memory(tmp_path, texts, expected):
    """The tightest limit over this process counts; without one there is none."""
    root = files(tmp_path, {"proc/self/cgroup": "4:memory:/c\n0::/a/b\n", **texts})

    assert expected == cgroup_memory_bytes(root)


def test_present_without_a_driver():
    """Where no NVIDIA driver is installed the machine is its CPU."""
    if shutil.which("nvidia-smi"):
        pytest.skip("a driver is installed here")
    machine = present()

    assert (None, machine.cpu) == (machine.gpus, machine.device)
    assert machine.cpu.slug.endswith(f"-{machine.cpu.count}c")
    assert 0 < machine.free_bytes <= machine.cpu.memory_bytes


def test_window_without_a_driver():
    """Where no NVIDIA driver is installed a GPU window finds neither faults nor notes."""
    if shutil.which("nvidia-smi"):
        pytest.skip("a driver is installed here")
    window = GpuWindow(8)
    window.open()

    assert Health() == window.close()


@pytest.fixture(scope="module")
def with_fake_driver(tmp_path_factory):
    """Run Python code where a stand-in NVIDIA driver is installed, an old one if asked; returns what it printed."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in driver with")
    source = Path(__file__).with_name("fake_nvml.c")

    @cache
    def built(old: int) -> Path:
        folder = tmp_path_factory.mktemp("driver")
        command = [compiler, "-shared", "-fPIC", f"-DOLD={old}", "-o", folder / "libnvidia-ml.so.1", source]
        subprocess.run(command, check=True)
        return folder

    def run(code: str, *, old: int = 0, **environment: str) -> str:
        clean = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        done = subprocess.run(
            [sys.executable, "-c", f"from trainpace.probe.device import *\n{code}"],
            env=clean | {"LD_LIBRARY_PATH": str(built(old)), "PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    return run


def in_turn(settings: list[dict[str, str]], code: str) -> str:
    """Code that looks at the machine, as `m`, under each of some environments, in one process."""
    return f"""
for setting in {settings}:
    os.environ.update(setting)
    m = present()
    {code}
    for name in setting:
        del os.environ[name]
"""


def test_present_with_gpus(with_fake_driver):
    """Equal GPUs are counted up to the first of another kind, which is said."""
    actual = with_fake_driver(
        "m = present(); print(m.gpus.slug, m.gpus.count, m.gpus.memory_bytes >> 30, m.gpus.power_limit_watts, "
        "m.gpu_free_bytes >> 30); print(*m.notes)"
    )

    assert actual == (
        "a100-sxm4-80gb 2 80 400.0 78\n"
        "the GPUs are not equal: using 2 x NVIDIA A100-SXM4-80GB, leaving Tesla T4; see CUDA_VISIBLE_DEVICES"
    )


def test_the_driver_is_opened_once(with_fake_driver):
    """Opening it takes seconds where it has no persistence mode: it stays open."""
    code = (
        "import pynvml; opened = []; real = pynvml.nvmlInit; pynvml.nvmlInit = lambda: opened.append(real()); "
        "[present() for _ in range(3)]; print(len(opened))"
    )

    assert with_fake_driver(code) == "1"


VISIBLE = {
    "1": "a100-sxm4-80gb 1",
    "1,0": "a100-sxm4-80gb 2",
    "GPU-0a": "a100-sxm4-80gb 1",
    "GPU-2,GPU-1a2b": "t4 1",
    "GPU-": "None",
    "1,GPU-7,0": "a100-sxm4-80gb 1",
    "0,9,1": "a100-sxm4-80gb 1",
    "2": "t4 1",
    "": "None",
    "-1": "None",
}


def test_cuda_visible_devices(with_fake_driver):
    """CUDA_VISIBLE_DEVICES is read as CUDA reads it: indices, UUIDs, and nothing behind an entry that is none."""
    settings = [{"CUDA_VISIBLE_DEVICES": setting} for setting in VISIBLE]
    said = with_fake_driver(in_turn(settings, "print(m.gpus and f'{m.gpus.slug} {m.gpus.count}')"))

    assert list(VISIBLE.values()) == said.splitlines()


def test_what_is_not_known_of_a_gpu_is_noted(with_fake_driver):
    """A GPU without a datasheet, or without bf16, is used, and a note says what cannot be told of it."""
    settings = [{"FAKE_UNIFIED": "1"}, {"CUDA_VISIBLE_DEVICES": "2"}]
    unknown, without = with_fake_driver(in_turn(settings, "print(m.notes[-1])")).splitlines()

    assert unknown == "no datasheet for NVIDIA GB10 (gb10): % of peak and impossible TFLOPs cannot be told"
    assert without.startswith("Tesla T4 has no bf16 tensor cores")


SAID = "print(m.gpus and f'{m.gpus.slug} {m.gpus.count} {m.gpus.memory_bytes >> 20}', *gpu_uuids(), m.notes[:1])"
MIG = (
    "a100-sxm4-80gb-mig-1g-10gb 1 9728 {} ('NVIDIA A100-SXM4-80GB MIG 1g.10gb is a MIG instance, and a device of its "
    "own: what is known of the whole GPU is not applied',)"
)


def test_a_mig_instance_is_a_device_of_its_own(with_fake_driver):
    """Of the instances that are visible CUDA shows the first, and beside it no whole GPU: with its own memory."""
    expected = {None: "MIG-0", "0": "MIG-0", "MIG-1": "MIG-1", "MIG-1,MIG-0": "MIG-1", "1,MIG-1": "MIG-1"}
    settings = [{"CUDA_VISIBLE_DEVICES": setting} if setting else {} for setting in expected]
    said = with_fake_driver(in_turn([*settings, {"FAKE_MIG_NAMES": "old"}], SAID), FAKE_MIG="2")

    assert said.splitlines() == [MIG.format(uuid) for uuid in [*expected.values(), "MIG-0"]]


def test_mig_mode_without_an_instance(with_fake_driver):
    """A GPU in MIG mode without an instance is none that can be used, and the others are."""
    settings = [{"FAKE_GPUS": "1"}, {"CUDA_VISIBLE_DEVICES": "MIG-7,1"}, {}]
    alone, unknown, others = with_fake_driver(in_turn(settings, SAID), FAKE_MIG="0").splitlines()

    assert alone.startswith("None ('GPU 0 is in MIG mode and has no instance: none is used")
    assert alone == unknown
    assert others.startswith("a100-sxm4-80gb 1 81920 GPU-1a2b GPU-2a2b")


def test_gpu_without_memory_of_its_own(with_fake_driver):
    """A GPU whose driver tells no memory shares the machine's, which is said."""
    said = with_fake_driver(f"m = present(); {SAID}", FAKE_UNIFIED="1", FAKE_GPUS="1")
    machine = present().cpu.memory_bytes >> 20

    assert said.startswith(f"gb10 1 {machine} GPU-0a2b (")
    assert "the driver tells no memory of NVIDIA GB10: it is taken to share the machine's" in said


PROCESSES = """
import subprocess
stranger = subprocess.check_output("sleep 60 >/dev/null 2>&1 & echo $!", shell=True, text=True).strip()
for pids in GIVEN:
    rank = subprocess.Popen(["sleep", "60"])
    os.environ["FAKE_PIDS"] = pids.replace("RANK", str(rank.pid)).replace("STRANGER", stranger)
    w = GpuWindow(1); w.open(); rank.kill(); rank.wait(); h = w.close()
    print(h.faults, h.notes)
os.kill(int(stranger), 9)
"""
UNTOLD = (
    "() ('GPU 0: whether another process used it cannot be told: the driver calls its one process {}, which is none in "
    "this container (docker run --pid=host, on Kubernetes hostPID)',)"
)
CROWDED = "('GPU 0: used by other processes too (2 run on it, this session started one)',) ()"


def test_processes_of_another_namespace(with_fake_driver):
    """A process that has no number here may be the session's own; one more than was started is a stranger."""
    expected = {
        "RANK": "() ()",
        "4194300": UNTOLD.format(4194300),
        "0": UNTOLD.format(0),
        "4294967295": UNTOLD.format(4294967295),
        "0,0": CROWDED,
        "RANK,4194300": CROWDED,
    }
    code = PROCESSES.replace("GIVEN", repr([*expected, "RANK,STRANGER"]))
    *said, named = with_fake_driver(code, FAKE_GPUS="1", FAKE_COOL="1").splitlines()

    assert said == list(expected.values())
    assert named.startswith("('GPU 0: used by other processes too (pid ")


AT_ITS_END = "during 100% of the window (1155 MHz, 71 C, 399 W at its end)"
VARIANTS = {
    "FAKE_ECC=3": "fault: GPU 0: 2 new uncorrected ECC errors",
    "FAKE_HELD=74": f"note: GPU 0: software power cap {AT_ITS_END}",
    "FAKE_HELD=77": f"fault: GPU 0: hardware slowdown {AT_ITS_END}",
    "FAKE_HELD=269": f"fault: GPU 0: thermal slowdown {AT_ITS_END}",
    "FAKE_HELD=271": f"fault: GPU 0: power brake {AT_ITS_END}",
    "FAKE_REASONS=128": "fault: GPU 0: power brake at the window's end (1155 MHz, 71 C, 399 W)",
    "FAKE_LOST=0": "fault: GPU 0: lost: the driver does not reach it any more (`dmesg` has its Xid)",
    "FAKE_LOST=1": "",  # another one
}
"""What becomes of the GPU while it is watched, and what is said of it."""
WATCHED = """
for change in GIVEN:
    name, _, value = change.partition("=")
    if name == "FAKE_ECC":
        os.environ[name] = "1"
    if name == "FAKE_HELD":
        os.environ[name] = value
    w = GpuWindow(1)
    w.open()
    os.environ[name] = value
    time.sleep(0.01)
    h = w.close()
    print(*(f"fault: {said}" for said in h.faults), *(f"note: {said}" for said in h.notes), sep="; ")
    os.environ.pop(name, None)
"""


def test_what_becomes_of_a_gpu(with_fake_driver):
    """New ECC errors, each counter of slowdowns where all are known, a card that falls off the bus, another one."""
    said = with_fake_driver(WATCHED.replace("GIVEN", repr(list(VARIANTS))), FAKE_GPUS="2", FAKE_COOL="1")

    assert said.split("\n") == [each for each in VARIANTS.values() if each]


@pytest.mark.parametrize(
    ("old", "said"),
    [
        (1, f"{VARIANTS['FAKE_REASONS=128']}; fault: GPU 0: used by other processes too (pid 1)"),
        (2, "note: GPU 0: whether another process used it cannot be told: the driver does not say"),
    ],
)
def test_a_driver_without_todays_functions(with_fake_driver, old, said):
    """Functions by their older names, or not at all: what cannot be told is a note, and nothing an error."""
    code = "print(present().gpus.slug)" + WATCHED.replace("GIVEN", "['FAKE_REASONS=128']")

    assert with_fake_driver(code, old=old, FAKE_GPUS="1", FAKE_PIDS="1") == f"a100-sxm4-80gb\n{said}"


def test_a_lost_gpu(with_fake_driver):
    """It is refused by its number; where it is left out the others are used."""
    code = """
from trainpace.errors import UsageError
try:
    present()
except UsageError as error:
    print(error)
print(*gpu_uuids(), gpu_cores(3), gpu_links())
for visible in ("0,2", "GPU-0"):
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    print(*gpu_uuids(), present().gpus.count)
"""
    refused, *others = with_fake_driver(code, FAKE_LOST="1").splitlines()

    assert refused.startswith("GPU 1 of 3 is lost: the driver does not reach it any more")
    assert others == ["GPU-0a2b lost GPU-2a2b [[], [], []] pcie", "GPU-0a2b GPU-2a2b 1", "GPU-0a2b 1"]


def test_window_of_a_mig_instance(with_fake_driver):
    """Of an instance the whole GPU's clocks are watched, and its own processes."""
    code = "w = GpuWindow(1); w.open(); time.sleep(0.05); h = w.close(); print(*h.faults, *h.notes)"

    assert with_fake_driver(code, FAKE_MIG="1") == (
        "GPU 0: thermal slowdown during 100% of the window (1155 MHz, 71 C, 399 W at its end)"
    )


def test_window_with_gpus(with_fake_driver):
    """A window finds heat and strangers invalid, and notes a power cap."""
    actual = with_fake_driver(
        "w = GpuWindow(2); w.open(); time.sleep(0.05); h = w.close(); print(*h.faults, *h.notes, sep='\\n')"
    )

    assert actual == (
        "GPU 0: thermal slowdown during 100% of the window (1155 MHz, 71 C, 399 W at its end)\n"
        "GPU 1: used by other processes too (pid 1)\n"
        "GPU 1: software power cap during 100% of the window (1155 MHz, 71 C, 399 W at its end)"
    )


def test_healthy_gpu():
    """Counters that stood still are neither faults nor notes."""
    assert gpu_faults([COLD], [COLD], WINDOW) == ((), ())


@pytest.mark.parametrize("reason", ["thermal slowdown", "power brake", "hardware slowdown"])
def test_slowed_gpu_is_a_fault(reason):
    """A clock held down by heat, power brake or hardware makes the run invalid, with the share of the window."""
    after = gpu(slowed_ns=COLD.slowed_ns | {reason: 3_000_000_000})

    assert ((f"GPU 0: {reason} during 30% of the window (1155 MHz, 71 C, 399 W at its end)",), ()) == gpu_faults(
        [COLD], [after], WINDOW
    )


def test_power_cap_is_a_note():
    """The software power cap is normal in training."""
    after = gpu(slowed_ns=COLD.slowed_ns | {"software power cap": 9_000_000_000})

    assert gpu_faults([COLD], [after], WINDOW) == (
        (),
        ("GPU 0: software power cap during 90% of the window (1155 MHz, 71 C, 399 W at its end)",),
    )


def test_a_blink_is_no_fault():
    """Less than a hundredth of the window cannot move a median by as much as the least tolerance."""
    after = gpu(slowed_ns=COLD.slowed_ns | {"thermal slowdown": 90_000_000})

    assert gpu_faults([COLD], [after], WINDOW) == ((), ())


def test_reasons_stand_in_for_counters():
    """Where a card does not count a reason, its bit at the window's end decides."""
    before, after = gpu(slowed_ns={}), gpu(slowed_ns={}, reasons=0x40 | 0x4, clock_mhz=None, celsius=None, watts=None)

    assert gpu_faults([before], [after], WINDOW) == (
        ("GPU 0: thermal slowdown at the window's end (no sensors)",),
        ("GPU 0: software power cap at the window's end (no sensors)",),
    )


def test_idle_and_application_clocks_are_nothing():
    """Idle, application clocks and sync boost say nothing against a run."""
    assert gpu_faults([gpu(slowed_ns={})], [gpu(slowed_ns={}, reasons=0x1 | 0x2 | 0x10)], WINDOW) == ((), ())


def test_new_ecc_errors_are_a_fault():
    """Uncorrected ECC errors count where they are new."""
    assert gpu_faults([COLD], [gpu(ecc_errors=5)], WINDOW) == (("GPU 0: 3 new uncorrected ECC errors",), ())


def test_card_without_ecc():
    """A card that does not count ECC errors has none."""
    assert gpu_faults([gpu(ecc_errors=None)], [gpu(ecc_errors=None)], WINDOW) == ((), ())


def test_stranger_on_the_gpu_is_a_fault():
    """A process of another session at either end of the window makes the run invalid."""
    assert gpu_faults([gpu(foreign=(7077,))], [gpu(foreign=(41, 7077))], WINDOW) == (
        ("GPU 0: used by other processes too (pid 41, 7077)",),
        (),
    )


UNSEEN = "none that still runs and can be seen here"


@pytest.mark.parametrize(
    ("foreign_cores", "expected"),
    [
        (0.0, ((), ())),
        (FOREIGN_CORES_LIMIT, ((), ())),
        (0.8, ((f"other processes kept 0.80 of a rank's cores busy (limit 0.05): {UNSEEN}",), ())),
        (None, ((), ("whether other processes disturbed the run cannot be told on this machine",))),
    ],
)
def test_cpu_faults(foreign_cores, expected):
    """Load by others above the limit makes a CPU run invalid; where it cannot be told, that is noted."""
    assert expected == cpu_faults(foreign_cores)


@pytest.fixture
def checkout(tmp_path):
    """A git checkout of one commit."""
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)  # noqa: S607
    return tmp_path


def test_revision_of_a_checkout(checkout, monkeypatch):
    """A clean checkout is its commit, also from a folder within and from within a git hook."""
    commit = (checkout / ".git/refs/heads").glob("*").__next__().read_text().strip()
    (checkout / "inner").mkdir()
    monkeypatch.setenv("GIT_DIR", "/nowhere")

    assert commit == revision(checkout) == revision(checkout / "inner")


def test_revision_of_a_dirty_checkout(checkout):
    """A changed tracked file makes it dirty, a new untracked one does not."""
    (checkout / "new").write_text("two")
    clean = revision(checkout)
    (checkout / "file").write_text("two")

    assert f"{clean}+dirty" == revision(checkout)


def test_revision_outside_a_checkout(tmp_path):
    """A folder that is in no checkout has no revision."""
    assert revision(tmp_path) is None
