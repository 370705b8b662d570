"""The manifests for Kubernetes: valid by the public schemas, safe by their shape, one command for all nodes."""

import copy
import json
import os
import re
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from repository import BARE

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "kubernetes"
PYTORCHJOB = json.loads((ROOT / "tests" / "schemas" / "pytorchjob.json").read_text())
VERSIONS = ("1.29", "1.37")
"""The oldest Kubernetes that the manifests are for, and the newest with a schema."""
BOTH = ["job.yaml", "pytorchjob.yaml"]
NODES, GPUS = 4, 8
INFINIBAND = re.compile(r"# (rdma/|add: )")
"""Lines of the manifests that a cluster with InfiniBand takes in."""


def documents(text):
    """What a manifest holds. YAML 1.2."""
    return list(YAML(typ="safe", pure=True).load_all(text))


def load(name):
    """One of our manifests, by kind."""
    return {document["kind"]: document for document in documents((FOLDER / name).read_text())}


def validate(document, version):
    """Refuse what the schemas of Kubernetes and of the operator refuse, and any field that they do not name."""
    if document["kind"] == "PyTorchJob":
        jsonschema.validate(document, PYTORCHJOB)
        # The Job is only there for its metadata and its pods, which are Kubernetes' own.
        for replicas in document["spec"]["pytorchReplicaSpecs"].values():
            pods = {"apiVersion": "v1", "kind": "PodTemplate", "template": replicas["template"]}
            kubernetes_validate.validate(pods | {"metadata": document["metadata"]}, version, strict=True)
    else:
        kubernetes_validate.validate(document, version, strict=True)


def pods(name):
    """What a manifest says of each kind of its pods."""
    found = load(name)
    if "Job" in found:
        return [found["Job"]["spec"]["template"]]
    if "PyTorchJob" in found:
        return [replicas["template"] for replicas in found["PyTorchJob"]["spec"]["pytorchReplicaSpecs"].values()]
    return [found["Pod"]]


def container(pod):
    """A pod's only container."""
    (only,) = pod["spec"]["containers"]
    return only


@pytest.fixture
def command(tmp_path):
    """What a pod of a manifest starts torchrun with, from its script run by the shell."""
    (tmp_path / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "torchrun").chmod(stat.S_IRWXU)

    def arguments(name, index=0):
        only = container(pods(name)[0])
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)}
        line = [*only["command"], *only["args"]]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()

    return arguments


def torchrun(arguments):
    """What torchrun itself reads in its arguments."""
    from torch.distributed.run import get_args_parser

    return get_args_parser().parse_args(arguments)


def suite(arguments):
    """Of torchrun's arguments, those of the suite."""
    return arguments[arguments.index("-m") + 1 :]


# Validity


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["storage.yaml", "files.yaml", *BOTH])
def test_schema(name, version):
    """The public schemas find nothing."""
    for document in documents((FOLDER / name).read_text()):
        validate(document, version)


@pytest.mark.parametrize("name", BOTH)
def test_schema_with_infiniband(name):
    """Nor do they with the lines taken in that InfiniBand needs."""
    text, taken = INFINIBAND.subn(r"\1", (FOLDER / name).read_text())
    *_, document = documents(text)

    validate(document, VERSIONS[-1])
    assert taken == 2
    assert "rdma/" in str(document)
    assert "IPC_LOCK" in str(document)


