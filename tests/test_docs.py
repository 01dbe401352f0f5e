"""The code of docs/sampling.md, docs/training.md and docs/tables.md runs and prints what the page says."""

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(("name", "least"), [("sampling.md", 30), ("training.md", 30), ("tables.md", 8)])
def test_docs_run(name, least):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), flags=re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, name, str(DOCS / name), 0)
    assert len(test.examples) > least
    assert doctest.DocTestRunner().run(test).failed == 0
