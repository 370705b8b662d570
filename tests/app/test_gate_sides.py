"""What one side does to the other, to its files or to the judge is found: the toy's head, slower than its base."""

import shutil
import subprocess

import pytest

OPTIONS = ("-k", "8k", "--perf-warmup=1", "--perf-steps=6", "--perf-detect=0.2")
# Stops the base's ranks for half of the time.
STOPS_THE_BASE = """
import os, signal, sys, time
from pathlib import Path
def ranks():
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                words = (each / "cmdline").read_bytes().decode().split("\\0")
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if words[-2:-1] and f'"checkout": "{sys.argv[1]}"' in words[-2]:
                found.append((int(each.name), parent))
    hosts = {pid for pid, _ in found}
    return [pid for pid, parent in found if parent in hosts]
while True:
    pids = ranks()
    for how in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            try:
                os.kill(pid, how)
            except OSError:
                pass
        time.sleep(0.01)
"""

# Has the base's run host, and so its ranks, run on one core behind everybody else.
SLOWS_THE_BASE = """
import os
from pathlib import Path
plain = Toy.forward_backward
def forward(self, batch):
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and '"checkout": "{base}"' in (each / "cmdline").read_text():
                os.setpriority(os.PRIO_PROCESS, int(each.name), 19)
        except OSError:
            continue
    return plain(self, batch)
Toy.forward_backward = forward
"""


def git(folder, *arguments):
    """Run git as somebody."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True)  # noqa: S607 - the git at hand


# Tells which modules were imported after the first host had been started.
TELLS_IMPORTS = """
import atexit, sys
from pathlib import Path
from trainpace.launch.host_client import Pipe
before, plain = set(), Pipe.__init__
def start(self, *arguments, **options):
    before.update(sys.modules if not before else ())
    plain(self, *arguments, **options)
def tell():
    new = [each for each in sys.modules if each not in before and each.partition(".")[0] not in sys.stdlib_module_names]
    Path("imported.txt").write_text(" ".join(each for each in new if getattr(sys.modules[each], "__file__", None)))
Pipe.__init__ = start
atexit.register(tell)
"""


@pytest.fixture
def compare(repository, tmp_path, started):
    """Runs the base with a head whose steps take twice as long and that executes `attack` when it is imported."""

    # Longer than what else runs on the machine takes now and then.
    trainer = repository.path / "training.py"
    trainer.write_text(trainer.read_text().replace('"seconds": 0.005', '"seconds": 0.02'))

    def run(attack="", *options, slower=True, build=None, forked=True, **environment):
        head = repository.copy(tmp_path / "head")
        if build:
            (head.path / "build.sh").write_text(build)
        text = trainer.read_text().replace('"seconds": 0.02', '"seconds": 0.04' if slower else '"seconds": 0.02')
        (head.path / "training.py").write_text(text + attack)
        done = repository.suite(*OPTIONS, "--perf-head=../head", *options, environment=environment, forked=forked)
        assert started.left() == []
        return done

    return run


def child(program, *arguments):
    """Starts a program that has left its session, and whose parent and environment are gone."""
    words = ["-c", program, *arguments]
    return (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execve(sys.executable, [sys.executable, *{words!r}], {{}})\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )


def test_sigstop_base(compare, repository):
    """What head's import starts, and would stop the base's ranks, makes its runs invalid, and is gone in the end."""
    done = compare(child(STOPS_THE_BASE, str(repository.path)))

    assert done.code == 7
    assert "expected nothing to run when its ranks had ended, got process" in done.text


def test_nice_affinity(compare, repository):
    """Head's ranks give the base's host another priority: the base is not measured like that, and both are said."""
    done = compare(SLOWS_THE_BASE.replace("{base}", str(repository.path)))

    assert done.code == 7
    assert "expected nice 0" in done.text
    assert "got nice 19" in done.text


def test_a_base_that_is_changed(compare, repository):
    """A head that writes into the base's checkout has measured nothing, and what it wrote is named."""
    done = compare(f"open({str(repository.path / 'training.py')!r}, 'a').write('# slower')\n", slower=False)

    assert done.code == 7
    assert f"expected {repository.path} as it was before anything of head ran" in done.text
    assert "got changes to training.py" in done.text


