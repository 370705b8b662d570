"""Hosts of several nodes as one: spoken for by a process that answers as agents do."""

import json
import os
import sys

import pytest

from trainpace.errors import RunFailed
from trainpace.launch import host_client as module
from trainpace.launch.host_client import Hosts, NodeLost, Pipe

# Prints what it is told, then waits for its input's end.
SPEAKER = "import sys; print(sys.argv[1], flush=True); sys.stdin.read()"


def ready(node, **versions):
    return {"node": node, "event": "ready", "protocol": 1, "software": {"torch": "2.13.0", **versions}}


@pytest.fixture
def speaking(tmp_path, started):
    """Hosts on two nodes of which these answers come."""
    made = []

    def begin(*answers):
        text = "\n".join(map(json.dumps, answers))
        transport = Pipe([sys.executable, "-c", SPEAKER, text], os.environ, tmp_path / "log", nodes=("n1", "n2"))
        made.append(transport)
        return Hosts(transport)

    yield begin
    for transport in made:
        transport.kill()


def ended(hosts):
    """The exits of a run, waited for."""
    while (exits := hosts.exits(0.05)) is None:
        pass
    return exits


def test_ready_when_all_are(speaking):
    """The software is what all have."""
    hosts = speaking(ready(0), ready(1))
    hosts.wait_ready()

    assert hosts.software == {"torch": "2.13.0"}


def test_what_a_host_says_is_made_harmless(speaking):
    """A host has its side's code in it, and what it says of its versions is printed and written."""
    told = speaking(*[ready(node, flash_attn="\x1b[2J2.0\ud800") for node in (0, 1)])
    told.wait_ready()

    assert told.software["flash_attn"] == "2.0\ufffd"


def test_other_versions_on_a_node_are_refused(speaking):
    """A node with another version is named, with both."""
    hosts = speaking(ready(0), ready(1, torch="2.12.1"))

    with pytest.raises(RunFailed, match=r"same versions on all nodes, n1 and n2 have torch 2\.13\.0 and 2\.12\.1"):
        hosts.wait_ready()


def test_import_fails_on_a_node(speaking):
    """A host that cannot import the trainer says where, and why."""
    hosts = speaking(ready(0), {"node": 1, "event": "refused", "cause": "ImportError: no ours", "detail": ""})

    with pytest.raises(RunFailed, match="the trainer could not be imported on n2: ImportError: no ours"):
        hosts.wait_ready()


def test_a_run_ends_when_it_has_on_all_nodes(speaking):
    """Exits come in the order in which ranks ended, once the last node's have."""
    ends = [
        {"node": 1, "event": "ended", "exits": [{"rank": 1, "code": 0, "killed": False}]},
        {"node": 0, "event": "ended", "exits": [{"rank": 0, "code": 0, "killed": False}]},
    ]
    hosts = speaking(*ends)
    hosts.start_run(id="one")

    assert [each.rank for each in ended(hosts)] == [1, 0]


def test_a_silent_node_is_lost(speaking, monkeypatch):
    """A node that says nothing any more is lost, by name; the other is not."""
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.3)
    hosts = speaking({"node": 0, "event": "beat"})
    hosts.start_run(id="one")

    with pytest.raises(NodeLost, match=r"node n[12] is lost: no sign of life"):
        ended(hosts)
