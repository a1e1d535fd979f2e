# Everything a person types. Works with make and a Python of 3.11 or newer, nothing else.
#
# What stands in the environment or after `make` (SEED=7, fault shares, DATABASE_URL, PYTHON …) reaches the command as it is.

SHELL := /bin/sh
IN_VENV := .venv/bin/python
UV ?= uv
WORKERS ?= 5
LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help setup oracles demo up screenshots unit quick test coverage floors format lint types imports check fuzz chaos soak rehearse simulate crashes figures bench audit sbom lock clean

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv with the locked dependencies; quick when nothing has changed
	@sh scripts/setup.sh

oracles: setup ## Make .oracles with other people's libraries that some tests hold ours against; part of `make test`
	@sh scripts/setup_oracles.sh

demo: setup ## Lose callbacks on purpose and watch every order become paid (SEED=7 repeats a run)
	@$(IN_VENV) -m cli demo $(ARGS)

up: setup ## Run the whole system on this machine, with an example shop to click through
	@$(IN_VENV) -m cli up $(ARGS)

screenshots: setup ## Make the pictures of docs/pictures anew; needs Chromium
	@$(IN_VENV) -m tests.browser.screenshots

# Processes that are killed and waited for, the browser and the fuzzer take most of the time of `make test`.
QUICK := -m "not (scenario or slow or browser)" --ignore=tests/oracles
# Compiled tests are kept: without them each of the four processes compiles all for eight seconds.
PYTEST = PYTHONDONTWRITEBYTECODE= $(IN_VENV) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

unit: setup ## Run the tests that need no server and no other process: seconds
	@$(PYTEST) -m "not servers" $(ARGS)

quick: setup ## Run all tests but the slow ones, whole processes and the browser: some minutes
	@$(PYTEST) $(QUICK) $(ARGS)

# A selection that names folders needs the oracles' environments only if it names one of these.
NEEDS_ORACLES := $(if $(filter tests/%,$(ARGS)),$(filter tests/oracles% tests/fuzz% tests/browser%,$(ARGS)),yes)

# Long ones, and those that install other projects from the network, are for `.ci/run`. The last -m counts.
test: $(if $(NEEDS_ORACLES),oracles,setup) ## Run the tests, five files at a time (ARGS="tests/cli -x" for some of them; WORKERS=0 one by one)
	@echo 'make test: without long tests, and those that install other projects; these are: ARGS="-m long", ARGS="-m network"'
	@$(PYTEST) -m "not (long or network)" $(ARGS)

coverage: setup ## Run the quick tests and hold the floors of coverage
	@$(PYTEST) $(QUICK) --cov --cov-report= $(ARGS)
	@$(MAKE) --no-print-directory floors

floors: setup ## Hold the floors of the coverage that was measured: core 100 % of its branches, all 95 %
	@$(IN_VENV) -m coverage report --include='core/*' --skip-covered --show-missing --fail-under=100
	@$(IN_VENV) -m coverage report --skip-covered --fail-under=95

format: setup ## Format the code and put imports in order
	@$(IN_VENV) -m ruff check --quiet --select I --fix .
	@$(IN_VENV) -m ruff format .

lint: setup ## Ruff: rules and format
	@$(IN_VENV) -m ruff check .
	@$(IN_VENV) -m ruff format --check .

types: setup ## Mypy, strict
	@$(IN_VENV) -m mypy

imports: setup ## Who may import whom
	@.venv/bin/lint-imports

check: lint types imports test ## All four: what a change must pass

fuzz: oracles ## Fuzz one parser for as long as ARGS say (ARGS="wechatpay_callback -max_total_time=600")
	@PYTHONPATH=.:$$($(IN_VENV) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
		.oracles/atheris/bin/python -m tests.fuzz $(ARGS) -artifact_prefix=.oracles/

chaos: setup ## Kill, freeze, fill and storm a whole system in turn, each time with a check from outside (ARGS="kill redis")
	@$(IN_VENV) -m tests.chaos $(ARGS)

soak: setup ## Twenty minutes of normal load with low faults: the memory of each process
	@$(IN_VENV) -m tests.chaos soak $(ARGS)

rehearse: setup ## Deploy the Procfile as a platform would, sell one order, end it
	@$(IN_VENV) -m tests.platform.rehearse

simulate: setup ## Live worlds in virtual time (SEED=7 ORDERS=500 PROFILE=mix WORLDS=4), and judge them
	@$(IN_VENV) -m tests.simulation run $(ARGS)

figures: setup ## Live the same worlds with more and more measures, and write docs/recovery.md (SEED=7 ORDERS=200 WORLDS=2)
	@$(IN_VENV) -m tests.simulation.figures $(ARGS)

crashes: setup ## Kill a process at every step of an order's life, and write docs/crash-points.md
	@$(IN_VENV) -m tests.simulation.crash_points run --write docs/crash-points.md $(ARGS)

bench: setup ## The benchmarks
	@$(IN_VENV) -m bench $(ARGS)

audit: ## Compare the locks with the database of known vulnerabilities; needs pip-audit, and says so where it cannot
	@sh scripts/audit.sh

sbom: setup ## Print what a deployment installs, as CycloneDX JSON
	@$(IN_VENV) scripts/sbom.py

# One lock for Linux and macOS and every Python from 3.11; no index host is written into it. Newer versions:
# make lock LOCK_OPTIONS=--upgrade
lock: ## Make all locks anew, requirements.txt (what a platform installs) first; needs uv
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or UV=/where/it/is" >&2; exit 1; }
	$(LOCK) $(LOCK_OPTIONS) --output-file requirements.txt pyproject.toml
	$(LOCK) $(LOCK_OPTIONS) --constraint requirements.txt --extra demo --group dev \
		--output-file requirements-dev.txt pyproject.toml
	for lock in oracles/sdks oracles/localstripe fuzz/atheris arq_suite/requirements clients/snippets/requirements; do (cd tests/$${lock%/*} && \
		$(LOCK) $(LOCK_OPTIONS) --output-file $${lock##*/}.txt $${lock##*/}.in) || exit 1; done
	cd tests/oracles && $(LOCK) $(LOCK_OPTIONS) --no-deps --output-file axe.txt axe.in
	for peer in bench/peers/*/requirements.in examples/*/requirements.in; do (cd $${peer%/*} && \
		$(LOCK) $(LOCK_OPTIONS) --output-file requirements.txt requirements.in) || exit 1; done

clean: ## Remove what set-up, tools and tests made
	@rm -rf .venv .oracles .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .coverage build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
