"""What every command shares: the terminal, progress bars, and mistakes that end in one line."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from latentebm.checks import visible
from latentebm.progress import Sized, T
from latentebm.settings.declaration import settings_of
from latentebm.settings.fields import Settings

__all__ = ["as_flags", "bars", "console", "errors", "errors_exit", "print_table"]


class _Terminal(Console):
    """A console that shows control signs in names from outside and obeys none."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


console = _Terminal()
errors = _Terminal(stderr=True)
FLAGS = {declared.name for declared in settings_of(Settings)} | {"config", "resume", "strength", "sizes", "seeds"}
FLAGS |= {"sep", "decimal", "na", "encoding", "shard_size"}


def as_flags(message: str) -> str:
    """A library's message in the words of the shell: names of settings become flags.

    Example:
        >>> as_flags("energy_penalty: expected 0.25 unless objective=jensen, got 0.1; pass objective=jensen")
        '--energy-penalty: expected 0.25 unless --objective jensen, got 0.1; pass --objective jensen'
    """

    def flag(name: str) -> str:
        return f"--{name.replace('_', '-')}"

    head, colon, rest = message.partition(":")
    first, space, file = head.partition(" ")  # some name a file, too
    head = flag(first) + space + file if first in FLAGS else head
    pairs = re.compile(rf"\b({'|'.join(sorted(FLAGS, key=len, reverse=True))})=(True\b|(?=\S))")
    return head + colon + pairs.sub(lambda found: flag(found.group(1)) + ("" if found.group(2) else " "), rest)


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table whose names mean nothing to the terminal."""
    table = Table(title=escape(title), title_justify="left")
    for i, name in enumerate(head):
        table.add_column(escape(name), justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


@contextmanager
def errors_exit() -> Iterator[None]:
    """Mistakes in settings or data end with their message and exit code 2; anything else is a fault and is shown.

    A fit that diverged ends so with exit code 1. That another of several processes was lost is said once, by one of
    those left.

    Example:
        >>> with errors_exit():
        ...     console.print("no mistake")
        no mistake
    """
    try:
        yield
    except BrokenPipeError:  # whoever reads the output has gone, which typer knows
        raise
    except (ValueError, OSError) as error:  # the latter name their file, or it is what is printed that has no room
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            raise
        errors.print(f"[bold red]Error:[/bold red] {escape(as_flags(str(error)))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except (RuntimeError, MemoryError) as error:
        kind = type(error).__name__  # by name: to import them takes seconds
        if kind == "MemoryError" or "can't allocate memory" in str(error):
            text = " ".join((str(error) or kind).split("\n")[0].split())
            said = f"memory: expected room for what is asked for, got {text}; lower the sizes"
            errors.print(f"[bold red]Error:[/bold red] {escape(said)}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None
        if kind not in ("DivergedError", "LostRankError"):
            raise
        if kind == "LostRankError":
            from latentebm.processes import first_to_tell

            errors.quiet = not first_to_tell()
        errors.print(f"[bold red]Error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@contextmanager
def bars() -> Iterator[Any]:
    """A `Track` that shows bars on stderr.

    Example:
        >>> with bars() as track:
        ...     list(track([1, 2], "count")), next(iter(track(range(9), "one")))  # left at 1/1, "stopped early"
        ([1, 2], 0)
    """
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=errors) as progress:

        def track(items: Sized[T], description: str) -> Iterator[T]:
            task, done = progress.add_task(description, total=len(items), note=""), 0
            try:
                for done, item in enumerate(items, 1):
                    yield item
                    progress.update(task, completed=done)
            finally:  # a fit that stopped early leaves its bar at what it did
                note = "stopped early" if done < len(items) else ""
                progress.update(task, completed=done, total=done, note=note)

        yield track
