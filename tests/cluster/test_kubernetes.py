"""launch/kubernetes/: the PyTorchJob against its published schema, and its command as the operator starts it."""

from __future__ import annotations

import re

import pretraining_runs as runs
import pytest
import yaml

from gap.study.until_options import PretrainCommandOptions
from runtime.options.command_line import parse_options
from tests.cluster.conftest import OPTIONS, largest_difference
from tests.cluster.hosts import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
FOLDER = ROOT / "launch" / "kubernetes"
SCALARS = {"str": str, "int": int, "bool": bool}


def built(kind, value, place):
    """The value as an object of the clients' generated classes, which are the published schema.

    ValueError for an unknown or missing field, or a value of another type. `kind`: a class' name, as "V1Container",
    "list[V1Container]", "dict(str, str)" or "int".
    """
    import kubernetes.client
    from kubeflow.training import models

    if inner := re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", kind):
        expected, entries = (list, enumerate) if inner[1] else (dict, dict.items)
        if not isinstance(value, expected):
            raise ValueError(f"{place}: {value!r} is not {kind}")
        made = {key: built(inner[1] or inner[2], entry, f"{place}.{key}") for key, entry in entries(value)}
        return list(made.values()) if inner[1] else made
    if kind in SCALARS:
        if type(value) is not SCALARS[kind]:
            raise ValueError(f"{place}: {value!r} is not {kind}")
        return value
    if (cls := getattr(models, kind, None) or getattr(kubernetes.client, kind, None)) is None:
        assert kind in ("object", "datetime"), kind
        return value
    fields = {json_name: name for name, json_name in cls.attribute_map.items()}
    if unknown := sorted(set(value) - set(fields)):
        raise ValueError(f"{place}: no field {unknown[0]} in {kind}")
    types = cls.openapi_types
    parts = {fields[key]: built(types[fields[key]], part, f"{place}.{key}") for key, part in value.items()}
    return cls(**parts)


@pytest.fixture
def job():
    return yaml.safe_load((FOLDER / "pytorchjob.yaml").read_text())


def container(job, replica="Master"):
    return job["spec"]["pytorchReplicaSpecs"][replica]["template"]["spec"]["containers"][0]


def test_the_pytorchjob_is_one(job):
    made = built("KubeflowOrgV1PyTorchJob", job, "job")
    assert (made.api_version, made.kind) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = made.spec.pytorch_replica_specs
    assert {name: replicas[name].replicas for name in replicas} == {"Master": 1, "Worker": 1}
    # The operator finds its container by this name.
    assert all(replicas[name].template.spec.containers[0].name == "pytorch" for name in replicas)
    assert container(job, "Worker") == container(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda job: job["spec"].update(nprocPerNode=8), "nprocPerNode: 8 is not str"),
        (lambda job: job["spec"].update(replicas=2), "no field replicas in KubeflowOrgV1PyTorchJobSpec"),
        (lambda job: job["spec"].pop("pytorchReplicaSpecs"), "pytorch_replica_specs"),
        (lambda job: container(job).update(arguments=["a"]), "no field arguments in V1Container"),
        (lambda job: container(job).pop("name"), "name"),
    ],
)
def test_what_the_schema_does_not_know_is_found(job, change, message):
    change(job)
    with pytest.raises(ValueError, match=message):
        built("KubeflowOrgV1PyTorchJob", job, "job")


def test_the_options_parse(job):
    parsed = parse_options(PretrainCommandOptions, container(job)["args"])
    assert (parsed.shards, parsed.output_dir) == ("/data/shards", "/data/run")


def test_the_command_runs_on_two_hosts_as_the_operator_starts_it(job, hosts, shards, whole, tmp_path, note):
    """The variables that the operator sets in the pods of a PyTorchJob with a master and a worker."""
    output = tmp_path / "run"
    command = [*container(job)["command"], *runs.arguments(shards, output, OPTIONS)]
    started = []
    for rank, name in enumerate(("node1", "node2")):
        variables = {
            "MASTER_ADDR": "node1", "MASTER_PORT": "23456", "WORLD_SIZE": "2", "RANK": str(rank),
            "PET_MASTER_ADDR": "node1", "PET_MASTER_PORT": "23456", "PET_NNODES": "2", "PET_NODE_RANK": str(rank),
            "PET_NPROC_PER_NODE": "1",
        }  # fmt: skip
        started.append(hosts[name].start(command, tmp_path / f"{name}.log", variables=variables))
    for pod in started:
        assert pod.wait(300) == 0, pod.printed()
    assert {line["world_size"] for line in runs.journal(output)} == {2}
    difference = largest_difference(whole, output)
    note(
        f"torchrun as in a PyTorchJob: node1, node2; world size 2; largest difference of losses to one host "
        f"{difference:.1e}"
    )
