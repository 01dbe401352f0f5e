"""The code of the pages runs and prints what they say, and so does the README's for a model that is not ours."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [("sampling.md", 30), ("training.md", 30), ("tables.md", 8), ("attributes.md", 7)]


@pytest.mark.parametrize(("name", "least"), PAGES)
def test_docs_run(name, least):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), flags=re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, name, str(DOCS / name), 0)
    assert len(test.examples) > least
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_readme_tilts_a_model_that_is_not_ours(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (own,) = (block for block in blocks if "load_tilt" in block)
    exec(own, {})
    before, after = (float(number) for number in re.findall(r"tensor\(([\d.]+)\)", capsys.readouterr().out))
    assert (round(before, 2), round(after, 2)) == (0.43, 0.71)