def test_build_base(compare, repository):
    """A build of head's that writes into what was built of the base leaves nothing to judge: no run is begun.

    Builds find no file of a workflow either.
    """
    (repository.path / "build.sh").write_text('test -z "$GITHUB_ENV"')
    edit = f"for each in ../../trainpace-build-*/{repository.path.name}/training.py; do echo '# slower' >> $each; done"
    done = compare("", "--perf-build=sh build.sh", "--perf-runs=runs", slower=False, build=edit, GITHUB_ENV="x")

    assert done.code == 7
    assert "got changes to training.py" in done.text
    assert not (repository.path / "runs").exists()


def test_a_dirty_base_is_refused(compare, repository):
    """A base that is not its commit is no base; the command that is shown puts the change aside."""
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "base"]):
        git(repository.path, *arguments)
    (repository.path / "training.py").open("a").write("# slower\n")
    done = compare()

    assert done.code == 4
    assert f"expected the base {repository.path} as its commit has it, got changes to training.py" in done.text
    assert f"`git -C {repository.path} stash`" in done.text


def test_nothing_of_the_judge_is_imported_after_head_ran(compare, repository):
    """A session that finds a regression, and writes every report, has all its modules before anything of head runs."""
    (repository.path / "conftest.py").write_text(TELLS_IMPORTS)
    page = repository.path / "page.md"
    done = compare(
        "",
        *("--perf-report=report", "--junitxml=junit.xml", "--benchmark-json=benchmark.json", "--perf-runs=runs"),
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(page),
        forked=False,  # from what has imported everything
    )

    assert done.code == 1
    assert page.exists()
    assert (repository.path / "imported.txt").read_text() == ""


def test_overwrite2(compare, checkout, tmp_path):
    """A head that writes over the suite's own modules is not judged by what it wrote, and has measured nothing."""
    shutil.copytree(checkout / "perf" / "trainpace", tmp_path / "lib" / "trainpace")
    attack = (
        "from pathlib import Path\n"
        f"for file in Path({str(tmp_path / 'lib')!r}).rglob('*.py'):\n"
        "    if file.parent.name != 'rank':\n"
        "        file.write_text('import os; os._exit(0)')\n"
    )
    done = compare(attack, "--perf-report=report", PYTHONPATH=str(tmp_path / "lib"))

    assert done.code == 7
    assert f"expected {tmp_path / 'lib' / 'trainpace'} as it was before anything of head ran" in done.text


def test_github_files(compare, repository, tmp_path):
    """A rank finds no name of a file that speaks to the workflow, and no secret."""
    names = ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY", "MY_SECRET_TOKEN", "HF_TOKEN")
    attack = f"raise RuntimeError([name for name in {names!r} if name in os.environ])\n"
    done = compare(attack, **{name: str(tmp_path / name) for name in names})

    assert done.code == 7
    assert "RuntimeError: []" in done.text
    assert ", GITHUB_ENV, GITHUB_OUTPUT, GITHUB_PATH, " in done.text
    assert not (tmp_path / "GITHUB_ENV").exists()


def test_slow_setup(compare):
    """Time that is up before anything is known is no verdict where one is required."""
    attack = "\nToy.plain = Toy.setup\nToy.setup = lambda self, context: (time.sleep(1.5), Toy.plain(self, context))\n"
    done = compare(attack, "--perf-max-minutes=0.03", "--perf-require-verdict")

    assert done.code == 6


@pytest.mark.slow
def test_what_a_build_leaves_running(compare, repository, tmp_path):
    """A build's daemon is gone before anything is measured."""
    (repository.path / "build.sh").write_text("true")
    hidden = f"env -i setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 600' > /dev/null 2>&1 &"
    look = (
        f"\nwith open({str(tmp_path / 'pid')!r}) as pid, open({str(tmp_path / 'seen')!r}, 'w') as seen:\n"
        "    seen.write(str(os.path.exists('/proc/' + pid.read().strip())))\n"
    )
    compare(look, "--perf-build=sh build.sh", "--perf-max-pairs=2", slower=False, build=f"{hidden}\nsleep 0.5\n")

    assert (tmp_path / "seen").read_text() == "False"


@pytest.mark.slow
def test_programs_that_git_is_told_to_start(compare, repository, tmp_path):
    """The suite asks git about a head that can write git's configuration: no program of head's is started by it."""
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "base"]):
        git(repository.path, *arguments)
    told = f"[core]\\n fsmonitor = env > {tmp_path / 'seen'}; false\\n"
    compare(f"\nopen('.git/config', 'a').write('{told}')\n", "--perf-max-pairs=2", slower=False)

    assert "fsmonitor" in (tmp_path / "head" / ".git" / "config").read_text()
    assert not (tmp_path / "seen").exists()
