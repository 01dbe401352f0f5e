"""What a function's source says, so that one that has changed since is noticed."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["text_digest"]


def text_digest(function: Callable[..., Any]) -> str | None:
    """SHA-256 of a function's source, without comments and layout; None where there is no source to read.

    What the function calls is not in it.

    Example:
        >>> from latentebm.checks import fail
        >>> len(text_digest(fail)), text_digest(len)
        (64, None)
    """
    try:
        source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()
