# On a machine with Python 3.11 or later and make; each sets up $(VENV) first, once.
#   make quickstart   the main job: fine-tunes a real network on real photos
#   make test         the tests, some 15 minutes on two cores
#   make test-all     those and the slow ones

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,\
    $(shell $(p) -c 'import sys; print("$(p)" * (sys.version_info >= (3, 11)))' 2>/dev/null)))
VENV ?= .venv
WORKDIR ?= runs/quickstart
WORKERS ?= 2
PYTEST_ARGS ?=

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
# Another copy of the package on this path would hide the one that is installed.
unexport PYTHONPATH PYTHONHOME

.PHONY: quickstart test test-all environment
.DELETE_ON_ERROR:
.NOTPARALLEL:

quickstart: $(VENV)/quickstart.stamp
	$(BIN)/subtune train --config=configs/quickstart.py --workdir=$(WORKDIR)

test: environment
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-all: environment
	$(BIN)/python -m pytest -n $(WORKERS) -m '' $(PYTEST_ARGS)

environment: $(VENV)/test.stamp  # what the tests, ruff and pyrefly need

$(VENV)/quickstart.stamp: EXTRAS = demo
$(VENV)/test.stamp: EXTRAS = demo,test
$(VENV)/%.stamp: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later; make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable '.[$(EXTRAS)]'
	@touch $@
