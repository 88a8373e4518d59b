"""launch/slurm/ on a real SLURM: from submission to report, preemption and requeue, the array of a study's cells."""

from __future__ import annotations

import json
import random
import re
import shlex
import sys

import pretraining_runs as runs
import pytest

from tests.cluster.conftest import NAMES, OPTIONS, largest_difference
from tests.cluster.hosts import ROOT, network, until
from tests.cluster.slurm import slurm_cluster
from tests.cluster.test_launch_files import with_changes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
SECONDS = 400
NODES = "#SBATCH --nodes=2 --time=01:00:00"
PARTITION = "#SBATCH --partition=normal"
# Every rank stops itself before this update; resumed at the eleventh or later, a run does not come to so many.
PAUSE = {"FAULT_POINT": "update.before:15:pause"}


@pytest.fixture(scope="module")
def slurm(machine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with network(folder / "network", NAMES) as hosts, slurm_cluster(folder / "slurm", hosts) as cluster:
        yield cluster


@pytest.fixture
def project(tmp_path):
    """The folder that jobs are submitted from: the project and its virtual environment; their logs go here."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("launch", "ds_configs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def write_script(project, name, *lines):
    """A copy of a script in `launch/slurm/` whose lines marked CHANGE are these, and no others."""
    text = (ROOT / "launch" / "slurm" / name).read_text()
    (project / name).write_text(with_changes(text, lines))
    return name


def pretraining_script(project, name, shards):
    """The script, for a tiny run on two nodes into runs/mine."""
    options = runs.arguments(shards, project / "unused", OPTIONS)
    at = options.index("--output_dir")
    words = shlex.join(options[:at] + options[at + 2 :])
    return write_script(project, name, PARTITION, NODES, f"output_dir=runs/mine run=({words})")


def log(project, name):
    return (project / name).read_text(errors="replace") if (project / name).exists() else ""


def ranks(slurm, hosts, state=""):
    """Ranks of a pretraining job on the hosts whose state begins so: lines of ps."""
    lines = []
    for host in hosts:
        for line in host.run("ps", "-A", "-o", "stat,args", "--no-headers").splitlines():
            if "-u launch/pretrain.py" in line and "launcher" not in line and line.startswith(state):
                lines.append(line)
    return lines


def test_from_submission_to_report(slurm, shards, whole, project, note):
    """A pretraining job on two nodes; after it the study: a job that plans, an array of cells, the report's job."""
    task = write_task(project / "task", shards)
    pretraining = slurm.submit(pretraining_script(project, "pretrain_torchrun.sh", shards), folder=project)
    study = write_script(
        project,
        "gap.sh",
        PARTITION,
        f"study=(--series runs/mine/series.json --tasks texts=classification:{task} --output_dir runs/gap "
        "--learning_rates 1e-3 --num_train_epochs 1 --grid_extensions 0 --scratch_longer '' --max_seq_length 32 "
        "--draws 200 --contamination false)",
        "array=(--slurm_partition normal --slurm_workers 3 --slurm_gpus 0 --slurm_cpus 1 --slurm_memory_gb 4 "
        "--slurm_minutes 30)",
    )
    planning = slurm.submit(f"--dependency=afterok:{pretraining}", study, folder=project)
    slurm.wait(pretraining, "COMPLETED", "FAILED", seconds=SECONDS)
    printed = log(project, f"pretrain-{pretraining}.log")
    assert slurm.state(pretraining) == "COMPLETED", printed[-6000:]
    output = project / "runs" / "mine"
    assert {line["world_size"] for line in runs.journal(output)} == {2}
    difference = largest_difference(whole, output)
    slurm.wait(planning, "COMPLETED", "FAILED", seconds=SECONDS)
    printed = log(project, f"gap-{planning}.log")
    assert slurm.state(planning) == "COMPLETED", printed[-6000:]
    tasks = re.search(r"^submitted: (.+)$", printed, re.MULTILINE)[1].split(", ")
    report = int(re.search(r"Submitted batch job (\d+)", printed)[1])
    for job in (*tasks, report):
        slurm.wait(job, "COMPLETED", "FAILED", seconds=SECONDS)
        assert slurm.state(job) == "COMPLETED", job
    scores = [json.loads(line) for line in (project / "runs/gap/scores.jsonl").read_text().splitlines()]
    assert len(scores) == 3 * len({score["budget_tokens"] for score in scores}) >= 6
    assert "cell " not in log(project, f"report-{report}.log")  # the array has run them all
    assert (project / "runs" / "gap" / "report.html").exists()
    by_array = [path for path in (project / "runs/gap/slurm").glob("*_log.out") if "cell " in path.read_text()]
    assert len(by_array) > 1
    note(
        f"slurm, torchrun: job {pretraining} on 2 nodes, world size 2, largest difference of losses to one host "
        f"{difference:.1e}; study: job {planning}, array {', '.join(tasks)} with {len(scores)} cells in "
        f"{len(by_array)} tasks, report by job {report}"
    )


def test_a_preempted_job_saves_is_queued_again_and_goes_on(slurm, shards, whole, project, note):
    """A job of a higher priority takes the nodes while the run is in its fifteenth update."""
    script = pretraining_script(project, "pretrain_torchrun.sh", shards)
    job = slurm.submit(script, folder=project, variables=PAUSE)
    output = project / "runs" / "mine"
    until(lambda: len(ranks(slurm, slurm.hosts, "T")) == 2, "paused ranks", seconds=SECONDS)
    (project / "urgent.sh").write_text("#!/bin/bash\nhostname\n")
    urgent = slurm.submit(
        "--partition=urgent", "--nodes=3", "--exclusive", "--output=urgent-%j.log", "urgent.sh", folder=project
    )
    until(lambda: (output / "INTERRUPTED.json").exists(), "marker file", seconds=60)
    saved = json.loads((output / "INTERRUPTED.json").read_text())
    slurm.wait(urgent, "COMPLETED", seconds=180)
    assert saved["reason"] in ("SIGTERM", "the launcher is gone")
    finish(slurm, job, project, whole, output, note, f"torchrun: job {job} preempted by job {urgent}", saved)


def test_the_signal_before_the_time_limit_saves_and_queues_again(slurm, shards, whole, project, note):
    """SLURM sends SIGTERM to the script as --signal=B:TERM@300 has it, here by scancel; DeepSpeed's launcher."""
    script = pretraining_script(project, "pretrain_deepspeed.sh", shards)
    job = slurm.submit(script, folder=project, variables=PAUSE)
    output = project / "runs" / "mine"
    until(lambda: len(ranks(slurm, slurm.hosts, "T")) == 2, "paused ranks", seconds=SECONDS)
    slurm.run("scancel", "--signal=TERM", "--batch", str(job))
    until(
        lambda: log(project, f"pretrain-{job}.log").count("Killing subprocess") == 2,
        "signal to the launchers",
        seconds=60,
    )
    for host in slurm.hosts:
        if ranks(slurm, [host]):
            host.run("pkill", "-CONT", "-f", "launch/pretrain.py")
    until(lambda: (output / "INTERRUPTED.json").exists(), "marker file", seconds=60)
    saved = json.loads((output / "INTERRUPTED.json").read_text())
    assert saved["reason"] == "SIGTERM"
    finish(slurm, job, project, whole, output, note, f"deepspeed: job {job} signalled", saved)


def finish(slurm, job, project, whole, output, note, what, saved):
    """Wait for the requeued job's end, and compare its run with that of one host."""
    slurm.wait(job, "PENDING", "RUNNING", seconds=180)
    until(lambda: slurm.shown(job).get("Restarts") == "1", "requeue", seconds=180)
    # SLURM lets a requeued job wait for two minutes.
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    slurm.wait(job, "COMPLETED", "FAILED", seconds=SECONDS)
    printed = log(project, f"pretrain-{job}.log")
    assert slurm.state(job) == "COMPLETED", printed[-6000:]
    assert "interrupted and saved" in printed
    assert "resuming from" in printed
    assert not (output / "INTERRUPTED.json").exists()
    difference = largest_difference(whole, output)
    runs.same_series(whole, output)
    note(
        f"slurm, {what}: saved after update {saved['progress']['updates']}, requeued, {slurm.shown(job)['Restarts']} "
        f"restart, world size 2; largest difference of losses to one host {difference:.1e}"
    )


def write_task(folder, shards):
    """Texts in the corpus' words, labelled by their last word."""
    folder.mkdir()
    corpus = (shards.parent / "corpus.jsonl").read_text().splitlines()
    words = sorted({word for line in corpus for word in json.loads(line)["text"].split()})
    for split, number in (("train", 24), ("test", 10)):
        generator = random.Random(split)
        rows = []
        for i in range(number):
            texts = [*generator.choices(words, k=6), words[i % 2]]
            rows.append({"id": f"{split}-{i}", "text": " ".join(texts), "label": i % 2})
        (folder / f"{split}.json").write_text(json.dumps(rows))
    return folder
