"""The notebooks: their committed outputs are sound and current, and they run, shortened, without a word on stderr."""

from __future__ import annotations

import ast
import importlib
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from notebooks.execute import FOLDER, PACKAGE, changes, code_cells, code_of, notebooks, run, stamp

SCREEN = 45  # lines of code that a screen shows
APART = {
    "faces",
    "diffusion",
}  # one needs a network, both decode for minutes: their outputs are checked, not made again
ALWAYS = {"lmc-1d", "mnar", "tables"}  # quick; the others run where the code is newer than their outputs
every_notebook = pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
light_notebook = pytest.mark.parametrize("path", [p for p in notebooks() if p.stem not in APART], ids=lambda p: p.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def figures(notebook) -> list[int]:
    """Images in the outputs of each code cell."""
    return [sum("image/png" in o.get("data", {}) for o in cell.outputs) for cell in code_cells(notebook)]


def noise(notebook) -> list[str]:
    """What was written to stderr, and errors."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [
        str(o.get("text", o.get("ename"))) for o in outputs if o.output_type == "error" or o.get("name") == "stderr"
    ]


def wordless(notebook) -> list[int]:
    """Places of cells with a figure that no words follow."""
    kinds = [cell.cell_type for cell in notebook.cells] + ["none"]
    shown = [
        i for i, c in enumerate(notebook.cells) if any("image/png" in o.get("data", {}) for o in c.get("outputs", []))
    ]
    return [i for i in shown if kinds[i + 1] != "markdown"]


def private(code: str) -> list[str]:
    """Names that a notebook imports from the package although no module lists them as public."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            module = importlib.import_module(node.module)
            public = set(getattr(module, "__all__", [])) | {"plots"}
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public]
    return found


@every_notebook
def test_committed_outputs_are_sound(path):
    notebook = read(path)
    assert path.stat().st_size < 2e6
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert noise(notebook) == []
    assert sum(figures(notebook)) > 0
    assert wordless(notebook) == []
    assert private(code_of(notebook)) == []
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= SCREEN
    assert str(FOLDER.parent) not in nbformat.writes(notebook)


@every_notebook
def test_committed_outputs_are_current(path):
    """Outputs of other cells are false and fail; those of an older package are named, with the command that mends."""
    changed = changes(read(path))
    assert "its cells" not in changed, f"run: python notebooks/execute.py {path.stem}"
    if changed:
        pytest.skip(f"older than {', '.join(changed)}; to refresh it: python notebooks/execute.py {path.stem}")


@pytest.fixture(scope="module")
def shortened(request):
    """Shortened runs of the notebooks that need one, two at a time: they are the costliest part of the suite."""
    items = [item for item in request.session.items if getattr(item, "originalname", "") == "test_it_runs_shortened"]
    chosen = [item.callspec.params["path"] for item in items]
    chosen = [path for path in chosen if path.stem in ALWAYS or changes(read(path))]
    with ThreadPoolExecutor(2) as pool:
        yield {path: pool.submit(run, read(path), fast=True) for path in chosen}


@light_notebook
def test_it_runs_shortened(path, shortened):
    if path not in shortened:
        pytest.skip("its outputs were made by the code as it is")
    committed, again = read(path), shortened[path].result()
    assert noise(again) == []
    assert figures(again) == figures(committed)


def small(*sources: str):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


def test_what_can_go_wrong_is_seen():
    import_plots = "%matplotlib inline\nfrom latentebm import plots"
    figure = "plots.plot_shares([0.9, 0.1], [0.5, 0.5], [0.5, 0.5], ['a', 'b'], 'balanced')"
    shout = "import os, sys; print('oh', os.environ['LATENTEBM_FAST'], file=sys.stderr)"
    done = run(small(import_plots, figure, shout), fast=True)
    assert figures(done) == [0, 1, 0]
    assert noise(done) == ["oh 1\n"]
    assert wordless(done) == [1]
    with pytest.raises(CellExecutionError, match="1 / 0"):
        run(small("1 / 0"))
    assert private("from latentebm.plots import _axes\nfrom latentebm import VAE") == ["latentebm.plots._axes"]


def test_a_stamp_follows_cells_and_imports_but_not_words():
    notebook = small("from latentebm import Debiaser", "from latentebm.sampling import SNIS")
    notebook.metadata[PACKAGE] = stamp(notebook)
    assert changes(notebook) == []
    modules = notebook.metadata[PACKAGE]["modules"]
    assert {"latentebm.debiaser", "latentebm.models.vae", "latentebm.sampling.importance.snis"} <= modules.keys()
    assert not {"latentebm.cli.app", "latentebm.data.tabular"} & modules.keys()
    modules["latentebm.models.vae"] = "0"
    assert changes(notebook) == ["latentebm.models.vae"]
    notebook.cells[0].source += "\n"
    assert changes(notebook) == ["its cells", "latentebm.models.vae"]
