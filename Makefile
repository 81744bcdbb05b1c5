# Each target does all the set-up it needs: a .venv beside the code.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test faults lint bench mutants
demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(READY)
	$(BIN)/python -m pytest -n auto

faults: $(READY)
	CKPT_FAULTS=all $(BIN)/python -m pytest -n auto tests/faults tests/train/test_signals.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/large.py
	$(BIN)/python benchmarks/diff.py
	$(BIN)/python benchmarks/registry.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/tips.py

mutants: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[mutants]'
	$(BIN)/python tests/mutants.py $(ARGS)

$(READY): pyproject.toml constraints.txt
	@echo "setting up .venv: ckpt, its dependencies and the development tools"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q ckpt models
	@touch $@
