"""The agent on a node: what it tells of it, and that it goes when either end does."""

import json
import signal
import subprocess
import time

import psutil
import pytest

from repository import TOY
from trainpace.launch.agent import agent_command, interface_of, network, own_address, start_line
from trainpace.launch.host_client import Side, host_command


@pytest.fixture
def agent(tmp_path, started):
    """One, number 3, that speaks through pipes; `read` gives its next answer of a kind."""
    command = agent_command(shared=tmp_path, node=3, name="n4", suite="127.0.0.1")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(kind):
        for line in process.stdout:
            answer = json.loads(line)
            if answer["event"] == kind:
                return answer
        return None

    process.read = read
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_hello_says_what_the_node_is(agent, tmp_path):
    """Its number, name and hardware, and whether it sees the folder that all share."""
    hello = agent.read("hello")

    assert (hello["node"], hello["facts"]["name"]) == (3, "n4")
    assert hello["facts"]["cpu"]["kind"] == "cpu"
    assert hello["facts"]["shared_folder_bytes"] > 0


def test_a_folder_that_is_not_there(tmp_path, started):
    """A node that does not see the folder says so."""
    command = agent_command(shared=tmp_path / "elsewhere", node=0, name="n1", suite="127.0.0.1")
    done = subprocess.run(command, input=b"", stdout=subprocess.PIPE, check=True)

    assert json.loads(done.stdout.splitlines()[0])["facts"]["shared_folder_bytes"] is None


def start(agent):
    """Have it start a host; the host's process."""
    agent.stdin.write(start_line(host_command(Side(checkout=TOY), ["toy_trainer"], "cpu", many=True)))
    agent.stdin.flush()
    assert agent.read("ready")["software"]["python"]
    (host,) = psutil.Process(agent.pid).children()
    return host


def test_it_goes_with_its_requests(agent, started):
    """When its input ends it ends its host, and itself."""
    start(agent)
    agent.stdin.close()

    assert agent.wait(timeout=20) == 0
    assert started.left() == []


def test_a_host_that_ends_is_told(agent):
    """The host's death is told, with how it died, before the agent goes too."""
    start(agent).send_signal(signal.SIGKILL)

    assert agent.read("gone")["cause"].startswith("the run host ended (killed by SIGKILL")
    assert agent.wait(timeout=20) == 0


def test_a_host_goes_with_its_agent(agent, started):
    """However the agent dies."""
    start(agent)
    agent.kill()

    assert started.left() == []


def test_a_host_is_stopped_until_it_is_needed(agent, started):
    """A host that was paused stands still until it is told to go on, and goes with its requests in either state."""
    host = start(agent)
    states = []
    for request in ("pause", "resume", "pause"):
        agent.stdin.write(json.dumps({"op": request}).encode() + b"\n")
        agent.stdin.flush()
        if request == "pause":
            assert agent.read("paused")["left"] == []
        else:
            wait_until(lambda: host.status() == psutil.STATUS_SLEEPING)
        states.append(host.status())
    agent.stdin.close()

    assert states == [psutil.STATUS_STOPPED, psutil.STATUS_SLEEPING, psutil.STATUS_STOPPED]
    assert agent.wait(timeout=20) == 0
    assert started.left() == []


def wait_until(holds):
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], "ethernet"),
        ([("mlx5_0", "1: DOWN", "InfiniBand")], "ethernet"),
        ([("mlx5_0", "4: ACTIVE", "InfiniBand"), ("mlx5_1", "4: ACTIVE", "Ethernet")], "infiniband"),
        ([("mlx5_1", "4: ACTIVE", "Ethernet")], "roce"),
    ],
)
def test_network(tmp_path, ports, expected):
    """InfiniBand where a port of it is up; RoCE where the port's link is Ethernet."""
    for name, state, layer in ports:
        port = tmp_path / "infiniband" / name / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "link_layer").write_text(f"{layer}\n")

    assert expected == network(tmp_path)


def test_own_address_is_that_on_the_way():
    """To itself over the loopback, which is the interface of that address."""
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None
