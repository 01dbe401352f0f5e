"""Do the tests notice? Small faults, one at a time, in the modules that draws, weights, losses and masks come from.

    make mutants N=60 SEED=0
    python benchmarks/mutants.py --every sampling/mcmc   # all that are possible there; --again: those that survived

Each mutant changes one operator, comparison, number, truth value, branch or argument of one function, by the operators
of mutmut. First every test runs once, to learn its time and the lines it reaches. Then a fork of this process, where
all is imported, takes the changed function in the place of the right one and runs the tests that reach the changed
statement, the quickest first. A mutant on which no test fails survives: a new test should kill it, or
equivalent_mutants.json say why nothing could. mutants.json keeps what every seed found.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import coverage
import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("sampling", "objectives", "missing/mechanisms", "training/keep.py", "tilting/held_out.py")
MODULES += ("tilting/clusters/reweight.py",)
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
TOO_LONG |= {"sampling_jem", "plan", "tilt_run"}
LONGEST = 3  # processor seconds of a test
MOST_MEMORY = 6 << 30  # bytes that a mutant may ask for
REPORT, EQUIVALENT = (ROOT / "benchmarks" / f"{name}.json" for name in ("mutants", "equivalent_mutants"))
REACH, EVERY = (ROOT / "build" / f"{name}.json" for name in ("reach", "every_mutant"))
# Of mutmut's operators, not those that write None or XX in a value's place.
UNUSED = {"operator_string", "operator_assignment", "operator_lambda", "operator_dict_arguments"}
# Arguments that no number hangs on, on a processor: where a tensor lies, an error's words, a check of equal lengths.
UNSEEN = {"device", "pin_memory", "non_blocking", "fix", "strict"}


class Mutant(NamedTuple):
    """One changed place of a module."""

    path: Path
    line: int
    source: str
    write: Callable[[], str]

    @property
    def name(self) -> str:
        """The module, and the changed line before and after, wherever it stands."""
        lines = list(difflib.unified_diff(self.source.splitlines(), self.write().splitlines(), n=0, lineterm=""))[3:]
        before, after = (" ".join(x[1:].strip() for x in lines if x.startswith(sign)) for sign in "-+")
        return f"{self.path.relative_to(ROOT / 'latentebm')}: {before} → {after}"


def modules() -> list[Path]:
    """The modules to be mutated."""
    named = [ROOT / "latentebm" / m for m in MODULES]
    found = [p for m in named for p in ([m] if m.is_file() else m.rglob("*.py"))]
    return sorted(p for p in found if p.name not in NEED_A_GPU)


def _about(test: Path) -> bool:
    """Whether a file of tests names one of the modules, or a folder of them."""
    names = [f"latentebm.{m.removesuffix('.py').replace('/', '.')}" for m in MODULES]
    return any(name in test.read_text(encoding="utf-8") for name in names)


class Sites(cst.CSTVisitor):
    """Changes within functions; not in annotations, defaults, decorators or the words of an error.

    Nor in arguments that no number hangs on.
    """

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.found = 0, []

    def on_visit(self, node: cst.CSTNode) -> bool:
        words = isinstance(node, cst.Call) and cst.Module([]).code_for_node(node.func) in ("fail", "warnings.warn")
        words = words or (isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value in UNSEEN)
        if words or isinstance(node, cst.Raise | cst.Annotation | cst.Decorator | cst.Parameters | cst.FormattedString):
            return False
        self.depth += isinstance(node, cst.FunctionDef)
        for kind, operator in mutators.mutation_operators if self.depth else ():
            if isinstance(node, kind) and operator.__name__ not in UNUSED:
                line = self.get_metadata(PositionProvider, node).start.line
                self.found += [(node, line, changed) for changed in operator(node) if not _crashes(node, changed)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        self.depth -= isinstance(node, cst.FunctionDef)


def _crashes(node: cst.CSTNode, changed: cst.CSTNode) -> bool:
    """Whether a call gets None for an argument, or lacks one without a name, or one that no number hangs on here."""
    if not isinstance(node, cst.Call) or not isinstance(changed, cst.Call):
        return False
    lost = [argument for argument in node.args if argument not in changed.args]
    return len(node.args) == len(changed.args) or any(a.keyword is None or a.keyword.value in UNSEEN for a in lost)


def mutants(path: Path) -> Iterator[Mutant]:
    """Each possible mutant of a module."""
    sites, source = Sites(), path.read_text(encoding="utf-8")
    module = cst.parse_module(source)
    MetadataWrapper(module, unsafe_skip_copy=True).visit(sites)
    for node, line, changed in sites.found:
        yield Mutant(path, line, source, lambda node=node, changed=changed: module.deep_replace(node, changed).code)


def statements(source: str) -> dict[int, list[str]]:
    """For the line of a function, all lines of its statement, each as its function and the number within that."""
    tree, named, found = ast.parse(source), {}, {}
    for name, node in _functions(tree, ""):
        named |= {line: f"{name}+{line - node.lineno}" for line in range(node.lineno, node.end_lineno + 1)}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            lines = range(node.lineno, max(node.lineno, body[0].lineno - 1 if body else node.end_lineno) + 1)
            found |= {key: [named[line] for line in lines if line in named] for key in lines}
    return found


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef | ast.If | ast.With | ast.Try):
            yield from _functions(child, f"{prefix}{getattr(child, 'name', '')}.")


def plant(mutant: Mutant, living: dict[str, list[FunctionType]]) -> None:
    """Give the functions of a module the code of the mutant."""
    code = {(c.co_name, c.co_firstlineno): c for c in _codes(compile(mutant.write(), str(mutant.path), "exec"))}
    for function in living[str(mutant.path)]:
        old = function.__code__
        if (new := code.get((old.co_name, old.co_firstlineno), old)) != old:
            function.__code__ = new


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def functions() -> dict[str, list[FunctionType]]:
    """All functions that exist, by the file where they are written."""
    found = defaultdict(list)
    for each in gc.get_objects():
        if type(each) is FunctionType:  # isinstance would wake proxies
            found[each.__code__.co_filename].append(each)
    return found


def in_fork(work: Callable[[Callable[[Any], None]], None], seconds: float) -> Any:
    """What work sends before it ends, in a fork of this process; None where nothing came in time."""
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_forked, args=(work, there))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(seconds) else None
    except EOFError:
        return None
    finally:
        child.kill()
        child.join()
        here.close()


def _forked(work: Callable[[Callable[[Any], None]], None], connection: Connection) -> None:
    def end(result: Any) -> None:
        connection.send(result)
        os._exit(0)

    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    work(end)


class Tests:
    """The collected tests, what each takes and reaches, and what becomes of mutants; a plugin of pytest."""

    def __init__(self, then: Callable[[Tests], None]) -> None:
        self.then, self.sound, self.failed = then, {}, lambda report: None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.living = functions()
        gc.freeze()
        self.then(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed(report)

    def measure(self, fresh: bool) -> None:
        """Seconds and reached lines of each test that passes; only files that changed are asked again."""
        known = json.loads(REACH.read_text()) if REACH.exists() and not fresh else {}
        files = defaultdict(list)
        for item in self.items.values():
            files[str(item.path.relative_to(ROOT))].append(item)
        for file, items in files.items():
            key = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
            if known.get(file, {}).get("key") != key:
                known[file] = {
                    "key": key,
                    "tests": in_fork(lambda end, items=items: self._reach(items, end), 600) or {},
                }
                print(f"{file}: {sum(t['seconds'] for t in known[file]['tests'].values()):.1f} s", flush=True)
                write_json(REACH, known)
        self.of: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for name, test in ((n, t) for file in files for n, t in known[file]["tests"].items() if n in self.items):
            for place in test["lines"]:
                self.of[place].append((test["seconds"], name))

    def _reach(self, items: list[pytest.Item], end: Callable[[Any], None]) -> None:
        found, bad = {}, set()
        watch = coverage.Coverage(data_file=None, config_file=False, include=[str(p) for p in modules()])
        self.failed = lambda report: bad.add(report.nodeid)
        signal.signal(signal.SIGVTALRM, lambda *_: pytest.skip("too long"))
        watch.start()
        for item, after in zip(items, [*items[1:], None], strict=True):
            watch.switch_context(item.nodeid)
            start = time.process_time()
            signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            found[item.nodeid] = {"seconds": round(time.process_time() - start, 3), "lines": []}
        watch.stop()
        data = watch.get_data()
        for path in modules():
            named = statements(path.read_text(encoding="utf-8"))
            for line, tests in data.contexts_by_lineno(str(path)).items():
                for name in set(tests) & set(found) if line in named else ():
                    found[name]["lines"] += [f"{path.relative_to(ROOT)}:{place}" for place in named[line]]
        end({name: {**test, "lines": sorted(set(test["lines"]))} for name, test in found.items() if name not in bad})

    def reaching(self, mutant: Mutant) -> list[tuple[float, str]]:
        """Seconds and names of the tests that run the changed statement, the quickest first."""
        places = statements(mutant.source).get(mutant.line, [])
        return sorted({test for place in places for test in self.of[f"{mutant.path.relative_to(ROOT)}:{place}"]})

    def outcome(self, mutant: Mutant, seconds: float) -> tuple[str, str]:
        """What becomes of a mutant, and the test that noticed it."""
        tests, total, chosen = self.reaching(mutant), 0.0, []
        for took, name in tests:
            if self.sound.get(name, True) and (total := total + took) - took <= seconds:
                chosen.append((took, name))
        what, name = self._ask(chosen, mutant)
        if what == "noticed" and name not in self.sound:
            self.sound[name] = self._ask([(LONGEST, name)], None)[0] == "survived"
            if not self.sound[name]:  # it fails on its own, without a fault
                return self.outcome(mutant, seconds)
        return what, name

    def _ask(self, tests: list[tuple[float, str]], mutant: Mutant | None) -> tuple[str, str]:
        result = in_fork(lambda end: self._run(tests, mutant, end), 300) if tests else ("survived", "")
        return result or ("endless", "")

    def _run(self, tests: list[tuple[float, str]], mutant: Mutant | None, end: Callable[[Any], None]) -> None:
        def late(number: int, frame: FrameType | None) -> None:
            end(("endless", ""))

        if mutant is not None:
            plant(mutant, self.living)
        self.failed = lambda report: end(("noticed", report.nodeid)) if report.failed else None
        signal.signal(signal.SIGVTALRM, late)
        for (took, name), after in zip(tests, [*tests[1:], None], strict=True):
            signal.setitimer(signal.ITIMER_VIRTUAL, 10 + 10 * took)
            following = self.items[after[1]] if after else None
            self.items[name].config.hook.pytest_runtest_protocol(item=self.items[name], nextitem=following)
        end(("survived", ""))


def write_json(path: Path, content: object) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def sample(tests: Tests, asked: argparse.Namespace) -> None:
    """Print what becomes of mutants drawn at random from all modules, and keep how many were noticed."""
    possible = [mutant for path in modules() for mutant in mutants(path)]
    found: dict[str, list[str]] = {"noticed": [], "endless": [], "survived": []}
    for mutant in random.Random(asked.seed).sample(possible, min(asked.count or 60, len(possible))):
        what, _ = tests.outcome(mutant, asked.seconds)
        found[what].append(mutant.name)
        print(what, mutant.name, flush=True)
    keep(asked.seed, len(possible), found)


def every(tests: Tests, asked: argparse.Namespace) -> None:
    """Print the survivors of all mutants of the modules asked for, and keep what became of each."""
    known = json.loads(EVERY.read_text()) if EVERY.exists() else {}
    reasons = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    paths = [p for p in modules() if any(str(p.relative_to(ROOT / "latentebm")).startswith(m) for m in asked.every)]
    names, possible = defaultdict(int), [mutant for path in paths for mutant in mutants(path)]
    for mutant in random.Random(asked.seed).sample(possible, min(asked.count or len(possible), len(possible))):
        name = mutant.name
        names[name] += 1
        name += f" #{names[name]}" if names[name] > 1 else ""
        if asked.again and known.get(name, "survived") != "survived":
            continue
        known[name], _ = tests.outcome(mutant, asked.seconds)
        if known[name] == "survived" and mutant.name not in reasons:
            print(f"{mutant.line} [{len(tests.reaching(mutant))}] {name}", flush=True)
        write_json(EVERY, known)
    print(f"{len(names)} asked")


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


def main() -> None:
    """Collect the tests, and ask them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=15, help="of tests for one mutant")
    parser.add_argument("--every", nargs="+", metavar="MODULE", help="all mutants of these, instead of a sample")
    parser.add_argument("--again", action="store_true", help="of them, those that survived last time")
    parser.add_argument("--fresh", action="store_true", help="learn again what every test reaches")
    asked = parser.parse_args()
    sys.dont_write_bytecode = True
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))

    def ask(tests: Tests) -> None:
        tests.measure(asked.fresh)
        (every if asked.every else sample)(tests, asked)

    files = [str(p) for p in (ROOT / "tests").glob("test_*.py") if p.stem[5:] not in TOO_LONG and _about(p)]
    settings = ("-s", "-q", "--no-header", "--tb=no", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    sys.exit(pytest.main([*settings, *sorted(files), *map(str, modules())], plugins=[Tests(ask)]))


if __name__ == "__main__":
    main()
