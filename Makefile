# make study   the experiment        make test   every check
PYTHON ?= python3
PIP_ARGS ?=
STUDY_ARGS ?=
PYTEST_ARGS ?=
TEST_WORKERS ?= 2
MUTANTS_ARGS ?= --sample 200

SHELL = /bin/sh
VENV = .venv
RUN = $(VENV)/bin/python
MADE = $(VENV)/.made
STAMP = $(VENV)/.installed
DOCS_STAMP = $(VENV)/.docs
PAGES = README.md docs/balance.md docs/bounds.md docs/certify_your_model.md docs/clusters.md \
        docs/estimators.md docs/extending.md docs/images.md docs/index.md docs/mistakes.md \
        docs/packed.md docs/representation.md docs/tutorial.md docs/which_bound.md

.DEFAULT_GOAL = help
.PHONY: help venv study test lint types unit slow doctest docs links format coverage mutants benchmark pages browser api clean

help: ## list the targets
	@echo 'Targets:'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'
	@echo 'Variables: PYTHON (python3), VENV (.venv), PIP_ARGS (for pip install), STUDY_ARGS (for the study),'
	@echo '           PYTEST_ARGS (for the tests), TEST_WORKERS (2 processes for the tests),'
	@echo '           MUTANTS_ARGS (--sample 200)'

# The stamp comes last: an interrupted or failed installation starts anew next time.
$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo 'error: found no `$(PYTHON)`; set PYTHON to a Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: pbnn needs Python 3.11 or newer, and `$(PYTHON)` is' "$$("$(PYTHON)" --version 2>&1)." >&2; \
	  echo '       Choose another one: make PYTHON=python3.12' >&2; \
	  exit 1; }
	@test ! -d $(VENV) || test -e $(MADE) || test -e $(STAMP) || { \
	  echo 'error: make did not make this $(VENV), and replaces none that it did not make.' >&2; \
	  echo '       Give another folder, make VENV=.venv-make, or move yours away.' >&2; \
	  exit 1; }
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo 'error: `$(PYTHON) -m venv` failed; the module venv or ensurepip is probably not installed.' >&2; \
	  echo '       On Debian or Ubuntu: apt-get install python3-venv' >&2; \
	  echo '       (for a Python that is not the default one: apt-get install python3.X-venv)' >&2; \
	  exit 1; }
	@touch $(MADE)
	$(RUN) -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

venv: $(STAMP) ## make .venv, with the versions of constraints.txt

study: $(STAMP) ## run the study: tables and figures in reports/pac_bound_mnist_quick
	$(RUN) studies/pac_bound_mnist.py $(STUDY_ARGS)

test: lint types unit doctest ## lint, format, types, tests, doctests

lint: $(STAMP) ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(STAMP) ## mypy
	$(RUN) -m mypy

# Each process of the tests with threads of its own would wait for the others.
unit: export OMP_NUM_THREADS ?= 1
unit: $(STAMP) ## the tests
	$(RUN) -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

slow: $(STAMP) ## the tests that take minutes and are no part of `make test`
	$(RUN) -m pytest -m slow $(PYTEST_ARGS)

doctest: $(STAMP) ## the examples in the docstrings
	$(RUN) -m pytest --doctest-modules --doctest-glob='*.md' pbnn $(PAGES)

$(DOCS_STAMP): $(STAMP)
	$(RUN) -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev,docs]'
	@touch $(DOCS_STAMP)

docs: $(DOCS_STAMP) ## the documentation in docs/_build/html; a warning is an error
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html
	$(RUN) -m pytest -q --doctest-glob='*.md' $(PAGES) tests/test_docs.py

links: $(DOCS_STAMP) ## ask for every external link of the documentation; needs the network
	$(RUN) -m sphinx -W --keep-going -b linkcheck docs docs/_build/links

format: $(STAMP) ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

coverage: $(STAMP) ## simulate the promise of every bound
	$(RUN) studies/bound_coverage.py $(STUDY_ARGS)
	$(RUN) studies/bound_rounding.py

mutants: $(STAMP) ## change bounds/ here and there: do the tests notice?
	$(RUN) tests/mutants.py $(MUTANTS_ARGS)

benchmark: $(STAMP) ## time the code
	$(RUN) -m pytest tests/benchmarks $(PYTEST_ARGS)

pages: $(STAMP) ## write index.html into every folder of reports/ once more, without running a study
	$(RUN) -m pbnn.reporting.page reports/*

browser: $(STAMP) ## look at the pages with Chromium; with PBNN_AXE=path/to/axe.min.js by axe, too
	$(RUN) -m pytest tests/browser $(PYTEST_ARGS)

api: $(STAMP) ## rewrite the lists of public names and bounds after a deliberate change
	PBNN_UPDATE_API=1 $(RUN) -m pytest -q tests/test_public_api.py tests/bounds/test_catalogue.py

clean: ## remove .venv, caches and builds
	rm -rf $(VENV) build dist docs/_build docs/auto_examples docs/project pbnn.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find bounds pbnn studies tests -name __pycache__ -type d -prune -exec rm -rf {} +
