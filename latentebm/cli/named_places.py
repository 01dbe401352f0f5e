"""Places that were named by nothing: an empty text would mean the folder the command runs in."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from latentebm.checks import fail
from latentebm.cli.console import errors_exit

__all__ = ["NamedPlaces"]

PLACES = {"config", "data", "data_root", "file", "out", "reference", "report", "resume", "run", "runs"}


class NamedPlaces(TyperCommand):
    r"""A command whose files and folders are named.

    Example:
        >>> import typer
        >>> from typer.testing import CliRunner
        >>> app = typer.Typer()
        >>> @app.command(cls=NamedPlaces)
        ... def show(out: str) -> None: print(out)
        >>> CliRunner().invoke(app, [""]).stderr
        "Error: OUT: expected a file or folder, got ''; name one\n"
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments as they were typed, since an empty path becomes the current folder."""
        typed: dict[str, Any] = self.make_parser(ctx).parse_args(list(args))[0]
        with errors_exit():
            for option in self.params:
                if option.name in PLACES and "" in _texts(typed.get(option.name)):
                    name = option.opts[0] if option.opts[0].startswith("-") else option.opts[0].upper()
                    raise fail(name, "a file or folder", "''", "name one")
        return super().parse_args(ctx, args)


def _texts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
