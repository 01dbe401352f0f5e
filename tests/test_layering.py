"""Imports go downwards only; the table is the README's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "latentebm"
# What each layer may import of the package, besides itself and the ground below.
ALLOWED = {
    "data": set(),
    "models": set(),
    "sampling": set(),
    "objectives": set(),
    "training": {"data", "models", "sampling", "objectives"},
    "imputation": {"data", "models", "objectives", "training"},
    "evaluation": {"data", "models", "sampling", "objectives", "training"},
    "plots": set(),
    "report": set(),
    "workflow": {"data", "models", "sampling", "objectives", "training", "evaluation", "plots", "report"},
    "cli_missing": {"data", "imputation", "report"},
    "cli_plan": {"workflow"},
    "cli": {"workflow", "report", "cli_missing", "cli_plan"},
}
GROUND = {"checks", "files", "perceptrons", "progress", "_version"}


def imported(text: str) -> set[str]:
    """Second-level names of every latentebm import in a module, docstring examples left out."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {m.group(1) for name in names if (m := re.match(r"latentebm\.(\w+)", name))}
    return found


def upward(layer: str, text: str) -> set[str]:
    return imported(text) - ALLOWED.get(layer, set()) - GROUND - {layer}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    assert upward(layer, path.read_text(encoding="utf-8")) == set()


def test_an_upward_import_is_caught():
    assert upward("sampling", "from latentebm.workflow.run import debias\n") == {"workflow"}
    assert upward("models", "import latentebm.sampling\n") == {"sampling"}


def test_the_readme_prints_the_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for layer, below in ALLOWED.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{layer}`"))
        assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == below


def test_every_public_name_resolves():
    import latentebm

    for name in latentebm.__all__:
        assert getattr(latentebm, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = latentebm.nonsense
