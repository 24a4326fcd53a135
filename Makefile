PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
OLDEST := .venv-oldest
EMPTY := build/empty

.PHONY: demo test test-long test-oldest lint docs browser benchmark dist lock clean

# Train a small network on real photographs and picture its first layer.
demo: $(INSTALLED)
	$(BIN)/kernelviz demo

# Two workers; a file's tests stay together, because they share what the file prepares.
PYTEST_OPTIONS := -n 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED) lint browser
	$(BIN)/pytest $(PYTEST_OPTIONS) -m "not long"

# The long drills, and the tests of several processes with a new interpreter for each process.
test-long: $(INSTALLED) browser
	FRESH_PROCESSES=1 $(BIN)/pytest $(PYTEST_OPTIONS) -m "long or processes"

# The tests of pages look at them in Chromium; without it they are skipped.
browser:
	@command -v chromium > /dev/null || \
		(echo "Installing Chromium." && apt-get update -qq && apt-get install -qq chromium) \
		> /dev/null 2>&1 || echo "Chromium could not be installed: tests of pages are skipped."

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
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
	$(BIN)/python benchmarks/feature_maps.py

# The tests outside the browser, with the oldest versions that pyproject.toml allows users to have.
# These meet the newest of what they import themselves, whose warnings tell nothing of this package.
test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/pytest $(PYTEST_OPTIONS) \
		-m "not browser and not newest and not long" -o filterwarnings=default

# The sdist, the wheel and the list of all that comes along with it, in dist/. They are checked, and
# tried where nothing else was installed.
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

# The versions that .ci/run tests with: those that are installed now.
lock: $(INSTALLED)
	$(BIN)/pip freeze --exclude-editable > .ci/constraints.txt

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Installing torch and the rest: some minutes, once."
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

$(OLDEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	sed '/^dev = /,$$d' pyproject.toml | grep -oE '"[a-z-]+(\[[a-z]+\])?>=[0-9.]+' | \
		sed -E 's/"//; s/\[.*\]//; s/>=/==/' > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --constraint $(OLDEST)/constraints.txt --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) site runs lightning_logs build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
