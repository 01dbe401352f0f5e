"""Do the tests notice? Small faults, one at a time, in the modules that draws, weights, losses and masks come from.

    make mutants N=60 SEED=0

Each mutant changes one operator, comparison, number, truth value, branch or argument of one function, by the operators
of mutmut, in a copy of the package in a temporary folder. Then the tests that reach the changed line run, the quickest
first, and the doctests of its module. A mutant on which no test fails survives: a new test should kill it, or
equivalent_mutants.json say why nothing could. mutants.json keeps what every seed found.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import libcst as cst
import pytest
from mutmut.mutation import mutators

for name in ("torch", "pandas", "sklearn.mixture", "hypothesis", "pyro.ops.stats", "scipy.stats", "arviz_stats.base"):
    importlib.import_module(name)  # once, not for every mutant

ROOT = Path(__file__).parents[1]
MODULES = ("sampling", "objectives", "missing/mechanisms", "training/keep.py", "tilting/held_out.py")
MODULES += ("tilting/reweight.py",)
NEED_A_GPU = {"gpu_chains.py", "triton_chains.py", "captured.py"}
# Whole runs, pages and notebooks: a fault that only they would notice counts as a survivor.
TOO_LONG = {
    "workflow",
    "mnist",
    "notebooks",
    "processes",
    "settings",
    "startup",
    "layering",
    "types",
    "tables",
    "logs",
    "cli",
    "cli_missing",
}
TOO_LONG |= {"any_generator", "attribute_tilt", "bake", "data_tilt", "imputation", "toy", "precision", "ebm"}
LONGEST = 3  # seconds of a test
REPORT, EQUIVALENT = (ROOT / "benchmarks" / f"{name}.json" for name in ("mutants", "equivalent_mutants"))
# Of mutmut's operators, not those that write None or XX in a value's place.
UNUSED = {"operator_string", "operator_assignment", "operator_lambda", "operator_dict_arguments"}


def modules(folder: Path) -> list[Path]:
    """Paths of the modules to be mutated, relative to a copy of the repository."""
    named = [folder / "latentebm" / m for m in MODULES]
    found = [p for m in named for p in ([m] if m.is_file() else m.rglob("*.py"))]
    return sorted(p.relative_to(folder) for p in found if p.name not in NEED_A_GPU)


class Sites(cst.CSTVisitor):
    """Changes within functions; not in annotations, defaults, decorators or the words of an error."""

    def __init__(self) -> None:
        self.depth, self.found = 0, []

    def on_visit(self, node: cst.CSTNode) -> bool:
        words = isinstance(node, cst.Call) and cst.Module([]).code_for_node(node.func) in ("fail", "warnings.warn")
        if words or isinstance(node, cst.Raise | cst.Annotation | cst.Decorator | cst.Parameters | cst.FormattedString):
            return False
        self.depth += isinstance(node, cst.FunctionDef)
        for kind, operator in mutators.mutation_operators if self.depth else ():
            if isinstance(node, kind) and operator.__name__ not in UNUSED:
                self.found += [(node, changed) for changed in operator(node) if not _crashes(node, changed)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        self.depth -= isinstance(node, cst.FunctionDef)


def _crashes(node: cst.CSTNode, changed: cst.CSTNode) -> bool:
    """Whether a call gets None for an argument, or lacks one without a name: hardly any test could miss that."""
    if not isinstance(node, cst.Call):
        return False
    lost = [argument for argument in node.args if argument not in changed.args]
    return len(node.args) == len(changed.args) or any(argument.keyword is None for argument in lost)


def mutants(folder: Path, path: Path) -> Iterator[tuple[Path, str, Callable[[], str]]]:
    """Path, source and a function that writes the changed source, for each possible mutant of a module."""
    sites, source = Sites(), (folder / path).read_text(encoding="utf-8")
    module = cst.parse_module(source)
    module.visit(sites)
    for node, changed in sites.found:
        yield path, source, lambda node=node, changed=changed: module.deep_replace(node, changed).code


def difference(path: Path, source: str, code: str) -> str:
    """A mutant's name: its module, and the changed line before and after, wherever it stands."""
    lines = list(difflib.unified_diff(source.splitlines(), code.splitlines(), n=0, lineterm=""))[3:]
    before, after = (" ".join(x[1:].strip() for x in lines if x.startswith(sign)) for sign in "-+")
    return f"{path.relative_to('latentebm')}: {before} → {after}"


