# make demo | docs | test | test-slow | test-long | test-cluster | lint | format | dist | clean
# make coverage: what coverage.md, planning.md and forecasting.md of benchmarks show (hours)
# make bench | bench-coverage | bench-planning | bench-forecasting | bench-optimizers | bench-gpu | bench-growth  (benchmarks/README.md)
# All install first; repeated calls are instant.
#
# PYTHON       the interpreter the environment is made of, 3.11 or newer
# VENV         where the environment lies
# EXTRAS       optional parts of pyproject.toml to install, such as test,lint,jieba,wandb
# TORCH_INDEX  one more package index, for a torch built for your hardware: the address that pytorch.org names
# TORCH        "system" takes the torch that PYTHON already has (containers with a GPU) instead of the pinned one

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test,lint,docs,bench,jieba,html,wikitext,language,wandb,mlflow,slurm,watch,notebook,s3
TORCH_INDEX ?=
TORCH ?= pinned

# Small sizes, planned for under 30 minutes on 2 CPU cores in all.
BENCHMARKS := throughput stream resuming build_shards finetuning_speed saving attention scaling bootstrap interval_theory
ARGUMENTS_throughput := --rounds 2
ARGUMENTS_resuming := --num_blocks 2048 --skipped 100 --rounds 3
ARGUMENTS_attention := --lengths 128,512 --repetitions 3

BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
TORCH_PIN := $(shell grep '^torch==' constraints.txt)
# Packages without wheels (seqeval) are built in isolation; pip before 23.1, as of Debian 12, does not by itself.
export PIP_USE_PEP517 := 1
# ninja, which compiles DeepSpeed's optimizers, is found through PATH.
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install demo docs test test-slow test-long test-cluster lint format dist clean bench coverage bench-coverage bench-planning bench-forecasting bench-optimizers bench-gpu bench-growth $(addprefix bench-,$(BENCHMARKS))

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.12"; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || \
		echo "No C++ compiler (c++, g++): DeepSpeed will use torch's optimizer instead of its compiled one." \
		"For the compiled one install a compiler, such as g++."
	@echo "Installing into $(VENV) (a few minutes the first time)"
ifeq ($(TORCH),system)
	@test -x $(BIN)/python || $(PYTHON) -m venv --system-site-packages $(VENV)
	@$(BIN)/python -c 'from importlib.metadata import version; version("torch")' || { echo "$(PYTHON) has no torch: leave TORCH=system out"; exit 1; }
else
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch goes first, as a pin of its own, so that no other package can draw in another build of it.
	@$(PIP) -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH_PIN)
endif
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	@$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> $(VENV)/constraints.txt
	@$(PIP) -c $(VENV)/constraints.txt --editable '.[$(EXTRAS)]'
	@# Of a torch that lies outside the environment, torchrun would start the ranks with the Python outside.
	@test -x $(BIN)/torchrun || { printf '#!/bin/sh\nexec "%s/python" -m torch.distributed.run "$$@"\n' '$(BIN)' > $(BIN)/torchrun; chmod +x $(BIN)/torchrun; }
	@touch $@

demo: install
	$(BIN)/python launch/gap.py

# Strict: a warning is an error. Nothing is fetched, and the environment is made anew, since pages come from sources.
docs: install
	$(BIN)/python -m sphinx -c docs/site --fail-on-warning --keep-going --fresh-env --quiet . build/docs
	@echo "build/docs/index.html"

test: install
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

test-slow: install
	@# Launchers on a busy machine take from 9 to 90 seconds for the same job: one more try, then it is a failure.
	@# Two at once: many tests wait for a process to start or for a limit to pass. Five failures end it.
	$(BIN)/python -m pytest -m 'slow and not long and not gpu' --numprocesses 2 --dist loadfile \
		--reruns 1 --maxfail 5 --durations 10

test-long: install
	@# Outside CI: what it found and when stands in docs/reliability.md.
	$(BIN)/python -m pytest -m 'long and not gpu' --numprocesses 2 --dist loadfile --timeout 3600 --durations 10

# As root, outside CI: docs/reliability.md has the result. It names the Debian packages that are missing.
test-cluster: $(STAMP)-kubernetes
	$(BIN)/python -m pytest tests/cluster -m cluster --durations 10

$(STAMP)-kubernetes: $(STAMP)
	@$(PIP) -c $(VENV)/constraints.txt --editable '.[kubernetes]'
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: install
	@# With the setuptools of .venv; the wheel is built from the source distribution.
	rm -rf dist
	$(BIN)/python -c 'from setuptools.build_meta import build_sdist; print(build_sdist("dist"))'
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz

# Two at once would measure each other.
.NOTPARALLEL:

bench: $(addprefix bench-,$(BENCHMARKS))

$(addprefix bench-,$(BENCHMARKS)): bench-%: install
	@echo "== benchmarks/$*.py $(ARGUMENTS_$*)"
	@$(BIN)/python benchmarks/$*.py $(ARGUMENTS_$*)

bench-coverage bench-planning bench-forecasting bench-optimizers bench-gpu bench-growth: bench-%: install
	$(BIN)/python benchmarks/$*.py

coverage: install
	$(BIN)/python benchmarks/coverage.py --simulations 1000
	$(BIN)/python benchmarks/interval_theory.py
	$(BIN)/python benchmarks/planning.py --simulations 400
	$(BIN)/python benchmarks/forecasting.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
