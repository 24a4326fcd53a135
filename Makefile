PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test lint docs browser benchmark clean

# Train a small network on real photographs and picture its first layer.
demo: $(INSTALLED)
	$(BIN)/kernelviz demo

test: $(INSTALLED) lint browser
	$(BIN)/pytest

# The tests of pages look at them in Chromium; without it they are skipped.
browser:
	@command -v chromium > /dev/null || \
		(echo "Installing Chromium." && apt-get update -qq && apt-get install -qq chromium) \
		> /dev/null 2>&1 || echo "Chromium could not be installed: tests of pages are skipped."

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The documentation, in site/.
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html."

# The tables of the documentation.
benchmark: $(INSTALLED) browser
	$(BIN)/python benchmarks/snapshot.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/health.py
	$(BIN)/python benchmarks/checkpoints.py
	$(BIN)/python benchmarks/tab.py

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Installing torch and the rest: some minutes, once."
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) site runs lightning_logs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
