# make run    sets up .venv and runs the main job on the embedded model and data (offline, CPU)
# make test   sets up .venv and runs the tests
# make tpu    compiles every train step for TPU pods, in an environment of its own (.venv-tpu)
# make docs   builds the documentation into build/site, which needs no network to be read
# make notebooks  runs experiments/notebooks and stores what they print and draw
# make parity compares every mode with plain PyTorch, in an environment of its own (.venv-parity)
# make benchmarks  times everything, with PyTorch beside it (.venv-parity); over an hour
# make versions  tests each Python here with the newest JAX it can have, and the lowest versions
# make constraints  writes constraints.txt anew: the newest version of every package, by Python
# make accelerator  measures on one GPU or TPU, with the Python that has its JAX; nine minutes, and
#             another call goes on
# make wheels fetches what a machine with JAX, flax, optax, orbax and transformers lacks for that
PYTHON ?= python3
WORKDIR ?= runs/embedded
BIN := .venv/bin

# XLA for CPUs asks for a step's temporary arrays anew in every step. In large pages (glibc 2.35 and
# later; others ignore it) the kernel hands them out with 1/38 of the page faults or less, and a step
# of full fine-tuning takes less processor time: x 0.85 (embedded), x 0.96 (ViT-B/32).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: run test lint types check docs notebooks setup parity benchmarks tpu accelerator wheels versions constraints

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

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.venv/docs: .venv/installed
	@$(call install,.[docs])
	@touch $@

notebooks: setup
	$(BIN)/python experiments/notebooks/execute.py

parity: .venv-parity/installed
	.venv-parity/bin/python experiments/parity/compare.py

MEASURE := .venv-parity/bin/python experiments/benchmarks/

benchmarks: .venv-parity/installed
	$(MEASURE)penalty.py
	$(MEASURE)cost.py
	$(MEASURE)cost.py --model ViT-B/32
	$(MEASURE)sweeps.py
	$(MEASURE)decoding.py
	$(MEASURE)scaling.py
	$(MEASURE)merge_memory.py --out experiments/results

# Of an environment of your own: which JAX fits an accelerator is for its owner to know.
accelerator:
	PYTHONPATH=. $(PYTHON) experiments/benchmarks/accelerator.py $(ACCELERATOR)

# All extras that are tested on CPUs; those of GPUs and TPUs bring what fits these.
constraints: setup
	$(BIN)/uv pip compile --quiet --system-certs --universal --python-version 3.11 --upgrade \
	  --extra experiments --extra data --extra tensorboard --extra docs --extra dev \
	  --no-annotate --no-header pyproject.toml --output-file constraints.txt

# For Linux on x86-64 and Python 3.12; the environment may set others.
WHEELS := absl-py array_record cloudpickle etils grain importlib_resources jaxtyping lazy_loader ml_collections \
  portpicker protobuf psutil PyYAML safetensors threadpoolctl typing_extensions wadler-lindig zipp
FOR ?= --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64
wheels: setup
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps $(FOR) \
	  --dest build/wheels $(WHEELS)

versions: setup
	$(BIN)/python experiments/versions.py

.venv-parity/installed: pyproject.toml
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check -e '.[experiments]' torch==2.13.0
	@touch $@

MODELS := ViT-B/32 ViT-B/16 ViT-L/14
COMPILE := .venv-tpu/bin/python experiments/scale/compile_tpu.py --models $(MODELS)

tpu: .venv-tpu/installed
	.venv-tpu/bin/python -m pytest tests/experiments/test_scale.py
	$(COMPILE) --topology v5e:2x2
	$(COMPILE) --topology v5e:16x16
	$(COMPILE) --topology v5p:8x8x8

.venv-tpu/installed: pyproject.toml
	$(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' libtpu==0.0.52
	@touch $@

setup: .venv/installed

# uv takes seconds where pip takes minutes; it does not read pip's settings, so pip may still find
# packages where uv does not, and says what is wrong if it does not either.
install = $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python -e '$(1)' 2> /dev/null || \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(1)'

.venv/installed: pyproject.toml
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(call install,.[dev])
	@touch $@
