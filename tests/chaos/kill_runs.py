"""Kill real commands at random moments, rerun each until it is done, and compare it with an uninterrupted one.

    python tests/chaos/kill_runs.py --what pretraining,build,study,finetuning --kills 20

Every kill and every comparison is a line of the ledger. Started again, it continues where the ledger ends: the moment,
the command and the victim of kill N follow from the seed and N alone. A command is killed a few times, then left to
end. The line of a kill of pretraining says whether a checkpoint was being saved. Exit status 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    sys.path[1:1] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

import pretraining_runs as runs
from kill_jobs import ForkedJob, Job, LaunchedJob, close_servers
from kill_subjects import SUBJECTS, Subject, lines_of, write_inputs

KINDS = tuple(dict.fromkeys(subject.kind for subject in SUBJECTS))
LONGEST_RUN_SECONDS = 600
LONGEST_END_SECONDS = 60.0  # of what a kill leaves running
LEDGER = Path(__file__).with_name("ledger.jsonl")


class Chaos:
    """The kills of one kind of command, counted in the lines of the ledger."""

    def __init__(self, kind: str, folder: Path, ledger: Path, seed: int) -> None:
        self.kind, self.folder, self.ledger, self.seed = kind, folder / kind, ledger, seed
        self.subjects = [subject for subject in SUBJECTS if subject.kind == kind]
        self.lines = [line for line in lines_of(ledger) if line["kind"] == kind]

    @property
    def kills(self) -> int:
        return sum("victim" in line for line in self.lines)

    @property
    def lost(self) -> int:
        return sum(bool(line.get("differences")) or line.get("status", 0) != 0 for line in self.lines)

    def write(self, **line: Any) -> None:
        entry = {"kind": self.kind, "date": datetime.now(UTC).strftime("%Y-%m-%d"), **line}
        with self.ledger.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self.lines.append(entry)
        print(json.dumps(entry), flush=True)

    def inputs(self) -> Path:
        folder = self.folder / "inputs"
        if not (folder / "text.txt").exists():  # the file written last
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_inputs(folder)
        return folder

    def whole(self, subject: Subject) -> tuple[Path, float]:
        """The directory of the uninterrupted run, and the seconds of its work."""
        output = self.folder / subject.name.replace(" ", "-").replace(",", "") / "whole"
        record = output.with_name("seconds.json")
        if not record.exists():
            shutil.rmtree(output, ignore_errors=True)
            job = self.start(subject, output)
            began, latest = None, time.monotonic() + LONGEST_RUN_SECONDS
            while (status := job.poll()) is None and time.monotonic() < latest:
                began = began or (time.monotonic() if subject.working(output) else None)
                time.sleep(0.02)
            job.stop()
            if status != 0:
                raise RuntimeError(runs.log_of(output).read_text()[-3000:])
            record.write_text(json.dumps(time.monotonic() - (began or time.monotonic())))
        return output, float(json.loads(record.read_text()))

    def start(self, subject: Subject, output: Path) -> Job:
        output.parent.mkdir(parents=True, exist_ok=True)
        command = subject.command(self.inputs(), output)
        if subject.forked_ranks:
            return ForkedJob(command, runs.log_of(output), output.parent, subject.forked_ranks)
        return LaunchedJob(command, runs.log_of(output), output.parent, subject.variables)

    def run(self, kills: int) -> None:
        """Kill until `kills` are done, and leave every run that was killed finished and compared."""
        while True:
            number = sum("differences" in line for line in self.lines)
            subject = self.subjects[number % len(self.subjects)]
            here = 0
            for line in reversed(self.lines):
                if "differences" in line:
                    break
                here += 1
            if self.kills >= kills and not here:
                return
            whole, seconds = self.whole(subject)
            output = whole.with_name(f"run-{number}")
            if not here:
                shutil.rmtree(output, ignore_errors=True)
            if here < subject.kills_a_run and self.kills < kills and self.kill(subject, output, seconds):
                continue
            self.finish(subject, output, whole)

    def kill(self, subject: Subject, output: Path, seconds: float) -> bool:
        """Start the command and kill it; False when it ended before the moment of the kill."""
        dice = random.Random(f"{self.seed} {self.kind} {self.kills}")
        while_starting = dice.random() < 0.15
        share, victim = dice.random(), dice.choice(subject.victims)
        job = self.start(subject, output)
        before = subject.progress(output)
        try:
            began = time.monotonic()
            while not while_starting and job.poll() is None:
                if time.monotonic() > began + LONGEST_RUN_SECONDS:
                    raise TimeoutError(f"{output}: no progress within {LONGEST_RUN_SECONDS} s")
                # A resumed run has its journal from before: only lines after this point are new.
                if subject.working(output) and (not before or subject.progress(output) > before):
                    break
                time.sleep(0.02)
            deadline = time.monotonic() + share * (5.0 if while_starting else 0.7 * seconds)
            while job.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            if job.poll() is not None:
                return False
            after = time.monotonic() - began
            name = strike(job, victim)
            saving = {} if subject.saving is None else {"saving": subject.saving(output)}
            struck = time.monotonic()
            while job.members() and time.monotonic() < struck + LONGEST_END_SECONDS:
                time.sleep(0.05)
            left = len(job.members())
        finally:
            job.stop()
        self.write(
            run=subject.name,
            number=self.kills + 1,
            victim=name,
            after_seconds=round(after, 2),
            progress=subject.progress(output),
            ended_seconds=round(time.monotonic() - struck, 1),
            left_running=left,
            status=int(bool(left)),
            **saving,
        )
        return True

    def finish(self, subject: Subject, output: Path, whole: Path) -> None:
        job = self.start(subject, output)
        try:
            deadline = time.monotonic() + LONGEST_RUN_SECONDS
            while (status := job.poll()) is None and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            job.stop()
        differences = subject.compare(output, whole) if status == 0 else [f"exit status {status}"]
        self.write(run=subject.name, status=1 if status is None else status, differences=differences)
        if not differences:
            shutil.rmtree(output)


def strike(job: Job, victim: str) -> str:
    """kill -9 of all processes of a job, its launcher, a rank, or a worker; returns the victim."""
    members, by_rank = job.members(), job.ranks()
    chosen = {"all": members, "launcher": job.launcher()}.get(victim)
    if chosen is None:
        if victim.startswith("rank"):
            chosen = [by_rank[int(victim[-1])]] if int(victim[-1]) in by_rank else []
        else:
            chosen = [pid for pid in members if pid not in (*job.launcher(), *by_rank.values())][-1:]
    if not chosen:  # not started yet
        victim, chosen = "all", members
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return victim


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default=",".join(KINDS), help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--kills", type=int, default=20, help="of each, those of the ledger included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/chaos"), help="where the runs lie")
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    options = parser.parse_args(argv)
    kinds = options.what.split(",")
    if unknown := sorted(set(kinds) - set(KINDS)):
        parser.error(f"--what {','.join(unknown)}: choose from {', '.join(KINDS)}")
    lost = 0
    for kind in kinds:
        chaos = Chaos(kind, options.folder.resolve(), options.ledger, options.seed)
        chaos.run(options.kills)
        lost += chaos.lost
    close_servers()
    print(f"lost: {lost}")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
