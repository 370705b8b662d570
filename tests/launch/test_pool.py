"""What the hosts of a session share, and what each side has for itself."""

from pathlib import Path

import pytest

from trainpace.launch.host_client import Side, host_command
from trainpace.launch.launcher import Local
from trainpace.launch.pool import Pool

NAME = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture
def compiled_in(monkeypatch):
    """Where torch keeps what it compiles for each of some sides, and whether that is gone after the session."""
    monkeypatch.delenv(NAME, raising=False)

    def folders(*sides):
        with Pool(Local()) as pool:
            commands = [pool.of_session(host_command(side, ["training"], "cpu")) for side in sides]
            found = [Path(command.environment[NAME]) for command in commands if NAME in command.environment]
            assert all(folder.is_relative_to(pool.folder) for folder in found)
        return found

    return folders


BASE, HEAD = (Side(checkout=Path(f"/{name}"), apart=(Path(f"/{other}"),)) for name, other in (("b", "h"), ("h", "b")))


def test_what_one_side_compiled_no_other_loads(compiled_in):
    """Runs of one side share a folder of the session, and so does its self-test's slowed twin; sides do not."""
    base, again, head = compiled_in(BASE, Side(checkout=BASE.checkout, apart=BASE.apart, injected=0.1), HEAD)

    assert base == again != head


def test_a_folder_of_the_user(compiled_in, monkeypatch):
    """It is left as it is where nothing is compared."""
    monkeypatch.setenv(NAME, "/mine")

    assert compiled_in(Side()) == []
    assert len(set(compiled_in(BASE, HEAD))) == 2
