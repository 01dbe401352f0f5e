"""The code of docs/sampling.md runs and prints what the page says."""

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "sampling.md"


def test_docs_run():
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 30
    assert doctest.DocTestRunner().run(test).failed == 0
