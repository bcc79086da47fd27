# Everything here sets itself up: a virtual environment in .venv, and Debian's packages where they are missing and this is root.
VENV ?= .venv
BIN = $(VENV)/bin
SETUP = tests/support/setup.sh $(VENV)
# Tests wait more than they work: four workers keep two processors busy.
PYTEST = $(BIN)/python -m pytest -n 4 --dist worksteal
QUICK = tests/core tests/jobs tests/connection tests/hypervisors/sim $(addprefix tests/hosts/test_hosts.py::,TestSelect TestAsyncio)
N ?= 3
HOGS ?= 2
ARGS ?=

.PHONY: help demo quick test test-all test-debian13 flaky e2e-xen lint types soak stress interleavings bench bench-hosts bench-xen clean
help: ## this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: ## domain events of libvirt's test driver and of the simulated hypervisor, through one dispatcher, on each host in turn
	@$(SETUP) demo
	@$(BIN)/eventbridge demo

quick: ## what people run who work on the code: core, jobs, connection on the simulator; no daemon (under 40 s)
	@$(SETUP) test
	$(PYTEST) -m "not (libvirt or qemu or xen or slow)" $(QUICK) $(ARGS)

test: ## the tests (under 6 minutes)
	@$(SETUP) test
	@$(BIN)/python -m compileall -q eventbridge adapters tests  # once, for the hundreds of processes that tests start
	$(PYTEST) $(ARGS)

test-debian13: ## the tests on a clean Debian 13 (as root, on any Debian; makes it in the cache; ARGS="..." is pytest's)
	@python3 -m tests.support.debian13 $(ARGS)

test-all: test interleavings soak e2e-xen test-debian13 ## everything (hours)

flaky: ## the tests that fail now and then: N=3 runs of all, in random order, beside HOGS=2 busy processes
	@$(SETUP) test
	@$(BIN)/python -m tests.support.flaky --runs $(N) --hogs $(HOGS) $(if $(ARGS),-- $(ARGS))

e2e-xen: ## the tests inside a real Xen 4.17 and 4.20, booted in QEMU (6 minutes on two idle cores; fetches 250 MB once)
	@$(SETUP) test
	@$(BIN)/python -m tests.e2e.xen $(ARGS)

lint: ## ruff
	@$(SETUP) dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ## mypy, strict
	@$(SETUP) dev
	$(BIN)/mypy

soak: ## 60 s of stress on each host loop, with every fault
	@$(SETUP) test
	$(BIN)/eventbridge stress --seconds 60 --jobs 2

stress: ## 10 s of stress on each host loop (under 2 minutes)
	@$(SETUP) test
	$(BIN)/eventbridge stress --seconds 10 --handles 400 --jobs 2

interleavings: ## every interleaving of small programs, in a model and in the dispatcher (half an hour)
	@$(SETUP) test
	$(BIN)/python -m tests.model_checking

bench: ## the benchmark's table (about 10 minutes)
	@$(SETUP) test
	$(BIN)/eventbridge bench

bench-hosts: ## every host loop, with a bridge and with watches of its own (about 7 minutes)
	@$(SETUP) test
	$(BIN)/eventbridge bench --hosts

bench-xen: ## Xen's events beside libxl's own loop in C (about 3 minutes)
	@$(SETUP) test
	@$(BIN)/python -m tests.measurements.xen_bench

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
