# make run    sets up .venv and runs the main job on the embedded model and data (offline, CPU)
# make test   sets up .venv and runs the tests
# make parity compares every mode with plain PyTorch, in an environment of its own (.venv-parity)
PYTHON ?= python3
WORKDIR ?= runs/embedded
BIN := .venv/bin

.PHONY: run test lint types check setup parity

run: setup
	$(BIN)/orthoreg run --config configs/embedded.py --workdir $(WORKDIR)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

check: test lint types

parity: .venv-parity/installed
	.venv-parity/bin/python experiments/parity/compare.py

.venv-parity/installed: pyproject.toml
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check -e . torch==2.13.0
	@touch $@

setup: .venv/installed

# uv where it is present: seconds instead of a minute.
.venv/installed: pyproject.toml
	@if command -v uv > /dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
	  uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@
