# `make help` says what there is. Everything lives in .venv, made on first use from PYTHON (3.11 or newer).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# How many test processes run side by side, and what pytest is told besides.
WORKERS ?= auto
PYTEST_ARGS ?=
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo observe test test-full test-cluster chaos chaos-long check docs reference grafana bench clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  \1	/' | expand -t 16
	@echo 'EVENTQ_TEST_SERVER=redis tests against the redis-server in PATH; PYTEST_ARGS="-k lease" picks tests.'

demo: $(VENV)/.runtime  ## Run real jobs over a folder and watch them (FOLDER=path)
	@$(BIN)/eventq demo $(FOLDER)

observe: $(VENV)/.observe  ## Watch a load: metrics, alerts, spans (ARGS="...")
	@$(BIN)/python -m tools.observe $(ARGS)

test: $(VENV)/.dev  ## Run the tests, except those marked full
	$(PYTEST) $(PYTEST_ARGS)

test-full: $(VENV)/.dev  ## Run all tests, then the core ones on a cluster
	$(PYTEST) -m "" $(PYTEST_ARGS)
	$(MAKE) test-cluster

test-cluster: $(VENV)/.dev  ## Run the core's tests on a cluster of three
	EVENTQ_TEST_SERVER=cluster $(PYTEST) $(PYTEST_ARGS) tests/lua tests/integration

chaos: $(VENV)/.dev  ## Play the fault matrix, some minutes (SEED=number replays)
	@rm -rf build/chaos build/chaos.json
	@$(PYTEST) -m "" -q $(PYTEST_ARGS) tests/chaos/matrix/test_matrix.py; status=$$?; \
		$(BIN)/python tests/chaos/matrix/report.py && exit $$status

chaos-long: $(VENV)/.dev  ## Break everything on purpose, for an hour (JOBS=number, SEED=number)
	@rm -rf build/chaos build/chaos.json
	@$(BIN)/pytest -m "" -q -rP $(PYTEST_ARGS) tests/chaos/matrix/test_marathon.py; status=$$?; \
		$(PYTEST) -m "" -q -rP $(PYTEST_ARGS) tests/chaos tests/integration/test_fencing.py \
		--deselect tests/chaos/matrix/test_marathon.py::test_a_marathon || status=$$?; \
		$(BIN)/python tests/chaos/matrix/report.py && exit $$status

check: $(VENV)/.dev  ## Lint, format, types, layers, house rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python tools/check_house.py

docs: $(VENV)/.dev  ## Build the site into build/docs
	$(BIN)/python -m sphinx -q -W -n --keep-going -c docs . build/docs
	@echo build/docs/index.html

reference: $(VENV)/.dev  ## Write docs/reference/ from the code
	$(BIN)/python tools/make_reference.py

grafana: $(VENV)/.dev  ## Write dashboards and alert rules in grafana/ from the code
	$(BIN)/python tools/make_grafana.py

bench: $(VENV)/.dev  ## Measure, beside BullMQ where Node is installed (ARGS="...")
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## Remove the environment and everything generated
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The environment as a user has it: enough for the demo.
$(VENV)/.runtime: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON); say which one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "eventq needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) -V 2>&1); say which one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo 'Installing into $(VENV) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[cli,embedded,uvloop]'
	@touch $@

# The same with what exporter and tracer need.
$(VENV)/.observe: $(VENV)/.runtime
	@echo 'Installing what exporter and tracer need ...'
	@$(PIP) install --editable '.[opentelemetry,prometheus]'
	@touch $@

# The same with every extra and the development tools.
$(VENV)/.dev: $(VENV)/.runtime
	@echo 'Installing the development tools ...'
	@$(PIP) install --upgrade 'pip>=25.1' # the first that knows dependency groups
	@$(PIP) install --editable '.[all]' --group dev
	@touch $@
