"""What a result depends on: every change that would be imported is seen, and nothing is imported to see it."""

import json
import subprocess
import sys
import time

import pytest

from trainpace.cost.inputs import unchanged

PROGRAM = """
import sys
from trainpace.cost.inputs import Recorder

recorder = Recorder(float(sys.argv[1]))
import trainer
sys.stdout.write(recorder.inputs() or "")
"""
TREE = {
    "tree/trainer.py": "import json, ours.model, installed\njson.load(open(__file__[:-10] + 'set.json'))",
    "tree/ours/__init__.py": "",
    "tree/ours/model.py": "from . import layers\ntry:\n    from . import fast\nexcept ImportError:\n    pass",
    "tree/ours/layers.py": "try:\n    import kernels_nobody_has\nexcept ImportError:\n    pass",
    "tree/set.json": "{}",
    "tree/unused.py": "",
    "site-packages/installed/__init__.py": "from installed import part",
    "site-packages/installed/part.py": "",
    "first/readme": "",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A user's tree, a folder that is searched before it, an installed package; and what their import depends on."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    time.sleep(0.1)  # what is written as the process begins is not trusted
    return folder, record(folder)


def record(folder, began=None):
    """Run the program; what it notes."""
    path = ":".join([*sys.path[:1], *(str(folder / name) for name in ("first", "tree", "site-packages")), *sys.path])
    command = [sys.executable, "-c", PROGRAM, repr(began or time.time())]
    done = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tree/trainer.py", f"{TREE['tree/trainer.py']}\n"),
        ("tree/ours/layers.py", f"{TREE['tree/ours/layers.py']}\n"),
        ("tree/ours/__init__.py", "0"),
        ("tree/set.json", "[]"),
        ("site-packages/installed/part.py", "0"),
        ("tree/ours/layers/__init__.py", ""),  # a package comes before a module of its name
        ("tree/ours/fast.py", ""),
        ("tree/kernels_nobody_has.py", ""),
        ("first/ours/__init__.py", ""),
        ("first/installed.py", ""),
        ("first/json.py", ""),
        ("first/sitecustomize.py", ""),
        ("tree/ours/model.py", None),
    ],
)
def test_a_change_of_what_is_imported_is_seen(tree, name, text):
    """An edit, a file that comes first, one that was missing, one that is gone; what is put back is as before."""
    folder, noted = tree
    path, before = folder / name, TREE.get(name)
    made = [each for each in (path.parent,) if not each.exists()]

    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    after = unchanged(noted)
    if before is None:
        path.unlink()
        _ = [each.rmdir() for each in made]
    else:
        path.write_text(before)

    assert not after
    assert unchanged(noted)


def test_what_is_not_imported_is_no_input(tree):
    """A file that nobody imports may change, and one may be installed again as it was."""
    folder, noted = tree
    (folder / "tree" / "unused.py").write_text("1")
    (folder / "tree" / "new.py").write_text("1")
    (folder / "site-packages" / "installed" / "part.py").touch()

    assert unchanged(noted)
    assert not [name for name in json.loads(noted)["own"] if "unused" in name]


def test_a_file_that_changed_meanwhile_is_not_trusted(tree):
    """The process may have read what stood there before: it says nothing."""
    folder, _ = tree
    began = time.time()
    time.sleep(0.1)
    (folder / "tree" / "trainer.py").write_text(TREE["tree/trainer.py"])

    assert record(folder, began) == ""