@pytest.mark.parametrize(
    ("name", "kind", "place", "value"),
    [
        ("storage.yaml", "PersistentVolumeClaim", "spec/accessMode", ["ReadWriteMany"]),
        ("storage.yaml", "PersistentVolumeClaim", "spec/accessModes", "ReadWriteMany"),
        ("job.yaml", "Service", "spec/publishNotReadyAddress", True),
        ("job.yaml", "Service", "spec/clusterIP", 0),
        ("job.yaml", "Job", "spec/backoffLimitPerIndexes", 0),
        ("job.yaml", "Job", "spec/completions", "4"),
        ("job.yaml", "Job", "spec/template/spec/automountServiceAccountTokens", False),
        ("job.yaml", "Job", "spec/template/spec/containers/0/resources/limit", {}),
        ("pytorchjob.yaml", "PyTorchJob", "spec/runPolicies", {}),
        ("pytorchjob.yaml", "PyTorchJob", "spec/runPolicy/cleanPodPolicy", "Never"),
        ("pytorchjob.yaml", "PyTorchJob", "spec/runPolicy/activeDeadlineSeconds", "4h"),
        ("pytorchjob.yaml", "PyTorchJob", "spec/pytorchReplicaSpecs/Master/replicas", 2),
        ("pytorchjob.yaml", "PyTorchJob", "spec/pytorchReplicaSpecs/Workers", {}),
        ("pytorchjob.yaml", "PyTorchJob", "spec/pytorchReplicaSpecs/Worker/template/spec/volume", []),
        ("pytorchjob.yaml", "PyTorchJob", "spec/pytorchReplicaSpecs/Worker/template/spec/containers/0/name", "other"),
        ("files.yaml", "Pod", "spec/containers/0/volumeMounts/0/mountpath", "/shared"),
    ],
)
def test_mistakes_are_found(name, kind, place, value):
    """A misspelt field, a value of the wrong type and what the operator would refuse do not pass."""
    document = copy.deepcopy(load(name)[kind])
    *folders, field = place.split("/")
    inner = document
    for folder in folders:
        inner = inner[int(folder) if folder.isdecimal() else folder]
    inner[field] = value

    with pytest.raises(jsonschema.ValidationError):
        validate(document, VERSIONS[-1])


# Safety


@pytest.mark.parametrize("name", ["files.yaml", *BOTH])
def test_least_privilege(name):
    """No pod has more rights than a process of an ordinary user, and none can talk to the cluster."""
    for pod in pods(name):
        spec = pod["spec"]

        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(spec)
        assert container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_job_restarts_nothing():
    """No pod is made twice, one that fails takes no other with it, and all end in time."""
    spec = load("job.yaml")["Job"]["spec"]

    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["backoffLimitPerIndex"] == 0
    assert not {"backoffLimit", "maxFailedIndexes", "podFailurePolicy"} & set(spec)
    assert 0 < spec["activeDeadlineSeconds"] <= 86400


def test_pytorchjob_restarts_nothing():
    """Nor does the operator; and a pod that outlives a failed job ends in time too."""
    spec = load("pytorchjob.yaml")["PyTorchJob"]["spec"]
    replicas = spec["pytorchReplicaSpecs"].values()

    assert {each["restartPolicy"] for each in replicas} == {"Never"}
    assert spec["runPolicy"]["cleanPodPolicy"] == "None"
    assert "backoffLimit" not in spec["runPolicy"]
    assert {each["template"]["spec"]["activeDeadlineSeconds"] for each in replicas} == {
        spec["runPolicy"]["activeDeadlineSeconds"]
    }


# What the pods are


@pytest.mark.parametrize("name", BOTH)
def test_one_pod_a_node(name):
    """No two pods of any session share a node, and each has the GPUs of a whole one."""
    for pod in pods(name):
        (rule,) = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]

        assert rule["topologyKey"] == "kubernetes.io/hostname"
        assert rule["labelSelector"] == {"matchLabels": pod["metadata"]["labels"]}
        assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == GPUS


@pytest.mark.parametrize("name", ["files.yaml", *BOTH])
def test_volumes(name):
    """Every mount is of a volume, and the shared one is the claim that all nodes can write to."""
    claim = load("storage.yaml")["PersistentVolumeClaim"]
    for pod in pods(name):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container(pod)["volumeMounts"]}

        assert mounts["/shared"]["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
        assert len(mounts) == len(volumes)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("name", BOTH)
def test_shared_memory(name):
    """What NCCL needs of it is memory, and more than a container has by itself."""
    for pod in pods(name):
        (shm,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "shm"]

        assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}


def test_both_run_the_same_pod():
    """The two manifests measure the same: their pods differ in how they meet, and in nothing else."""

    def same(pod):
        own = {"subdomain", "restartPolicy", "activeDeadlineSeconds", "containers"}
        spec = {key: value for key, value in pod["spec"].items() if key not in own}
        return spec, {key: value for key, value in container(pod).items() if key not in {"name", "args"}}

    master, worker = pods("pytorchjob.yaml")

    assert master == worker
    assert same(master) == same(pods("job.yaml")[0])


