# Everything needs only python3 >= 3.11: each target sets up a local .venv first.
SHELL := /bin/sh
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PG15   := /usr/lib/postgresql/15/bin
BESIDE := -n 2 --dist worksteal -m "not alone and not storm"
ON_15  := $(addprefix tests/worker/test_,relay.py death.py heart.py errors.py partials.py)

.PHONY: help demo up test check chromium bench bench-handoff chaos chaos-short mutants screenshots lock fmt clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Ekiden needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "python3 has no venv here. Install it with: apt-get install -y python3-venv"; exit 1; }
	@echo "Setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(READY)  ## a viral session from theme to three drafts, on a real model and a real database
	@$(BIN)/ekiden demo

up: $(READY)  ## database, API and a worker, until Ctrl-C
	@$(BIN)/ekiden up

# In two processes, each with a server of its own: tests wait more than they compute. Those marked
# `alone` come after, with the machine to themselves. All parts run, whatever fails.
test: $(READY) chromium  ## the test suite, on PostgreSQL 18 and, where it is installed, on 15
	@failed=; run() { echo "== $$1"; shift; $(BIN)/python -m pytest "$$@" || failed="$$failed $$?"; }; \
	run "PostgreSQL 18" $(BESIDE); \
	run "PostgreSQL 18, one after the other" -m alone; \
	if [ -x $(PG15)/postgres ]; then \
	  export EKIDEN_TEST_PG_BIN=$(PG15) EKIDEN_STATEFUL_EXAMPLES=20; \
	  run "PostgreSQL 15" $(BESIDE) tests/store $(ON_15); \
	  run "PostgreSQL 15, one after the other" -m alone tests/store $(ON_15); \
	fi; \
	if [ -n "$$failed" ]; then echo "== Tests failed: see above"; exit 1; fi; echo "== All passed"

# The browser tests drive Debian's chromium. Where it may not be installed, they are skipped and the
# summary says so.
chromium:
	@[ -x /usr/bin/chromium ] || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
	  echo "Installing chromium for the browser tests (once; a minute or two)"; \
	  { apt-get -o Acquire::http::Timeout=20 -o Acquire::Retries=1 update && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y --no-install-recommends chromium fonts-noto-cjk; } >/dev/null 2>&1 \
	  || echo "It cannot be installed here: the browser tests will be skipped."; }

screenshots: $(READY) chromium  ## every page, light and dark, in both languages, wide and narrow
	@$(BIN)/python -m tests.web.screenshots

check: $(READY)  ## lint, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)  ## against its peers and against the limit, in one run (about 25 minutes)
	$(BIN)/python bench/versus.py --page docs/performance.md

bench-handoff: $(READY)  ## the hand-off against the bare commit, in one run (3 minutes)
	$(BIN)/python bench/handoff.py

chaos: $(READY)  ## break everything, a thousand times and more, and judge (about 35 minutes; SEED=N)
	$(BIN)/python -m chaos --page docs/reliability.md $(if $(SEED),--seed $(SEED))

chaos-short: $(READY)  ## the same in small, in under four minutes
	$(BIN)/python -m chaos --short $(if $(SEED),--seed $(SEED))

mutants: $(READY)  ## take out one safeguard after the other; the suite must notice (4 minutes)
	$(BIN)/python -m chaos.mutants

lock:  ## pin what pyproject.toml asks for, with hashes; pins that still fit are kept
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install -q --disable-pip-version-check uv
	@for group in run dev; do build/lock/bin/uv pip compile -q --universal --generate-hashes --no-header \
	  --python-version 3.11 $$([ $$group = dev ] && echo --group dev) -o requirements/$$group.txt pyproject.toml; done

fmt: $(READY)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build
