# Each target does all the set-up it needs: a .venv beside the code.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
COMMA := ,
EXTRAS := dev$(if $(CI),$(COMMA)interop)
PYTEST := $(BIN)/python -m pytest
# Tests start many processes, which leave no bytecode.
COMPILED = $(BIN)/python -m compileall -q ckpt models

.DEFAULT_GOAL := help
.PHONY: help demo test test-all faults fuzz storm soak lint docs wheel oldest fresh-clone bench bench-peers mutants screenshots
help: ## List the targets.
	@awk -F ':.*## ' 'NF > 1 && /^[a-z]/ {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## Train, register, rename and score the MNIST network in a scratch folder.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(READY) ## Run the tests in their short form; a part with ARGS="-k rename".
	@$(COMPILED)
	$(PYTEST) -n auto --dist worksteal $(ARGS)

test-all: $(READY) ## Run all tests, as CI does.
	@$(COMPILED)
	CKPT_TESTS=all $(PYTEST) -n auto --dist worksteal $(ARGS)

faults: $(READY) ## Try every fault at every point.
	CKPT_TESTS=every CKPT_EXAMPLES=random $(PYTEST) -n auto tests/faults tests/train/test_signals.py \
		tests/remote/test_many_pushers.py

fuzz: $(READY) ## Compare ckpt with torch on assembled files; ARGS="--cases 100000 --seed 1".
	$(BIN)/python -m tests.formats.fuzz $(ARGS)

storm: $(READY) ## Run all commands at once and kill some; ARGS="--minutes 20 --folder DIR".
	$(BIN)/python -m tests.faults.storm $(ARGS)

soak: $(READY) ## Run all tests three times beside eight busy processes, and once in random order.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/soak.sh

lint: $(READY) ## Check format, style, types and layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## Build the site of docs/ into site/.
	$(BIN)/zensical build --strict

wheel: $(READY) ## Build the wheel, install it elsewhere, and try it.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/wheel.sh

oldest: $(READY) ## Try the wheel with the oldest torch that it supports; downloads gigabytes.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/oldest.sh

fresh-clone: ## Clone into an empty folder, and run the README's two commands there.
	sh tests/fresh_clone.sh

bench: $(READY) ## Measure the commands beside cp, import torch and hand-written loops.
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/large.py
	$(BIN)/python benchmarks/diff.py
	$(BIN)/python benchmarks/registry.py
	$(BIN)/python benchmarks/infer_many.py
	$(PIP) --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/tips.py

bench-peers: $(READY) ## Measure ckpt beside DVC, Git LFS, restic, borg and MLflow, and its pushes beside uploads.
	$(BIN)/python benchmarks/peers.py $(ARGS)
	$(BIN)/python benchmarks/remotes.py

screenshots: $(READY) ## Train some versions, and write the pictures of their pages into docs/pages.
	$(BIN)/python -m tests.show.site.screenshots

mutants: $(READY) ## Break the code in small ways, and count what its tests notice.
	@$(PIP) --quiet -c constraints.txt -e '.[mutants]'
	$(BIN)/python -m tests.mutants $(ARGS)

$(READY): pyproject.toml constraints.txt
	@echo "setting up .venv: ckpt, its dependencies and the development tools"
	@$(PYTHON) -m venv .venv
	@{ $(PIP) -c constraints.txt torch torchvision && $(PIP) -c constraints.txt -e '.[$(EXTRAS)]'; } \
		>.venv/pip.log 2>&1 || { cat .venv/pip.log; exit 1; }
	@$(COMPILED)
	@touch $@