def test_image_fits():
    """The image has the user and the folder that the manifests name, and they name one image."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    every = [pod for name in ("files.yaml", *BOTH) for pod in pods(name)]

    assert {pod["spec"]["securityContext"]["runAsUser"] for pod in every} == {1000}
    assert "useradd --uid 1000 " in dockerfile
    assert {container(pod)["workingDir"] for name in BOTH for pod in pods(name)} == {"/opt/trainpace"}
    assert "WORKDIR /opt/trainpace" in dockerfile
    assert 'pip install --no-cache-dir -c constraints.txt -e ".[train]"' in dockerfile
    (image,) = {container(pod)["image"] for pod in every}
    assert image.removesuffix("COMMIT") in dockerfile


# What they run


@pytest.mark.parametrize("name", BOTH)
def test_torchrun_form(command, monkeypatch, name):
    """torchrun's own parser reads one process a node for all nodes, whatever an operator puts into the environment."""
    for key, value in (("NNODES", "9"), ("NPROC_PER_NODE", "auto"), ("RDZV_BACKEND", "static"), ("NODE_RANK", "3")):
        monkeypatch.setenv(f"PET_{key}", value)
    arguments = torchrun(command(name))

    assert (arguments.nnodes, arguments.nproc_per_node, arguments.rdzv_backend) == (str(NODES), "1", "c10d")
    assert arguments.rdzv_id
    assert arguments.max_restarts == 0
    assert (arguments.module, arguments.training_script) == (True, "pytest")
    assert arguments.training_script_args[:5] == ["perf", "-k", "llama2_7b", "--perf-launcher", "torchrun"]


def test_job_meets_at_pod_0(command):
    """As many pods as nodes, all at once; they meet at the first one's name, and that one knows that it is it."""
    found = load("job.yaml")
    job, service = found["Job"], found["Service"]["metadata"]["name"]
    spec = job["spec"]
    first, other = (torchrun(command("job.yaml", index)) for index in (0, 2))

    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", NODES, NODES)
    assert spec["template"]["spec"]["subdomain"] == service
    assert found["Service"]["spec"]["clusterIP"] == "None"
    assert found["Service"]["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert first.rdzv_endpoint == other.rdzv_endpoint == f"{job['metadata']['name']}-0.{service}:29400"
    assert first.rdzv_conf == "is_host=true,join_timeout=900,read_timeout=900"
    assert other.rdzv_conf == "is_host=false,join_timeout=900,read_timeout=900"


def test_pytorchjob_meets_at_the_master(command):
    """As many replicas as nodes; they meet at the name that the operator gives the master."""
    job = load("pytorchjob.yaml")["PyTorchJob"]
    replicas = {kind: each["replicas"] for kind, each in job["spec"]["pytorchReplicaSpecs"].items()}
    arguments = torchrun(command("pytorchjob.yaml"))

    assert replicas == {"Master": 1, "Worker": NODES - 1}
    assert arguments.rdzv_endpoint == f"{job['metadata']['name']}-master-0:29400"


def test_both_run_the_same_suite(command):
    """The suite's own options are the same in both, and on every node."""
    assert suite(command("job.yaml", 0)) == suite(command("job.yaml", 3)) == suite(command("pytorchjob.yaml"))


def test_results_are_shared(command):
    """What is kept lies in the shared folder; the rest of a pod goes with it, and cannot be written to."""
    arguments = suite(command("job.yaml"))
    paths = {option: value for option, value in pairwise(arguments) if value.startswith("/")}

    assert set(paths) == {"--perf-shared", "--perf-baselines", "--perf-runs", "--perf-report"}
    assert all(path.startswith("/shared/") for path in paths.values())
    for name in BOTH:
        for pod in pods(name):
            environment = {each["name"]: each["value"] for each in container(pod)["env"]}
            assert environment == {"HOME": "/tmp", "TRAINPACE_CACHE": "/shared/cache"}  # noqa: S108 - the pod's


def test_documented():
    """Every file of the example is named in its document, and the document in the README."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()

    assert [path.name for path in FOLDER.iterdir() if f"examples/kubernetes/{path.name}" not in text] == []
    assert "(docs/kubernetes.md)" in (ROOT / "README.md").read_text()


def test_options_exist(command, checkout):
    """Every option of ours in the command is one that pytest knows."""
    given = {word for word in suite(command("job.yaml")) if word.startswith("--perf-")}
    line = [sys.executable, "-m", "pytest", "--help", *BARE]
    told = subprocess.run(line, cwd=checkout, capture_output=True, text=True, check=True).stdout

    assert given <= set(re.findall(r"--perf-[a-z-]+", told))
