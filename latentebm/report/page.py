"""The one page of every kind of run: finding, pictures, what to worry about, tables."""

from __future__ import annotations

import base64
import functools
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from latentebm._version import __version__
from latentebm.checks import visible
from latentebm.report.run_tables import Table

__all__ = ["Page", "Picture", "command_line", "drawn", "picture", "render_page"]


@dataclass(frozen=True)
class Picture:
    """A picture with the sentence that says what it shows.

    Attributes:
        alt: what a reader who cannot see it needs to know.
        sentence: shown below it.
        data: PNG, base64.
        wide: over the whole width.
        group: name of the class it shows, by which pictures are filtered; empty for none.
    """

    alt: str
    sentence: str
    data: str
    wide: bool = False
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page says, from its title to its last table.

    Attributes:
        title: of the document.
        headline: the finding in a few words.
        lead: the finding in one sentence.
        verdicts: tone (``good``, ``bad`` or ``note``), a few words, and the sentence that says why.
        finding: picture of the finding, the first of all; None for none.
        before: picture before, under a slider together with `after`; None for no such pair.
        after: picture after.
        pictures: the others, in order; those with a group can be filtered.
        worries: what to know before using the result.
        grouped: heading above the pictures with a group.
        tables: numbers, folded unless `unfolded`.
        unfolded: whether tables are open at first.
        command: that makes the run again; empty for none.
        version: of the package that made the run.
    """

    title: str
    headline: str
    lead: str
    verdicts: Sequence[tuple[str, str, str]] = ()
    finding: Picture | None = None
    before: Picture | None = None
    after: Picture | None = None
    pictures: Sequence[Picture] = ()
    worries: Sequence[str] = ()
    grouped: str = "Class by class"
    tables: Sequence[Table] = ()
    unfolded: bool = False
    command: str = ""
    version: str = field(default=__version__)

    @property
    def groups(self) -> list[str]:
        """Names of the classes that pictures show, in order."""
        return list(dict.fromkeys(picture.group for picture in self.pictures if picture.group))


def picture(path: Path, alt: str, sentence: str, *, wide: bool = False, group: str = "") -> Picture | None:
    """A picture from a PNG file, or None where the file is missing.

    Example:
        >>> picture(Path("nowhere.png"), "a grid", "Draws.") is None
        True
    """
    if not path.is_file():
        return None
    return Picture(alt, sentence, base64.b64encode(path.read_bytes()).decode("ascii"), wide, group)


def drawn(figure: Figure, alt: str, sentence: str, *, wide: bool = False) -> Picture:
    """A picture of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(alt, sentence, base64.b64encode(buffer.getvalue()).decode("ascii"), wide)


def command_line(command: str, *arguments: Any, **options: Any) -> str:
    """The shell command of a job; options that are None, empty or false are left out, lists repeated.

    Example:
        >>> command_line("table", "my file.csv", target=["pay by sex", "sex"], rows=10, label=None)
        "latentebm table 'my file.csv' --target 'pay by sex' --target sex --rows 10"
    """
    words = ["latentebm", command, *map(str, arguments)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            values = value if isinstance(value, list | tuple) else [value]
            words += [word for each in values if str(each) for word in (flag, str(each))]
    return shlex.join(words)


def render_page(page: Page) -> str:
    """The page as one HTML document that needs no other file; every text is escaped.

    Example:
        >>> "&lt;b&gt;" in render_page(Page(title="t", headline="<b>", lead=""))
        True
    """
    return _environment().get_template("page.html").render(page=page)


@functools.lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = PackageLoader("latentebm", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.finalize = lambda value: visible(value) if isinstance(value, str) else value
    return environment
