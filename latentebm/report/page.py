"""The one page of every kind of run: finding, pictures, what to worry about, tables."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from latentebm._version import __version__
from latentebm.report.run_tables import Table

__all__ = ["Page", "Picture", "picture", "render_page"]


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


def render_page(page: Page) -> str:
    """The page as one HTML document that needs no other file; every text is escaped.

    Example:
        >>> "&lt;b&gt;" in render_page(Page(title="t", headline="<b>", lead=""))
        True
    """
    loader = PackageLoader("latentebm", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("page.html").render(page=page)
