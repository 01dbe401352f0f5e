"""The command line: the only place that parses arguments and prints."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from latentebm._version import __version__
from latentebm.cli import debias
from latentebm.cli.ampute import ampute
from latentebm.cli.compare import compare
from latentebm.cli.console import console, errors
from latentebm.cli.missing import impute
from latentebm.cli.named_places import NamedPlaces
from latentebm.cli.planning import plan
from latentebm.cli.sample import report, sample
from latentebm.cli.table_command import table
from latentebm.cli.tilt import tilt

__all__ = ["app", "main"]

app = typer.Typer(
    name="latentebm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Debias a trained generator with an energy-based tilt and a small reference set, without retraining it.",
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


debias.register(app)
for command in (tilt, sample, report, compare, impute, ampute, plan, table):
    app.command(cls=NamedPlaces)(command)


def main() -> None:
    """Run the command line; signs that a terminal cannot show are replaced, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    _drop_unwritable_cache()
    with _output_full():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            app()
            return
        from latentebm.processes import joined  # here, since it takes the seconds that --help has not

        console.quiet = errors.quiet = os.environ.get("RANK", "0") != "0"  # rank 0 alone prints
        with joined():
            app()


@contextmanager
def _output_full() -> Iterator[None]:
    """What is printed onto a full disk ends with a line and exit code 1; the results are written by then."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else what is left to print fails once more at exit
        sys.stderr.write(f"Error: output: expected room for it, got {error.strerror}; print it elsewhere\n")
        sys.exit(1)


def _drop_unwritable_cache() -> None:
    """Let torch take its default where the cache that is asked for cannot be written: its import would end the run."""
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
    try:
        if folder:
            os.makedirs(folder, exist_ok=True)
    except OSError:
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
