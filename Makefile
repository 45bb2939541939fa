# make demo | docs | test | check | format: each installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo docs test check static format format-check lint types install audit wheel

demo: $(INSTALLED)
	$(BIN)/biwaa demo

# The site, into build/docs/index.html; a warning is an error. Both notebooks are run for it.
docs: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

test: $(INSTALLED)
	$(BIN)/pytest -n 2

check: static test

static: format-check lint types

format: $(INSTALLED)
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

format-check: $(INSTALLED)
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

install: $(INSTALLED)

# On demand, not in CI: known vulnerabilities of what is installed, and every package's licence.
audit: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit pip-licenses
	$(BIN)/pip-licenses --order=license
	$(BIN)/pip-audit --skip-editable

# The wheel, installed into an environment of its own that borrows the dependencies, trains from another folder.
wheel: $(INSTALLED)
	$(BIN)/python benchmarks/wheel.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
