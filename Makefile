PYTHON ?= python3
BIN := .venv/bin

.PHONY: debias test lint docs notebooks bench clean

debias: .venv/installed
	$(BIN)/latentebm debias --out runs/debias --overwrite

# Two workers of one thread each: two threads a worker would wait for each other more than they work.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-test
	$(BIN)/python benchmarks/debias.py

# Without a network, and with every warning an error; the page to open is build/site/index.html.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: .venv/installed-notebooks
	$(BIN)/python notebooks/execute.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

.venv/installed-docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

.venv/installed-notebooks: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[notebooks]"
	touch $@

clean:
	rm -rf .venv runs build dist .mypy_cache .ruff_cache
