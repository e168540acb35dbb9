# `make help` says what there is. Everything lives in .venv, made on first use from PYTHON (3.11 or newer).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# How many test processes run side by side, and what pytest is told besides. One more than there are cores: half of a test's time
# is waiting for other processes.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
PYTEST_ARGS ?=
SECONDS ?= 60
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal

# For every Python and system that eventq supports; no index and no path in what it writes.
UV := $(VENV)/release/bin/uv pip compile --quiet --native-tls --universal --python-version 3.11 --all-extras --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help demo observe test test-full test-cluster test-acl chaos chaos-long mutants fuzz check docs reference grafana acl bench \
	wheel lock locked sbom audit clean

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

test-acl: $(VENV)/.dev  ## Run the core's tests as a user with no more permissions than the roles have
	EVENTQ_TEST_ACL=1 $(PYTEST) $(PYTEST_ARGS) tests/lua tests/integration

chaos: $(VENV)/.dev  ## Play the fault matrix, some minutes (SEED=number replays)
	@rm -rf build/chaos build/chaos.json
	@$(PYTEST) -m "" -q $(PYTEST_ARGS) tests/chaos/matrix/test_matrix.py; status=$$?; \
		$(BIN)/python tests/chaos/matrix/report.py && exit $$status

chaos-long: $(VENV)/.dev  ## Break everything on purpose, for an hour (JOBS=number, SEED=number)
	@rm -rf build/chaos build/chaos.json
	@$(BIN)/pytest -m "" -q -rP -o faulthandler_timeout=0 $(PYTEST_ARGS) tests/chaos/matrix/test_marathon.py; status=$$?; \
		$(PYTEST) -m "" -q -rP $(PYTEST_ARGS) tests/chaos tests/integration/test_fencing.py \
		--deselect tests/chaos/matrix/test_marathon.py::test_a_marathon || status=$$?; \
		$(BIN)/python tests/chaos/matrix/report.py && exit $$status

fuzz: $(VENV)/.fuzz  ## Feed hostile bytes to every decoder (SECONDS=60 in all)
	$(BIN)/python -m tests.fuzz $(SECONDS)

mutants: $(VENV)/.dev  ## Break eventq in one place at a time; each must be caught (ARGS="words of names")
	@$(BIN)/python -m tests.model.hunting $(ARGS)

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

acl: $(VENV)/.dev  ## Write the permissions of each role into acl/ from the code
	$(BIN)/python tools/make_acl.py

grafana: $(VENV)/.dev  ## Write dashboards and alert rules in grafana/ from the code
	$(BIN)/python tools/make_grafana.py

bench: $(VENV)/.dev  ## Measure, beside BullMQ where Node is installed (ARGS="...")
	$(BIN)/python -m benchmarks $(ARGS)

wheel: $(VENV)/.dev  ## Build sdist and wheel into dist/, to the byte as anybody else does
	@rm -rf dist
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@cd dist && sha256sum *

lock: $(VENV)/.release  ## Write requirements.lock: the newest of everything, with hashes
	@{ sed '/^[^#]/,$$d' requirements.lock && $(UV) --group dev pyproject.toml; } >requirements.lock.new
	@mv requirements.lock.new requirements.lock

locked: $(VENV)/.dev  ## Prove that requirements.lock installs, hash by hash, and works
	@rm -rf build/locked && mkdir -p build && $(PYTHON) -m venv build/locked
	@$(PIP) --python build/locked/bin/python install --require-hashes --only-binary :all: -r requirements.lock
	@$(PIP) --python build/locked/bin/python install --no-index --no-build-isolation '.[all]'
	@$(PIP) --python build/locked/bin/python check
	@cd build && locked/bin/eventq --version && locked/bin/python -c 'import eventq_opentelemetry, eventq_prometheus'

sbom: $(VENV)/.release  ## Write build/eventq.cdx.json: what eventq[all] runs on (CycloneDX)
	@rm -rf build/runtime && mkdir -p build && $(PYTHON) -m venv --without-pip build/runtime
	@$(UV) --constraint requirements.lock pyproject.toml >build/runtime.lock
	@$(PIP) --python build/runtime/bin/python install --require-hashes --only-binary :all: -r build/runtime.lock
	@$(VENV)/release/bin/cyclonedx-py environment build/runtime/bin/python --pyproject pyproject.toml --mc-type library \
		--output-reproducible --output-file build/eventq.cdx.json
	@$(BIN)/python tools/check_sbom.py build/eventq.cdx.json

audit: $(VENV)/.release  ## Ask for known vulnerabilities of what requirements.lock names
	@$(BIN)/python tools/audit.py $(VENV)/release/bin/pip-audit

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

# What releases are made with, apart from everything else.
$(VENV)/.release: $(VENV)/.dev
	@echo 'Installing what releases are made with ...'
	@$(PYTHON) -m venv --clear --without-pip $(VENV)/release
	@$(PIP) --python $(VENV)/release/bin/python install --group release
	@touch $@

# The same with the fuzzer, which is published for some versions of Python on Linux and macOS only.
$(VENV)/.fuzz: $(VENV)/.dev
	@$(PIP) install --group fuzz
	@touch $@
