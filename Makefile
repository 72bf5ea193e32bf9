# Each target works on a machine with Python 3.11 and nothing else prepared.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: up test check format bench fuzz readme proto envoy lock vocab clean

up: $(READY) vocab
	@exec $(BIN)/python -m demo.up

# One process a core; a few are enough, since most of them start servers of their own.
test: $(READY) vocab
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_floors.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) vocab
	$(BIN)/python -m bench

# Every parser for SECONDS, guided by coverage; `make test` runs the same targets for moments.
SECONDS := 60
fuzz: $(READY)
	@set -e; for target in $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)'); do \
	  echo "== $$target"; $(BIN)/python -m tests.fuzz $$target --seconds $(SECONDS); done

# README.md's generated blocks, from a run of the product.
readme: $(READY) vocab
	$(BIN)/python -m tests.readme

proto: $(READY)
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=extproc/pb --pyi_out=extproc/pb proto/ai_policy/v1/*.proto

# envoy/*.yaml, as extproc/envoy_config renders them.
envoy: $(READY)
	$(BIN)/python -m demo.compose

vocab: $(READY)
	@$(BIN)/extproc vocab

# The locks are rebuilt from pyproject.toml; every line carries the hashes of what may be installed.
LOCK := $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --custom-compile-command "make lock" --upgrade --quiet

lock: $(READY)
	$(LOCK) -o requirements/run.txt
	$(LOCK) --group demo --group dev -c requirements/run.txt -o requirements/dev.txt

# The marker is written last, so that an interrupted set-up is done again.
$(READY): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) .run
