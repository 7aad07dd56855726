PYTHON ?= python3.11
BIN := .venv/bin
export PYTHONUTF8 := 1

.PHONY: quickstart test check slow gpu clean

## The main job on the built-in model: set-up, training, verdict, export. No GPU and no network after set-up.
quickstart: .venv/installed
	$(BIN)/python train_unsloth.py --recipe recipes/quickstart.yaml

## Style, types and tests.
test: .venv/installed check
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: .venv/installed
	$(BIN)/python -m pytest -m slow

## On a machine with a CUDA card: predicted and measured memory, speed, packing; see benchmarks/README.md.
gpu: .venv/installed
	$(BIN)/python benchmarks/gpu_acceptance.py --write-calibration

# uv resolves in seconds; its override lets the set install where an index has no newer certifi (see overrides.txt).
.venv/installed: requirements.txt requirements-dev.txt overrides.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python --override overrides.txt -r requirements.txt -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
