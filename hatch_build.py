"""Only a release knows where the repository lives: the README gets absolute links and images and a badge, for PyPI."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


class Hosted(MetadataHookInterface):
    """Takes the repository's address, such as https://github.com/me/latentebm, from LATENTEBM_REPOSITORY."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set readme and addresses; without an address the README stays as it is."""
        home = os.environ.get("LATENTEBM_REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, home) if home else text}
        pages = {"Source": home, "Issues": f"{home}/issues", "Changelog": f"{home}/blob/HEAD/CHANGELOG.md"}
        metadata["urls"] = pages if home else {}


def absolute(text: str, home: str) -> str:
    """The Markdown with links into the repository written out, images as files and the rest as pages, and a badge."""
    tests = f"{home}/actions/workflows/test.yml"
    text = text.replace("\n\n", f"\n\n[![tests]({tests}/badge.svg)]({tests})\n\n", 1)
    return LINK.sub(lambda m: f"{m[1]}[{m[2]}]({home}/{'raw' if m[1] else 'blob'}/HEAD/{m[3]})", text)
