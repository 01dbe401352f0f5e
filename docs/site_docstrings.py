"""Docstrings as the site shows them: formulas as MathML, which browsers draw without a script, and roles as code."""

from __future__ import annotations

import re
from typing import Any

import griffe
from latex2mathml.converter import convert

BLOCK = re.compile(r"^\.\. math::(.*(?:\n(?:[ \t]+\S.*))*)", re.MULTILINE)
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)  # the plural is a section of code, the singular is not
INLINE = re.compile(r":math:`([^`]+)`")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
ROLE = re.compile(r":(?:class|func|meth|mod|attr):`~?(?:[\w.]*\.)?(\w+)`")


def readable(text: str) -> str:
    """Replace reStructuredText's formulas and roles.

    Example:
        >>> readable(":func:`~a.b.c` of :math:`x`")[:6], "<math" in readable(":math:`x`")
        ('`c` of', True)
    """
    text = EXAMPLE.sub(r"\1Examples:", text).replace(" {settings}\n", "\n")
    text = BLOCK.sub(lambda m: f"\n<div>{convert(' '.join(m[1].split()), display='block')}</div>\n", text)
    text = INLINE.sub(lambda m: convert(m[1]), text)
    return ROLE.sub(r"`\1`", text)


def drawn(markdown: str) -> str:
    """Draw a page's formulas and exponents, outside its code.

    Example:
        >>> drawn("e^{−E} and `e^{−E}`")
        'e<sup>−E</sup> and `e^{−E}`'
    """
    parts = CODE.split(markdown)
    for k in range(0, len(parts), 2):
        formulas = re.sub(r"\$([^$\n]+)\$", lambda m: convert(m[1]), parts[k])
        parts[k] = re.sub(r"\b(\w)\^\{([^}<]*)\}", r"\1<sup>\2</sup>", formulas)
    return "".join(parts)


class Readable(griffe.Extension):
    """Applies `readable` to every docstring that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the text of one object's docstring, if it has any."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
