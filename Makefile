# make demo | docs | test | check | format: each installs what it needs into .venv first.
PYTHON ?= python3
VENV ?= .venv
VERSIONS ?= constraints.txt
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PAGES := README.md CONTRIBUTING.md CHANGELOG.md $(wildcard docs/*.md docs/concepts/*.md)

.PHONY: demo docs test fast oldest pythons check static format format-check lint types install audit wheel

demo: $(INSTALLED)
	$(BIN)/biwaa demo

# The site, into build/docs/index.html; a warning is an error. Both notebooks are run for it.
docs: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

test: $(INSTALLED)
	$(BIN)/pytest -n 3 --dist worksteal

# Without the tests that train for longer than a few seconds.
fast: $(INSTALLED)
	$(BIN)/pytest -n 3 --dist worksteal -m "not slow"

# The oldest Python with the oldest releases that pyproject.toml allows, and every Python with the newest tested ones.
oldest:
	$(MAKE) fast VENV=.venv-oldest PYTHON=python3.11 VERSIONS=constraints-oldest.txt

pythons:
	set -e; for version in 3.11 3.12 3.13; do $(MAKE) fast VENV=.venv-$$version PYTHON=python$$version; done

check: static test

static: format-check lint types

format: $(INSTALLED)
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	$(BIN)/mdformat $(PAGES)

format-check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/mdformat --check $(PAGES)

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

install: $(INSTALLED)

# On demand, not in CI: every package's licence, then known vulnerabilities; a package that no one could be asked about
# is a failure and not a clean bill. The auditors live in an environment of their own.
audit: $(INSTALLED)
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit pip-licenses
	.venv-audit/bin/pip-licenses --python $(BIN)/python --order=license
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r .venv-audit/installed.txt

# The wheel, installed into an environment of its own that borrows the dependencies, trains from another folder.
wheel: $(INSTALLED)
	$(BIN)/python benchmarks/wheel.py

$(INSTALLED): pyproject.toml $(VERSIONS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VERSIONS) -e '.[dev]'
	touch $@
