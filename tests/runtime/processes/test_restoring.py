"""A process is as before when a function of ours returns or raises."""

import logging
import os
import random
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.config as compiler
import torch.distributed as dist
import transformers

from runtime.processes.ranks import Ranks, init_process_group
from runtime.processes.restoring import LeftOpen, of_random_states, restoring_process

ROOT = Path(__file__).resolve().parents[3]


def set_everything(number, *, quiet):
    """Values that differ for two numbers and for quiet or not, whatever ran before in this process."""
    torch.set_num_threads(number)
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)
    compiler.suppress_errors, compiler.cache_size_limit = quiet, number
    warnings.simplefilter("ignore" if quiet else "default")
    of_transformers = transformers.utils.logging
    (of_transformers.set_verbosity_error if quiet else of_transformers.set_verbosity_warning)()
    (of_transformers.disable_progress_bar if quiet else of_transformers.enable_progress_bar)()
    logging.getLogger("DeepSpeed").setLevel(logging.CRITICAL if quiet else logging.WARNING)


def change_everything():
    os.environ["MASTER_PORT"] = "1"
    os.environ["RESTORED_NEW"] = "1"
    os.environ.pop("RESTORED_OLD", None)
    set_everything(3, quiet=True)


@pytest.fixture(autouse=True)
def _as_it_was():
    earlier = torch.get_num_threads(), compiler.suppress_errors, compiler.cache_size_limit
    verbosity, level = transformers.utils.logging.get_verbosity(), logging.getLogger("DeepSpeed").level
    yield
    torch.set_num_threads(earlier[0])
    compiler.suppress_errors, compiler.cache_size_limit = earlier[1:]
    transformers.utils.logging.set_verbosity(verbosity)
    logging.getLogger("DeepSpeed").setLevel(level)


def seen():
    return (
        dict(os.environ),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        (compiler.suppress_errors, compiler.cache_size_limit),
        list(warnings.filters),
        transformers.utils.logging.get_verbosity(),
        transformers.utils.logging.is_progress_bar_enabled(),
        logging.getLogger("DeepSpeed").level,
    )


@pytest.mark.parametrize("failure", [None, ValueError("refused"), KeyboardInterrupt()], ids=repr)
def test_all_that_changes_is_put_back(monkeypatch, failure):
    monkeypatch.setenv("RESTORED_OLD", "kept")
    set_everything(2, quiet=False)
    before = seen()

    def work():
        with restoring_process("call", Ranks()):
            change_everything()
            assert sum(ours == theirs for ours, theirs in zip(seen(), before, strict=True)) == 0
            if failure is not None:
                raise failure

    if failure is None:
        work()
    else:
        with pytest.raises(type(failure)):
            work()
    assert seen() == before


@pytest.mark.parametrize("is_used", [False, True])
def test_devices_that_the_block_puts_to_use_begin_at_the_seed_of_before(monkeypatch, is_used):
    seeds = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    torch.manual_seed(11)
    put_back = of_random_states()
    torch.manual_seed(5)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: is_used)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    put_back()
    assert (torch.initial_seed(), seeds) == (11, [11] if is_used else [])


@pytest.mark.parametrize("fails", [False, True])
def test_a_group_of_one_rank_is_closed_and_can_be_opened_again(fails):
    def work():
        with restoring_process("call", Ranks()):
            init_process_group(Ranks(), torch.device("cpu"), always=True)
            assert dist.is_initialized()
            if fails:
                raise ValueError("refused")

    for _ in range(2):
        with pytest.raises(ValueError, match="refused") if fails else nullcontext():
            work()
        assert not dist.is_initialized()
        assert "RANK" not in os.environ


def test_a_group_that_failed_on_several_ranks_is_used_by_the_next_call_and_closed_with_it():
    # One rank of a world of one plays a rank of two: what matters is that nothing waits for the other.
    def fail():
        with restoring_process("call", Ranks(0, 0, 2, 2)):
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        fail()
    assert dist.is_initialized()
    assert LeftOpen.group is dist.group.WORLD
    with restoring_process("call", Ranks(0, 0, 2, 2)):
        assert dist.is_initialized()
    assert not dist.is_initialized()


def test_a_group_of_somebody_else_is_refused_and_left():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with (
            pytest.raises(ValueError, match=r"call call\(\) before init_process_group"),
            restoring_process("call", Ranks()),
        ):
            raise AssertionError("not reached")
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


def test_the_imports_of_the_block_change_no_variable_and_no_filter():
    code = (
        "import os, warnings\nfrom runtime.processes.ranks import Ranks\n"
        "from runtime.processes.restoring import restoring_process\n"
        "before = dict(os.environ), list(warnings.filters)\n"
        "with restoring_process('call', Ranks()):\n    import scipy.special\n"
        "assert (dict(os.environ), list(warnings.filters)) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WITHOUT_THE_COMPILER = """
import sys
from runtime.processes.restoring import of_torch, remember_compiler
import torch
outer = of_torch()
assert "torch._dynamo" not in sys.modules, "importing it takes seconds"
remember_compiler()
import torch._dynamo.config as compiler
usual = compiler.suppress_errors, compiler.cache_size_limit
compiler.suppress_errors, compiler.cache_size_limit = not usual[0], usual[1] + 1
inner = of_torch()
remember_compiler()
compiler.cache_size_limit = 7
inner()
assert (compiler.suppress_errors, compiler.cache_size_limit) == (not usual[0], usual[1] + 1)
outer()
assert (compiler.suppress_errors, compiler.cache_size_limit) == usual
"""


def test_the_compiler_is_not_imported_to_note_its_settings_and_they_are_put_back():
    subprocess.run([sys.executable, "-c", WITHOUT_THE_COMPILER], check=True, cwd=ROOT, timeout=120)
