"""Pages of the site that are made when it is built: the API by subject, the gallery of the notebooks, the changelog."""

from __future__ import annotations

import ast
import base64
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
FETCHED = "https://unpkg.com/iframe-worker/shim"
sys.path.insert(0, str(ROOT / "docs"))
from site_docstrings import drawn  # noqa: E402


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the API into the navigation."""
    for entry in config.nav or []:
        if "API" in entry:
            entry["API"] = [{subject: f"api/{subject}.md"} for subject in public_names()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {f"api/{subject}.md": api_page(subject, names) for subject, names in public_names().items()}
    pages |= {"changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), **gallery()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_post_page(output: str, **_: Any) -> str:
    """Give a page opened as a file the search's stand-in for workers, where the theme would fetch one."""
    shim = base64.b64encode((ROOT / "docs" / "offline_worker.js").read_bytes()).decode("ascii")
    return output.replace(FETCHED, f"data:text/javascript;base64,{shim}")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Draw the formulas of a page."""
    return drawn(markdown)


def public_names() -> dict[str, list[str]]:
    """Public names as full paths, by the folder or module they live in."""
    tree = ast.parse((ROOT / "latentebm" / "__init__.pyi").read_text(encoding="utf-8"))
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in tree.body:
        if isinstance(line, ast.ImportFrom) and line.module and line.module.count("."):
            subject = line.module.split(".")[1]
            if not subject.startswith("_"):
                found[subject] += [f"{line.module}.{name.name}" for name in line.names]
    return dict(sorted(found.items()))


def api_page(subject: str, names: list[str]) -> str:
    """One page of the API."""
    return f"# {subject}\n\n" + "\n".join(f"::: {name}\n" for name in names)


def gallery() -> dict[str, Any]:
    """The notebooks' titles, first sentences and pictures."""
    text, made = ["# Gallery\n\nThe figures of the executed notebooks, in `notebooks/`.\n"], {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title, _, rest = "".join(cells[0]["source"]).partition("\n")
        text.append(f"## {title.lstrip('# ')}\n\n{rest.strip().split(chr(10) * 2)[0]}\n\n`notebooks/{path.name}`\n")
        for k, data in enumerate(pictures(cells)):
            name = f"gallery/{path.stem}-{k}.png"
            made[name] = data
            text.append(f"![Figure {k + 1} of {path.stem}]({name})\n")
    return {"gallery.md": "\n".join(text), **made}


def pictures(cells: list[dict[str, Any]]) -> list[bytes]:
    """The PNGs among the outputs of cells."""
    data = (output.get("data", {}).get("image/png") for cell in cells for output in cell.get("outputs", []))
    return [base64.b64decode(found) for found in data if found]
