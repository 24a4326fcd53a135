PYTHON ?= python3
# PINNED=1: install the tested versions, those that .ci/run tests with, and not the newest ones.
override PINNED := $(filter-out 0,$(PINNED))
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/installed-for-demo$(if $(PINNED),-pinned)
INSTALLED := $(VENV)/installed$(if $(PINNED),-pinned)
OLDEST := .venv-oldest
EMPTY := build/empty

# A module is compiled at its first import, and the result is kept. Some containers forbid that: then
# each process of the tests would spend ten seconds on compiling torch and Lightning again.
unexport PYTHONDONTWRITEBYTECODE

ifdef PINNED
export PIP_CONSTRAINT := $(CURDIR)/.ci/constraints.txt
endif

# pip prints nothing for minutes with --quiet, and too much without it. The names of the large files
# are enough. Python compiles a module at its first import: most installed modules are never imported.
PIP_INSTALL := $(BIN)/pip install --no-compile --progress-bar off --editable
PROGRESS := sed -nuE \
	-e 's,^ *(Downloading|Processing) ([^ ]*/)?([^ /]+\.whl) \(([0-9.]+ [MG]B)\).*,    \3 (\4),p' \
	-e 's,^Installing collected packages.*,    Unpacking all of it.,p'
SHELL := bash
.SHELLFLAGS := -o pipefail -c

.PHONY: demo test test-long test-oldest lint docs browser benchmark dist lock clean

# Train a small network on real photographs and draw the filters of its first layer.
demo: $(DEMO)
	@echo "Training a small network on 16 photographs: about a minute."
	@$(BIN)/kernelviz demo
	@echo "These commands are in the environment of the demo: first run \"source $(BIN)/activate\"."

# Three workers for two cores, because tests often wait for a browser, a server or a process. A file's
# tests stay together, because they share what the file prepares.
PYTEST_OPTIONS := -n 3 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED) lint browser
	$(BIN)/pytest $(PYTEST_OPTIONS) -m "not long"

# The long drills, and the tests of several processes with a new interpreter for each process.
test-long: $(INSTALLED) browser
	FRESH_PROCESSES=1 $(BIN)/pytest $(PYTEST_OPTIONS) -m "long or processes"

# Install Chromium for the tests of web pages. Without it they are skipped.
browser:
	@command -v chromium > /dev/null || { \
		echo "Installing Chromium with apt-get, for the tests of web pages."; \
		{ apt-get update -qq && apt-get install -qq chromium; } > /dev/null 2>&1 || \
		echo "Chromium could not be installed: tests of pages are skipped."; }

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Build the documentation in site/.
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html."

# Print the tables of the documentation.
benchmark: $(INSTALLED) browser
	$(BIN)/python benchmarks/true_cost.py
	$(BIN)/python benchmarks/parts.py
	$(BIN)/python benchmarks/snapshot.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/idle_hooks.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/health.py
	$(BIN)/python benchmarks/checkpoints.py
	$(BIN)/python benchmarks/tab.py
	$(BIN)/python benchmarks/feature_maps.py

# Run the tests outside the browser with the oldest versions that pyproject.toml allows.
# These old packages import the newest versions of their own dependencies. The resulting warnings
# are not about this package, so they are not errors here.
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/pytest $(PYTEST_OPTIONS) \
		-m "not browser and not newest and not long" -o filterwarnings=default

# Build the sdist, the wheel and the list of all packages that the wheel needs, in dist/. Check them,
# and try the wheel in an empty environment.
dist: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/python -m build --wheel --outdir build/tree
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/distribution.py
	mkdir build/sdist && tar -xzf dist/*.tar.gz -C build/sdist --strip-components=1
	cd build/sdist && $(CURDIR)/$(BIN)/python -m pytest tests/test_package.py tests/test_readme.py
	$(PYTHON) -m venv $(EMPTY)
	$(EMPTY)/bin/pip install --quiet dist/*.whl
	$(EMPTY)/bin/python tests/smoke.py
	$(BIN)/cyclonedx-py environment $(EMPTY)/bin/python --output-reproducible -o build/sbom.json
	sed 's|file://$(CURDIR)/dist/||' build/sbom.json > dist/sbom.cdx.json

# Write the installed versions to the file of the versions that .ci/run tests with.
lock: $(INSTALLED)
	$(BIN)/pip freeze --exclude-editable > .ci/constraints.txt

$(DEMO): pyproject.toml $(if $(PINNED),.ci/constraints.txt)
ifdef PINNED
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit( \
		"PINNED=1: the tested versions are for Python 3.11; found %d.%d. Add PYTHON=python3.11" \
		% sys.version_info[:2])'
endif
	@echo "Making a Python environment in $(VENV)/."
	@rm -f $(VENV)/installed*
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing torch, Lightning, TensorBoard and the photographs: about two minutes, once."
	@$(PIP_INSTALL) ".[demo]" | $(PROGRESS)
	@touch $@

$(INSTALLED): $(DEMO)
	@echo "Installing what the tests need: about two minutes, once."
	@$(PIP_INSTALL) ".[dev]" | $(PROGRESS)
	@touch $@

$(OLDEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	sed '/^lint = /,$$d' pyproject.toml | grep -oE '"[a-z0-9-]+(\[[a-z]+\])?>=[0-9.]+' | \
		sed -E 's/"//; s/\[.*\]//; s/>=/==/' > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --constraint $(OLDEST)/constraints.txt --editable ".[tests]"
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) site runs lightning_logs build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
