"""Commands built from declared settings: one option for each field of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from latentebm.settings.declaration import PANELS, Declared, settings_of
from latentebm.settings.fields import Settings

__all__ = ["CONFIG", "given", "with_options"]

RESUME = "go on with the unfinished run of this folder, with its own settings"
CONFIG = "settings from a .toml or .json file, or an earlier run's config.json; options win"


def with_options(command: Callable[..., None], declaring: type[Settings]) -> Callable[..., None]:
    r"""Give a command ``command(ctx, config, resume, **options)`` one option for each setting, in panels.

    Settings without a panel are Python's alone.

    Example:
        >>> def job(ctx, config, resume, **options): print(options["latent_dim"])
        >>> app = typer.Typer()
        >>> _ = app.command()(with_options(job, Settings))
        >>> from typer.testing import CliRunner
        >>> CliRunner().invoke(app, ["--latent-dim", "3"]).output
        '3\n'
    """

    def run(**values: Any) -> None:
        command(**values)

    config = Annotated[Optional[Path], typer.Option(help=CONFIG, rich_help_panel="Run")]  # noqa: UP045
    resume = Annotated[Optional[Path], typer.Option(help=RESUME, rich_help_panel="Run")]  # noqa: UP045
    options = sorted((s for s in settings_of(declaring) if s.panel), key=lambda s: PANELS.index(s.panel))
    types = {"ctx": typer.Context, **{s.name: _annotation(s) for s in options}, "config": config, "resume": resume}
    defaults = {"ctx": inspect.Parameter.empty, **{s.name: s.default for s in options}, "config": None, "resume": None}
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, kind, annotation=types[name], default=defaults[name]) for name in types]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__, run.__doc__ = types, command.__doc__
    return run


def given(ctx: typer.Context, but: Collection[str] = ("config", "resume")) -> dict[str, Any]:
    """What the user typed, some names left out: only this wins over a config file."""
    typed = {}
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        if name not in but and source is not None and source.name == "COMMANDLINE":
            typed[name] = value
    return typed


def _annotation(declared: Declared) -> Any:
    option = typer.Option(help=declared.help, rich_help_panel=declared.panel, show_default=True)
    kind = Optional[declared.kind] if declared.default is None else declared.kind  # noqa: UP045
    return Annotated[kind, option]
