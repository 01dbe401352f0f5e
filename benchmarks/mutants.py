"""Do the tests notice? Random small faults, one at a time, in the modules that numbers come from.

    make mutants            # python benchmarks/mutants.py --count 60 --seed 0

Each mutant changes one operator, comparison, constant, boolean, branch or sign of one module, and the tests that cover
the module are run against a copy of the package. A mutant that no test fails on survives; it is printed with its line,
to be killed by a new test or named as equivalent in EQUIVALENT. The outcome is kept in mutants.json.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The tests of each module, quickest first.
COVERED = {
    "sampling/importance/weights.py": ["test_weights_and_masks", "test_sampling_importance"],
    "sampling/importance/resampling.py": ["test_weights_and_masks", "test_sampling_importance"],
    "sampling/importance/rejection.py": ["test_sampling_importance"],
    "sampling/mcmc/kernels.py": ["test_sampling_chains"],
    "sampling/mcmc/moves.py": ["test_sampling_chains"],
    "objectives/contrast.py": ["test_objectives"],
    "objectives/tilt_losses.py": ["test_objectives"],
    "objectives/score_matching.py": ["test_score_matching"],
    "missing/mechanisms/masks.py": ["test_weights_and_masks", "test_mnar"],
    "training/keep.py": ["test_weights_and_masks", "test_training"],
    "tilting/reweight.py": ["test_start"],
}
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def mutations(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Line, what changes, and the changed module, for every small change outside docstrings, types and messages."""
    skipped = {id(n) for f in ast.walk(tree) for n in _unseen(f)}
    nodes = [n for n in ast.walk(tree) if id(n) not in skipped]
    for i, node in enumerate(nodes):
        for what, change in _changes(node):
            other = copy.deepcopy(tree)
            change(_same(tree, other, node))
            yield getattr(node, "lineno", 0), f"{i} {what}", other


def _unseen(node: ast.AST) -> Iterator[ast.AST]:
    """Parts that no test of numbers need see: annotations, decorators, and calls that word an error."""
    if isinstance(node, ast.FunctionDef):
        for part in (node.returns, *(a.annotation for a in [*node.args.args, *node.args.kwonlyargs])):
            yield from ast.walk(part) if part is not None else ()
    if isinstance(node, ast.AnnAssign):
        yield from ast.walk(node.annotation)
    if isinstance(node, ast.Raise | ast.JoinedStr):
        yield from ast.walk(node)


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
        yield f"{type(node.op).__name__} swapped", lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield f"{type(node.ops[0]).__name__} swapped", lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())
    if isinstance(node, ast.BoolOp):
        yield f"{type(node.op).__name__} swapped", lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} negated", lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"{node.value} + 1", lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.If | ast.IfExp):
        yield "branch negated", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign dropped", lambda n: setattr(n, "op", ast.UAdd())


def _same(tree: ast.AST, other: ast.AST, node: ast.AST) -> ast.AST:
    return next(b for a, b in zip(ast.walk(tree), ast.walk(other), strict=True) if a is node)


def killed(module: str, source: str, seconds: float) -> bool:
    """Whether the module's tests fail on a mutant; one that never ends is killed, too."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("latentebm", "tests", "data", "pyproject.toml"):
            copied = Path(folder) / name
            shutil.copytree(ROOT / name, copied) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, copied)
        (Path(folder) / "latentebm" / module).write_text(source, encoding="utf-8")
        tests = [f"tests/{test}.py" for test in COVERED[module] if (ROOT / "tests" / f"{test}.py").exists()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        places = {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, **places}, capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return True
        return done.returncode != 0


def main() -> None:
    """Print each survivor, and write how many of the mutants were killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="*", default=list(COVERED))
    parser.add_argument("--seconds", type=float, default=600)
    asked = parser.parse_args()
    every = [
        (module, *found)
        for module in asked.modules
        for found in mutations(ast.parse((ROOT / "latentebm" / module).read_text(encoding="utf-8")))
    ]
    outcome: dict[str, list[str]] = {"killed": [], "survived": []}
    for module, line, what, tree in random.Random(asked.seed).sample(every, min(asked.count, len(every))):
        dead = killed(module, ast.unparse(ast.fix_missing_locations(tree)), asked.seconds)
        outcome["killed" if dead else "survived"].append(f"{module}:{line} {what}")
        print("killed  " if dead else "SURVIVED", f"{module}:{line} {what}", flush=True)
        report = {"seed": asked.seed, "of": len(every), **outcome}
        (ROOT / "benchmarks" / "mutants.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{len(outcome['killed'])} of {sum(map(len, outcome.values()))} killed")


if __name__ == "__main__":
    main()
