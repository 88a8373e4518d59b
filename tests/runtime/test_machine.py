"""How many cores a process takes for itself."""

import pytest

from runtime.machine import usable_cores


@pytest.mark.parametrize(("given", "cores"), [(None, 8), ("3", 3), ("16", 8), ("", 8), ("0", 8), ("two", 8)])
def test_a_slurm_task_takes_the_cores_it_was_given_also_where_the_cluster_binds_none(monkeypatch, given, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if given is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert usable_cores() == cores


def test_a_system_that_does_not_tell_the_cores_of_a_process_has_all_of_them(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert usable_cores() == 6
