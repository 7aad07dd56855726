# The first of these that is Python 3.11 to 3.13 and can make environments; `make PYTHON=/path/to/python` names another.
SUITABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c '$(SUITABLE)' 2>/dev/null && { echo $$python; break; }; done)
BIN := .venv/bin
export PYTHONUTF8 := 1
# Where the environment forbids bytecode, importing Unsloth takes three times as long.
export PYTHONDONTWRITEBYTECODE :=
# One for the tests that need Unsloth, three for the others, which often wait; torch computes in one thread each.
WORKERS := -n 4 --dist loadfile
OTHER := from slimtune.models import hardware; print(int(not hardware.detect().bf16))

.PHONY: quickstart setup test test-all fault fuzz check lint gpu clean

## The main job on the built-in model: set-up, training, verdict, export. No GPU and no network after set-up.
quickstart: .venv/installed
	$(BIN)/python train_unsloth.py --recipe recipes/quickstart.yaml

## Style, types, layers and the tests that people run.
test: .venv/installed lint
	$(BIN)/python -m pytest $(WORKERS)

## Runs that are killed or disturbed, and resumed.
fault: .venv/installed
	$(BIN)/python -m pytest -m "fault and not slow"

## Hostile files, options and replies for every command. `make fuzz FUZZ=1000` tries fewer; SLIMTUNE_FUZZ_SEED repeats a run.
FUZZ := 20000
fuzz: .venv/installed
	@seed=$${SLIMTUNE_FUZZ_SEED:-$$(date +%s)}; echo "SLIMTUNE_FUZZ_SEED=$$seed"; \
	SLIMTUNE_FUZZ=$(FUZZ) SLIMTUNE_FUZZ_SEED=$$seed $(BIN)/python -m pytest -n 2 tests/fuzz

## Every test that needs no GPU; then those that compute with a model again, in the other of the CPU's number formats.
test-all: WORKERS := -n 5 --dist loadfile
test-all: .venv/installed lint
	SLIMTUNE_TEST_COLD=1 SLIMTUNE_HYPOTHESIS=thorough $(BIN)/python -m pytest $(WORKERS) -m "not gpu"
	UNSLOTH_CPU_BF16=$$($(BIN)/python -c '$(OTHER)') $(BIN)/python -m pytest -m "unsloth and not gpu and not slow"

## Style, types, and the house: what may import what, where things stand, what the pages name.
check: .venv/installed lint
	$(BIN)/python -m pytest -q -n 2 tests/contracts

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

## On a machine with a CUDA card: predicted and measured memory, speed, packing; see benchmarks/README.md.
gpu: .venv/installed
	$(BIN)/python benchmarks/gpu_acceptance.py --write-calibration

## The environment in .venv, with the command `slimtune` in it: `. .venv/bin/activate` puts it on the PATH.
setup: .venv/installed

# uv resolves in seconds; its override lets the set install where an index has no newer certifi (see overrides.txt).
.venv/installed: requirements.txt requirements-dev.txt overrides.txt pyproject.toml
	@"$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null || { echo "Slimtune needs Python 3.11, 3.12 or 3.13 with its venv \
	module (on Debian and Ubuntu: apt install python3-venv); name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --override overrides.txt -r requirements.txt -r requirements-dev.txt -e .
	@echo "compiling the tests, once instead of in each worker"
	@$(BIN)/python -m pytest --collect-only -qq > /dev/null
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
