"""Execute notebooks from top to bottom and stamp them with the code they ran on.

``python notebooks/execute.py`` runs all of them, ``python notebooks/execute.py 2d mnar`` some,
``--stale`` those whose code has changed since, ``--check`` only names these.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

import latentebm
from latentebm.files import write_atomic

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
PACKAGE = "latentebm"
TIMEOUT = 600  # seconds a notebook, far above the four minutes that each is meant to take at most


def notebooks() -> list[Path]:
    """Every notebook of the folder, by name."""
    return sorted(FOLDER.glob("*.ipynb"))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_of(notebook: NotebookNode) -> str:
    """Python of a notebook's code cells, magics left out."""
    lines = "\n".join(cell.source for cell in code_cells(notebook)).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def run(notebook: NotebookNode, *, fast: bool = False) -> NotebookNode:
    """Execute a copy of a notebook in a fresh kernel of one thread; any error in a cell is raised.

    One thread makes the outputs the same whatever the number of cores. The settings folder of
    IPython is an empty one, so that nobody's own start-up files take part.
    """
    copy = nbformat.from_dict(_bare(notebook))
    with tempfile.TemporaryDirectory() as settings:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "OMP_NUM_THREADS": "1",
            "IPYTHONDIR": settings,
            "LATENTEBM_FAST": "1" if fast else "",
        }
        where = {"metadata": {"path": str(FOLDER)}}
        # Errors of the kernel itself still show; its warning that local sockets are not
        # encrypted does not.
        quiet = ["--log-level=40"]
        options = {
            "timeout": TIMEOUT,
            "startup_timeout": TIMEOUT,
            "kernel_name": "python3",
            "record_timing": False,
        }
        client = NotebookClient(copy, resources=where, extra_arguments=quiet, **options)
        # An event loop of its own, closed at the end: nbclient would leave one open in
        # every thread.
        asyncio.run(client.async_execute(env=environment))
    copy.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    copy.metadata["language_info"] = {"name": "python"}
    return copy


def _bare(notebook: NotebookNode) -> dict[str, Any]:
    """The notebook without outputs, counts and cell metadata."""
    cells = [{**cell, "metadata": {}} for cell in notebook.cells]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return {**notebook, "cells": cells, "metadata": {}}


def stamp(notebook: NotebookNode) -> dict[str, Any]:
    """Digests of the notebook's cells and of every module that they import, by any way."""
    modules = {name: _digest(_substance(name)) for name in sorted(_reach(code_of(notebook)))}
    return {
        "cells": _digest("\0".join(cell.source for cell in code_cells(notebook))),
        "modules": modules,
    }


def changes(notebook: NotebookNode) -> list[str]:
    """What differs from when the notebook ran: ``its cells``, or names of modules."""
    then, now = notebook.metadata.get(PACKAGE, {}), stamp(notebook)
    cells = [] if then.get("cells") == now["cells"] else ["its cells"]
    old, new = then.get("modules", {}), now["modules"]
    return cells + sorted(
        name for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _substance(module: str) -> str:
    """Source of a module without docstrings, comments and blank lines: they change no output."""
    text = _source(module).read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    drop: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            drop.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = [line for number, line in enumerate(text.splitlines(), 1) if number not in drop]
    return "\n".join(line for line in lines if line.strip() and not line.strip().startswith("#"))


def _reach(code: str) -> set[str]:
    """Modules of the package that `code` imports, directly or through others."""
    found: set[str] = set()
    todo = list(_imported(code))
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo += _imported(_source(module).read_text(encoding="utf-8"))
    return found


def _imported(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            yield from (_home(node.module or "", alias.name) for alias in node.names)


def _home(module: str, name: str) -> str:
    """Module that defines `name`: a list of names is followed, so that its rest does not count."""
    if _source(f"{module}.{name}").is_file():
        return f"{module}.{name}"
    if module == PACKAGE:
        return _home(latentebm._HOME[name], name) if name in latentebm._HOME else PACKAGE
    if _source(module).name == "__init__.py":
        for node in ast.walk(ast.parse(_source(module).read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and name in {alias.name for alias in node.names}
            ):
                return _home(node.module, name)
    return module


def execute(path: Path) -> float:
    """Execute a notebook in place and stamp it; returns the seconds it took."""
    started = time.perf_counter()
    done = run(nbformat.read(path, as_version=4))
    done.metadata[PACKAGE] = stamp(done)
    write_atomic(path, lambda p: p.write_text(nbformat.writes(done) + "\n", encoding="utf-8"))
    return time.perf_counter() - started


def main() -> int:
    """Execute the notebooks named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="notebooks, such as 2d-small; none for all")
    parser.add_argument(
        "--stale", action="store_true", help="only those whose code has changed since they ran"
    )
    parser.add_argument(
        "--check", action="store_true", help="execute nothing; name the stale ones and exit with 1"
    )
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="notebooks at once"
    )
    options = parser.parse_args()
    paths = [FOLDER / f"{name}.ipynb" for name in options.names] or notebooks()
    if missing := [path.stem for path in paths if not path.is_file()]:
        parser.error(
            f"names: expected some of {', '.join(p.stem for p in notebooks())}, "
            f"got {', '.join(missing)}"
        )
    if options.stale or options.check:
        paths = [path for path in paths if changes(nbformat.read(path, as_version=4))]
    if options.check:
        for path in paths:
            changed = ", ".join(changes(nbformat.read(path, as_version=4)))
            print(f"{path.stem}: changed since: {changed}")
        return 1 if paths else 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for path, seconds in zip(paths, pool.map(execute, paths), strict=True):
            print(f"{path.stem}: {seconds:.0f} s, {path.stat().st_size / 1e6:.2f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