class Tests:
    """Which tests to ask about a module, the nearest, plainest and quickest first.

    A test is near a module where it, or what it calls in its own file, names something defined there; one further where
    it names something of a module that imports it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, {}
        self.imports = {p: set(_imported(folder, p).values()) for p in _sources(folder, "latentebm")}
        self.uses: dict[str, set[Path]] = {}
        for file in _sources(folder, "tests"):
            if file.name.startswith("test_") and file.stem[5:] not in TOO_LONG:
                self.uses |= _used_by_tests(folder, file)

    def of(self, module: Path) -> list[str]:
        """Names of tests at most two imports away."""
        near, far = {module: 0}, {module}
        for steps in (1, 2):
            far = {p for p, imported in self.imports.items() if imported & far and p not in near}
            near |= dict.fromkeys(far, steps)
        found = {test: min((near[p] for p in used if p in near), default=9) for test, used in self.uses.items()}
        order = sorted(
            (steps, len(self.uses[test]), self.seconds.get(test, 0.1), test)
            for test, steps in found.items()
            if steps < 9
        )
        return [test for *_, test in order]

    def outcome(self, module: Path, seconds: float) -> str:
        """What becomes of a mutant that lies in the folder; the times of its tests are remembered for the next."""
        code = run_tests(self.folder, seconds, str(module), *self.of(module))
        if (took := self.folder / "seconds.json").exists():
            self.seconds |= json.loads(took.read_text())
        return "endless" if code is None else "survived" if code in (0, 5) else "noticed"  # 5: it has no test


def _sources(folder: Path, name: str) -> list[Path]:
    return [p.relative_to(folder) for p in sorted((folder / name).rglob("*.py"))]


def _imported(folder: Path, path: Path) -> dict[str, Path]:
    """The modules of the package where the names that a file imports are defined."""
    found = {}
    for node in ast.walk(ast.parse((folder / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("latentebm"):
            for name in node.names:
                found[name.asname or name.name] = _defined(folder, Path(*node.module.split(".")), name.name)
    return found


def _defined(folder: Path, module: Path, name: str) -> Path:
    if (folder / module / f"{name}.py").exists():
        return module / f"{name}.py"
    if not (folder / module).is_dir():
        return module.with_suffix(".py")
    init = module / "__init__.py"
    return _imported(folder, init).get(name, init)


def _used_by_tests(folder: Path, file: Path) -> dict[str, set[Path]]:
    """The modules that each test of a file names, itself or by the file's functions, classes and tables."""
    named: dict[str, set[str]] = defaultdict(set)
    for node in ast.parse((folder / file).read_text(encoding="utf-8")).body:
        own = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for name in [node.name] if hasattr(node, "name") else own & {n.id for n in ast.walk(node) if _stored(n)}:
            named[name] |= own
    where = _imported(folder, file)
    return {
        f"{file}::{test}": {where[name] for name in _closure(test, named) if name in where}
        for test in named
        if test.startswith("test_")
    }


def _stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _closure(name: str, named: dict[str, set[str]]) -> set[str]:
    found, todo = set(), {name}
    while todo:
        found |= todo
        todo = {used for each in todo for used in named.get(each, ())} - found
    return found


def run_tests(folder: Path, seconds: float, *tests: str) -> int | None:
    """Exit code of tests in a fork of this process, which has imported torch; None if they did not end in time."""
    child = multiprocessing.get_context("fork").Process(target=_tests, args=(folder, seconds, tests))
    child.start()
    try:
        child.join(60 + 10 * seconds)
    finally:
        if child.exitcode is None:
            child.kill()
            child.join()
    return child.exitcode if child.exitcode >= 0 else None


def _tests(folder: Path, seconds: float, tests: tuple[str, ...]) -> None:
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    watch, settings = Watch(seconds), ("-W", "ignore::pytest.PytestAssertRewriteWarning")
    code = pytest.main(["-x", "-q", "--no-header", "--tb=no", *settings, *tests], plugins=[watch])
    write_json(folder / "seconds.json", watch.seconds)
    os._exit(code)


class Watch:
    """Processor seconds of each test; one that takes long, and all once the time is up, are left out."""

    def __init__(self, seconds: float) -> None:
        self.end, self.seconds = time.process_time() + seconds, defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._timed(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._timed(item))

    def _timed(self, item: pytest.Item) -> Iterator[None]:
        start, name = time.process_time(), item.nodeid.split("[")[0]
        if start > self.end or self.seconds[name] > LONGEST:
            pytest.skip("out of time")
        signal.signal(signal.SIGVTALRM, lambda *_: pytest.skip("too long"))
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self.seconds[name] += time.process_time() - start


def write_json(path: Path, content: object) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def copied(folder: Path) -> None:
    """What the tests need, in a folder of its own."""
    for name in ("latentebm", "tests", "conftest.py", "pyproject.toml"):
        old, new = ROOT / name, folder / name
        if old.is_dir():
            shutil.copytree(old, new, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(old, new)
    (folder / "data").symlink_to(ROOT / "data")


def main() -> None:
    """Print each survivor and keep how many were noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=15, help="of tests for one mutant")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copied(folder)
        tests = Tests(folder)
        possible = [mutant for path in modules(folder) for mutant in mutants(folder, path)]
        found: dict[str, list[str]] = {"noticed": [], "endless": [], "survived": []}
        for path, source, write in random.Random(asked.seed).sample(possible, min(asked.count, len(possible))):
            code = write()
            (folder / path).write_text(code, encoding="utf-8")
            found[what := tests.outcome(path, asked.seconds)].append(difference(path, source, code))
            (folder / path).write_text(source, encoding="utf-8")
            print(what, found[what][-1], flush=True)
    keep(asked.seed, len(possible), found)


def keep(seed: int, possible: int, found: dict[str, list[str]]) -> None:
    """Write what a seed found, survivors apart from those that are judged equivalent, and print the count."""
    reasons = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    equivalent = {name: reasons[name] for name in found["survived"] if name in reasons}
    survived = [name for name in found["survived"] if name not in reasons]
    report = json.loads(REPORT.read_text(encoding="utf-8")) if REPORT.exists() else {}
    kept = {"possible": possible, **found, "survived": survived, "equivalent": equivalent}
    write_json(REPORT, report | {str(seed): kept})
    ended = len(found["noticed"]) + len(found["endless"])
    print(f"{ended} of {ended + len(survived)} noticed, {len(equivalent)} equivalent")


if __name__ == "__main__":
    main()
