"""Imports go downwards only; the table is CONTRIBUTING.md's."""

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
    "objectives": set(),
    "models": set(),
    "sampling": {"objectives"},
    "plots": set(),
    "report": {"sampling", "plots"},
    "settings": {"models", "sampling", "tilting"},  # their types alone, not at run time
    "training": {"data", "models"},
    "ebm": {"data", "models", "objectives", "sampling", "training"},
    "adapters": {"models"},
    "tilting": {"models", "objectives", "sampling", "training", "ebm"},
    "missing": {"data", "models", "sampling", "training", "tilting", "plots", "report"},
    "tables": {"data", "models", "sampling", "training", "tilting", "report", "plots"},
    "evaluation": {"data", "models", "sampling", "training"},
    "choices": {"data", "models", "sampling", "training", "tilting", "settings"},
    "vae_sources": {"data", "models", "training", "tilting", "settings"},
    "debiaser": {
        "data",
        "models",
        "objectives",
        "sampling",
        "training",
        "tilting",
        "settings",
        "choices",
        "vae_sources",
    },
    "workflow": {
        "data",
        "models",
        "sampling",
        "training",
        "tilting",
        "evaluation",
        "plots",
        "report",
        "settings",
        "debiaser",
    },
    "studies": {"data", "evaluation", "plots", "report", "settings", "training", "debiaser", "workflow"},
    "cli": {"data", "training", "missing", "tables", "report", "settings", "debiaser", "workflow", "studies"},
}
GROUND = {
    "checks",
    "chunks",
    "devices",
    "disk",
    "files",
    "gradients",
    "processes",
    "progress",
    "registry",
    "rng",
}
GROUND |= {"_version"}
MOST_MODULES = 14


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
    if layer in ("__init__", "__main__"):
        return
    assert upward(layer, path.read_text(encoding="utf-8")) == set()


def test_an_upward_import_is_caught():
    assert upward("sampling", "from latentebm.workflow.run import debias\n") == {"workflow"}
    assert upward("models", "import latentebm.sampling\n") == {"sampling"}


def test_no_folder_is_crowded_and_no_name_is_used_twice():
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    crowded = {
        str(p.parent.relative_to(PACKAGE)) for p in modules if len(list(p.parent.glob("*.py"))) - 1 > MOST_MODULES
    }
    names = [path.stem for path in modules]
    assert (crowded, sorted({n for n in names if names.count(n) > 1})) == (set(), [])


def test_the_guide_for_contributors_prints_the_table():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for layer, below in ALLOWED.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{layer}`"))
        assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == below


def test_every_public_name_resolves():
    import latentebm

    for name in latentebm.__all__:
        assert getattr(latentebm, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = latentebm.nonsense
