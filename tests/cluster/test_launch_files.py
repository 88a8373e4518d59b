"""launch/slurm/, launch/kubernetes/ and the hostfile: three lines to change, sound shell, commands that parse."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from gap.study.options import GapOptions
from gap.study.until_options import PretrainCommandOptions
from pretraining.replaced_options import REPLACED_OPTIONS
from runtime.options.command_line import parse_options

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"#\s*CHANGE (\d):")
PRETRAINING = ("pretrain_torchrun.sh", "pretrain_deepspeed.sh")
SCRIPTS = sorted((ROOT / "launch" / "slurm").glob("*.sh"))
FILES = [
    *(path for path in SCRIPTS if path.name != "requeue.sh"),
    ROOT / "launch" / "hostfile.example",
    *sorted((ROOT / "launch" / "kubernetes").glob("*.yaml")),
]


def with_changes(text: str, lines: Sequence[str]) -> str:
    """The text of a launch file with its marked lines replaced; AssertionError unless there are as many."""
    marked = [line for line in text.splitlines() if MARK.search(line)]
    assert len(marked) == len(lines)
    for old, new in zip(marked, lines, strict=True):
        text = text.replace(old, new)
    return text


def array(text: str, name: str) -> list[str]:
    """The words of a bash array that a file assigns."""
    script = re.search(rf"\b{name}=\(.*?\)", text, re.DOTALL)
    assert script, name
    printed = subprocess.run(
        ["bash", "-c", f'{script[0]}; printf "%s\\0" "${{{name}[@]}}"'], capture_output=True, text=True, check=True
    )
    return printed.stdout.split("\0")[:-1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_three_lines_are_to_be_changed(path):
    assert [int(number) for number in MARK.findall(path.read_text())] == [1, 2, 3]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound_shell(path):
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_options_of_a_pretraining_script_parse(name):
    text = (ROOT / "launch" / "slurm" / name).read_text()
    parsed = parse_options(PretrainCommandOptions, array(text, "run"), replaced=REPLACED_OPTIONS.get)
    assert (parsed.shards, parsed.model, parsed.budget_tokens) == ("shards/mine", "modernbert-base", 1e10)


def test_the_options_of_the_study_parse():
    text = (ROOT / "launch" / "slurm" / "gap.sh").read_text()
    parsed = parse_options(GapOptions, [*array(text, "study"), *array(text, "array"), "--executor", "slurm"])
    assert (parsed.series, parsed.slurm_workers, parsed.executor) == ("runs/mine/series.json", 16, "slurm")


@pytest.mark.cluster  # it imports deepspeed
def test_the_hostfile_is_one_and_its_command_parses():
    from deepspeed.launcher.runner import _parse_hostfile

    text = (ROOT / "launch" / "hostfile.example").read_text()
    assert dict(_parse_hostfile(text.splitlines())) == {"node1": 8, "node2": 8}
    comments = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    command = re.search(r"^deepspeed (?:.*\\\n)*.*", comments, re.MULTILINE)[0].replace("\\\n", " ")
    words = shlex.split(command, comments=True)
    assert words[1:4] == ["--hostfile", "launch/hostfile.example", "launch/pretrain.py"]
    parsed = parse_options(PretrainCommandOptions, words[4:])
    assert (parsed.deepspeed, parsed.output_dir) == ("ds_configs/zero2.json", "runs/mine")


def test_the_job_that_plans_a_study_asks_for_a_gpu_as_its_array_does():
    """The precision is chosen where the cells are planned, and that job also runs what the array has left."""
    text = (ROOT / "launch" / "slurm" / "gap.sh").read_text()
    assert "--slurm_gpus 1" in text
    assert re.search(r"^#SBATCH .*--gpus-per-node=1\b", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("printed", "job"),
    [
        ("submitted: 12_0, 12_1", "12"),
        ("warning: slow\nsubmitted: 7", "7"),
        ("submitted: nothing, all cells are finished", ""),
    ],
)
def test_the_report_waits_for_the_array_whatever_its_size(printed, job):
    text = (ROOT / "launch" / "slurm" / "gap.sh").read_text()
    line = re.search(r"^job=.*$", text, re.MULTILINE)[0]
    script = f'submitted=$1; {line}; printf %s "$job"'
    assert subprocess.run(["bash", "-c", script, "bash", printed], capture_output=True, text=True).stdout == job


@pytest.mark.parametrize(
    ("output_dir", "marker"),
    [
        ("runs/mine", "runs/mine/INTERRUPTED.json"),
        ("/data/run/", "/data/run/INTERRUPTED.json"),
        ("s3://bucket/a/run", "runs/bucket/a/run/INTERRUPTED.json"),
    ],
)
def test_an_interrupted_run_is_queued_again_wherever_it_works(tmp_path, output_dir, marker):
    place = output_dir.replace("/data", str(tmp_path / "data"))
    file = tmp_path / marker.replace("/data", "data").lstrip("/")
    file.parent.mkdir(parents=True)
    script = f"""
        source {ROOT}/launch/slurm/requeue.sh
        SLURM_JOB_ID=5
        scontrol() {{ echo "requeued: $*"; false; }}
        scancel() {{ true; }}
        run_and_requeue {place} bash -c 'echo {{}} > {file}; exit 1'
    """
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, "requeued: requeue 5" in ended.stdout) == (1, True), ended.stderr


def test_the_image_has_the_project_where_kubernetes_looks_for_it():
    places = re.findall(r"^WORKDIR (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    job = (ROOT / "launch" / "kubernetes" / "pytorchjob.yaml").read_text()
    assert re.findall(r"workingDir: (\S+)", job) == places[:1]
