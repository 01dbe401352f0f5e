"""Do the tests notice? Small faults, one at a time, in the modules that draws, weights, losses and masks come from.

    make mutants N=60 SEED=0

Each mutant changes one operator, comparison, number, truth value, branch or argument of one function, by the operators
of mutmut, in a copy of the package in a temporary folder. Then the tests that reach the changed line run, the quickest
first, and the doctests of its module. A mutant on which no test fails survives: a new test should kill it, or
equivalent_mutants.json say why nothing could. mutants.json keeps what every seed found.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
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
from itertools import accumulate
from pathlib import Path

import coverage
import libcst as cst
import pytest
from coverage import CoverageData
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

for name in ("torch", "pandas", "sklearn.mixture", "hypothesis", "pyro.ops.stats", "scipy.stats", "arviz_stats.base"):
    importlib.import_module(name)  # once, not for every mutant

ROOT = Path(__file__).parents[1]
MODULES = ("sampling", "objectives", "missing/mechanisms", "training/keep.py", "tilting/held_out.py")
MODULES += ("tilting/reweight.py",)
NEED_A_GPU = {"gpu_chains.py", "triton_chains.py", "captured.py"}
# Whole runs, pages and notebooks: a fault that only they would notice counts as a survivor.
TOO_LONG = {"workflow", "mnist", "notebooks", "processes", "settings", "startup", "layering", "types", "tables", "logs"}
TOO_LONG |= {"any_generator", "attribute_tilt", "bake", "data_tilt", "imputation", "toy", "precision", "ebm"}
LONGEST = 1  # seconds of a test
REPORT, EQUIVALENT = (ROOT / "benchmarks" / f"{name}.json" for name in ("mutants", "equivalent_mutants"))
REACHED = ROOT / "build" / "tests_by_line.json"
# Of mutmut's operators, not those that write None or XX in a value's place.
UNUSED = {"operator_string", "operator_assignment", "operator_lambda", "operator_dict_arguments"}


def modules() -> list[Path]:
    """Paths of the modules to be mutated, relative to the repository."""
    named = [ROOT / "latentebm" / m for m in MODULES]
    found = [p for m in named for p in ([m] if m.is_file() else m.rglob("*.py"))]
    return sorted(p.relative_to(ROOT) for p in found if p.name not in NEED_A_GPU)


class Sites(cst.CSTVisitor):
    """Changes within functions, each with its lines; not in annotations, defaults, decorators or words of an error."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.depth, self.statement, self.line, self.found = 0, 0, 0, []

    def on_visit(self, node: cst.CSTNode) -> bool:
        words = isinstance(node, cst.Call) and cst.Module([]).code_for_node(node.func) in ("fail", "warnings.warn")
        if words or isinstance(node, cst.Raise | cst.Annotation | cst.Decorator | cst.Parameters | cst.FormattedString):
            return False
        self.depth += isinstance(node, cst.FunctionDef)
        place = self.get_metadata(PositionProvider, node, None)  # operators have none: theirs is the line before
        self.line = place.start.line if place else self.line
        self.statement = self.line if isinstance(node, cst.BaseStatement | cst.BaseSmallStatement) else self.statement
        for kind, operator in mutators.mutation_operators if self.depth else ():
            if isinstance(node, kind) and operator.__name__ not in UNUSED:
                lines = {self.statement, self.line}
                self.found += [(lines, node, changed) for changed in operator(node) if not _crashes(node, changed)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        self.depth -= isinstance(node, cst.FunctionDef)


def _crashes(node: cst.CSTNode, changed: cst.CSTNode) -> bool:
    """Whether a call gets None for an argument, or lacks one without a name: hardly any test could miss that."""
    if not isinstance(node, cst.Call):
        return False
    lost = [argument for argument in node.args if argument not in changed.args]
    return len(node.args) == len(changed.args) or any(argument.keyword is None for argument in lost)


def mutants(path: Path) -> Iterator[tuple[Path, set[int], Callable[[], str]]]:
    """Path, lines and a function that writes the changed module, for each possible mutant of a module."""
    sites = Sites()
    module = MetadataWrapper(cst.parse_module((ROOT / path).read_text(encoding="utf-8"))).visit(sites)
    for lines, node, changed in sites.found:
        yield path, lines, lambda node=node, changed=changed: module.deep_replace(node, changed).code


def difference(path: Path, code: str) -> str:
    """A mutant's name: its module, and the changed line before and after, wherever it stands."""
    old = (ROOT / path).read_text(encoding="utf-8").splitlines()
    lines = list(difflib.unified_diff(old, code.splitlines(), n=0, lineterm=""))[3:]
    before, after = (" ".join(x[1:].strip() for x in lines if x.startswith(sign)) for sign in "-+")
    return f"{path.relative_to('latentebm')}: {before} → {after}"


def tests_by_line(folder: Path) -> dict[str, dict]:
    """Seconds and lines reached of each test, by file; a file is run again when it or a mutated module changed."""
    known = json.loads(REACHED.read_text()) if REACHED.exists() else {}
    code = b"".join((ROOT / p).read_bytes() for p in modules())
    packages = {".".join(p.with_suffix("").parts[:-1]) for p in modules()} - {"latentebm.tilting", "latentebm.training"}
    names = packages | {f"{p.parts[1]}.{p.stem}" for p in modules()}
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if file.stem[5:] in TOO_LONG or not any(name in text for name in names):
            continue
        digest = hashlib.sha256(code + text.encode()).hexdigest()
        if known.get(file.name, {}).get("digest") != digest:
            print("which lines does", file.name, "reach?", flush=True)
            known[file.name] = {"digest": digest, "tests": _reached(folder, file.name)}
            write_json(REACHED, known)
    return known


def _reached(folder: Path, file: str) -> dict[str, dict]:
    """Seconds and lines by module of each test of a file that passes in time."""
    run_tests(folder, f"tests/{file}", lines=True)
    found = {k: {"seconds": v, "lines": {}} for k, v in json.loads((folder / "passed.json").read_text()).items()}
    measured = CoverageData(str(folder / "lines.db"))
    measured.read()
    for path in measured.measured_files():
        for line, contexts in measured.contexts_by_lineno(path).items():
            for name in {f"tests/{file}::{c.split('.')[-1]}" for c in contexts} & set(found):
                found[name]["lines"].setdefault(str(Path(path).relative_to(folder)), []).append(line)
    (folder / "lines.db").unlink(missing_ok=True)
    return found


def run_tests(folder: Path, *tests: str, lines: bool = False, seconds: float | None = None) -> int | None:
    """Exit code of tests in a fork of this process, which has imported torch; None if they did not end in time."""
    child = multiprocessing.get_context("fork").Process(target=_tests, args=(folder, tests, lines))
    child.start()
    try:
        child.join(seconds)
    finally:
        if child.exitcode is None:
            child.kill()
            child.join()
    return child.exitcode if child.exitcode >= 0 else None


def _tests(folder: Path, tests: tuple[str, ...], lines: bool) -> None:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    quiet = ("-q", "--no-header", "--tb=no", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    if not lines:
        os._exit(pytest.main(["-x", *quiet, *tests]))
    settings = folder / "coverage.ini"
    settings.write_text("[run]\ndynamic_context = test_function\n")
    only = [str(folder / p) for p in modules()]
    watch = Watch()
    with coverage.Coverage(data_file=folder / "lines.db", config_file=str(settings), include=only).collect():
        code = pytest.main([*quiet, *tests], plugins=[watch])
    passed = {k: v for k, v in watch.seconds.items() if "::test_" in k and k not in watch.failed}
    (folder / "passed.json").write_text(json.dumps(passed))
    os._exit(code)


class Watch:
    """Seconds of each test, its parameters' together, and those that failed; one that takes long is cut."""

    def __init__(self) -> None:
        self.seconds, self.failed = defaultdict(float), set()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.nodeid.split("[")[0] in self.failed:
            pytest.skip("with other parameters it took long")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        signal.signal(signal.SIGVTALRM, self.cut)
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
        start = time.process_time()
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self.seconds[item.nodeid.split("[")[0]] += time.process_time() - start

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid.split("[")[0])

    def cut(self, *_: object) -> None:
        raise TimeoutError(f"longer than {LONGEST} s")


def outcome(folder: Path, path: Path, lines: set[int], reached: dict[str, dict], seconds: float) -> str:
    """Whether a test fails on the mutant that lies in the folder, or takes far longer than it should."""
    tests = sorted(
        (test["seconds"], name)
        for kept in reached.values()
        for name, test in kept["tests"].items()
        if lines & set(test["lines"].get(str(path), ()))
    )
    totals = list(accumulate(second for second, _ in tests))
    quick = [name for (_, name), total in zip(tests, totals, strict=True) if total <= seconds]
    code = run_tests(folder, str(path), *quick, seconds=60 + 6 * seconds)
    return "endless" if code is None else "survived" if code in (0, 5) else "noticed"  # 5: it has no test


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
    parser.add_argument("--seconds", type=float, default=20, help="of tests for one mutant, the quickest first")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copied(folder)
        reached = tests_by_line(folder)
        possible = [mutant for path in modules() for mutant in mutants(path)]
        found: dict[str, list[str]] = {"noticed": [], "endless": [], "survived": []}
        drawn = random.Random(asked.seed).sample(possible, min(asked.count, len(possible)))
        if run_tests(folder, *{str(path) for path, *_ in drawn}):
            parser.exit(1, "the modules' doctests fail as they are: mend them first\n")
        for path, lines, write in drawn:
            code = write()
            (folder / path).write_text(code, encoding="utf-8")
            found[what := outcome(folder, path, lines, reached, asked.seconds)].append(difference(path, code))
            shutil.copy(ROOT / path, folder / path)
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
