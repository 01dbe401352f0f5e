PYTHON ?= python3
BIN := .venv/bin
SDIST_TESTS := tests/test_data.py tests/test_layering.py tests/test_settings.py tests/test_wheel.py tests/test_docs.py

.PHONY: debias test lint docs notebooks bench mutants dist pythons clean

debias: .venv/installed
	$(BIN)/latentebm debias --out runs/debias --overwrite

# Two workers of one thread each: two threads a worker would wait for each other more than they work.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-test
	$(BIN)/python benchmarks/debias.py

# Small faults, one at a time: do the tests notice? CONTRIBUTING.md tells what was found.
mutants: N ?= 60
mutants: SEED ?= 0
mutants: .venv/installed-mutants
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py --count $(N) --seed $(SEED)

# Without a network, and with every warning an error; the page to open is build/site/index.html.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: .venv/installed-notebooks
	$(BIN)/python notebooks/execute.py

# What a release publishes, the package's and the data's; then part of the suite runs from the unpacked source archive.
dist: .venv/installed-test
	rm -rf build/dist build/sdist
	$(BIN)/python -m build --outdir build/dist .
	$(BIN)/python -m build --outdir build/dist data
	mkdir build/sdist && tar -xzf build/dist/latentebm-*.tar.gz -C build/sdist --strip-components 1
	cd build/sdist && PYTHONPATH=. $(abspath $(BIN))/python -m pytest -q $(SDIST_TESTS)

# Whether every Python that is declared finds wheels of all that the package needs.
pythons: .venv/bin/python
	for version in 3.10 3.11 3.12 3.13; do $(BIN)/python -m pip install --quiet --dry-run --ignore-installed \
	  --python-version $$version --only-binary=:all: --target build/none . && echo "Python $$version resolves" || exit 1; done

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

.venv/installed-mutants: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[mutants]"
	touch $@

.venv/installed-docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

.venv/installed-notebooks: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[notebooks]"
	touch $@

clean:
	rm -rf .venv runs build dist .mypy_cache .ruff_cache
