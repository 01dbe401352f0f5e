"""``latentebm compare``: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from latentebm.cli.console import console, errors_exit
from latentebm.disk.folders import whole_files
from latentebm.disk.outputs import check_files

__all__ = ["compare"]


@errors_exit()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="run folders of latentebm debias, two or more")],
    out: Annotated[Path, typer.Option(help="page to write")] = Path("compare.html"),
    overwrite: Annotated[bool, typer.Option(help="replace the page if it exists")] = False,
) -> None:
    """Put runs side by side on one page: balance, numbers, settings that differ, draws.

    [bold]Example[/bold]

        latentebm compare runs/debias runs/ten --out compare.html
    """
    from latentebm.report.compare_page import write_comparison

    (page,) = check_files([out], overwrite)
    with whole_files(page, replace=overwrite) as place:
        write_comparison(runs, place.at(page))
    console.print(f"Comparison: [bold]{escape(str(page))}[/bold]", highlight=False)
