"""The commands impute and ampute, end to end on small files."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from latentebm.cli.app import app
from latentebm.cli.console import errors_exit
from latentebm.cli.missing import _copies, _page


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture
def table(tmp_path):
    g = np.random.default_rng(0)
    z = g.normal(size=200)
    frame = pd.DataFrame({"a": z, "b": 2 * z + 1, "c": np.where(z > 0, "x", "y"), "d": z + g.normal(size=200)})
    frame.to_csv(tmp_path / "whole.csv", index=False)
    return tmp_path


def test_ampute_then_impute_a_csv(table):
    words = ["--mechanism", "self-masking", "--column", "b", "--rate", 0.3]
    result = run("ampute", table / "whole.csv", "--out", table / "holed.csv", *words)
    assert result.exit_code == 0, result.output
    whole, holed = pd.read_csv(table / "whole.csv"), pd.read_csv(table / "holed.csv")
    assert 0.15 < holed["b"].isna().mean() < 0.45
    assert holed.drop(columns="b").equals(whole.drop(columns="b"))
    settings = ["--latent-dim", 1, "--steps", 200, "--draws", 50, "--multiple", 2]
    result = run("impute", table / "holed.csv", "--out", table / "done.csv", "--method", "not-miwae", *settings)
    assert result.exit_code == 0, result.output
    done = pd.read_csv(table / "done.csv")
    seen = holed["b"].notna()
    assert not done.isna().any(axis=None)
    assert np.allclose(done["b"][seen], holed["b"][seen])
    assert np.corrcoef(done["b"][~seen], whole["b"][~seen])[0, 1] > 0.5
    first, second = (pd.read_csv(table / f"done-{i}.csv") for i in (1, 2))
    assert not np.allclose(first["b"], second["b"])
    page = (table / "done.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2
    assert "cells imputed by not-miwae" in page


def test_ampute_by_class(table):
    words = ["--mechanism", "by-class", "--driver", "c", "--class-rate", "x=0.5", "--column", "a"]
    result = run("ampute", table / "whole.csv", "--out", table / "holed.csv", *words)
    assert result.exit_code == 0, result.output
    holed = pd.read_csv(table / "holed.csv")
    lost = holed["a"].isna()
    assert not lost[holed["c"] == "y"].any()
    assert abs(lost[holed["c"] == "x"].mean() - 0.5) < 4 * np.sqrt(0.25 / (holed["c"] == "x").sum())
    assert holed[["b", "c", "d"]].notna().all(axis=None)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", ["mean", "knn", "iterative"])
def test_classical_methods_and_npz(table, method):
    x = pd.read_csv(table / "whole.csv")[["a", "b", "d"]].to_numpy()
    np.savez(table / "whole.npz", x=x)
    words = ["--mechanism", "mar", "--driver", 0, "--column", 1]
    result = run("ampute", table / "whole.npz", "--out", table / "holed.npz", *words)
    assert result.exit_code == 0, result.output
    result = run("impute", table / "holed.npz", "--out", table / "done.npz", "--method", method)
    assert result.exit_code == 0, result.output
    with np.load(table / "done.npz") as done, np.load(table / "holed.npz") as holed:
        seen = ~np.isnan(holed["x"])
        assert np.isfinite(done["x"]).all()
        assert np.allclose(done["x"][seen], x[seen])
        assert not seen.all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["impute", "none.csv", "--out", "o.csv"], "FILE: expected an existing file"),
        (["impute", "whole.csv", "--out", "o.npz"], "--out: expected a name ending in .csv"),
        (["impute", "whole.csv", "--out", "o.csv", "--method", "magic"], "--method: expected one of"),
        (["impute", "whole.csv", "--out", "o.csv", "--method", "mean"], "--method: expected miwae or not-miwae"),
        (["impute", "ab.csv", "--out", "o.csv", "--method", "knn", "--multiple", "2"], "--multiple: expected 0"),
        (["impute", "whole.csv", "--out", "o.csv", "--multiple", "-1"], "--multiple: expected a whole number"),
        (["impute", "whole.csv", "--out", "o.csv", "--likelihood", "z=gaussian"], "--likelihood: expected columns"),
        (["impute", "whole.csv", "--out", "o.csv", "--likelihood", "gaussian"], "--likelihood: expected COLUMN=FAMILY"),
        (["ampute", "whole.csv", "--out", "o.csv", "--column", "age"], "--column: expected columns of the table"),
        (["ampute", "whole.csv", "--out", "o.csv", "--mechanism", "mar"], "--driver: expected the column"),
        (["ampute", "whole.csv", "--out", "o.csv", "--rate", "1"], "rate: expected"),
        (["ampute", "whole.csv", "--out", "o.csv", "--mechanism", "by-class"], "--driver: expected the one column"),
        (
            ["ampute", "whole.csv", "--out", "o.csv", "--mechanism", "by-class", "--driver", "c", "--class-rate", "x"],
            "--class-rate: expected CLASS=RATE",
        ),
        (["ampute", "whole.csv", "--out", "o.csv", "--mechanism", "self-masking"], "text in 'c'"),
        (["ampute", "whole.txt", "--out", "o.txt"], "FILE: expected .csv, .tsv"),
        (["ampute", "whole.csv", "--out", "o.csv", "--class-rate", "x=1"], "none with --mechanism mcar"),
        (["ampute", "whole.csv", "--out", "o.csv", "--driver", "a"], "pass --mechanism mar, or leave it out"),
        (["ampute", "whole.csv", "--out", "o.csv", "--seed", "-1"], "--seed: expected a whole number of at least 0"),
        (["impute", "ab.csv", "--out", "o.csv", "--draws", str(10**20)], "up to 9223372036854775807, got 1000"),
        (["impute", "huge.csv", "--out", "o.csv", "--method", "mean"], "finite numbers in column 'a', got 1 infinite"),
        (["impute", "packed.csv", "--out", "o.csv"], "got a gzip file; give it a name that ends in .gz"),
        (["impute", "c.npz", "--out", "o.npz"], "got x, of complex64 and shape (2, 2)"),
    ],
)
def test_bad_input_names_the_fix(table, monkeypatch, words, message):
    monkeypatch.chdir(table)
    (table / "ab.csv").write_text("a,b\n1,2\n3,\n")
    (table / "whole.txt").write_text("a\n1\n")
    (table / "huge.csv").write_text("a,b\n1e400,2\n3,\n")
    (table / "packed.csv").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    np.savez(table / "c.npz", x=np.ones((2, 2), np.complex64))
    result = run(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (table / "o.csv").exists()


def test_a_column_of_gaps_is_said_to_be_filled_with_zeros(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,\n2,\n")
    result = run("impute", tmp_path / "a.csv", "--out", tmp_path / "o.csv", "--method", "mean")
    assert "note: column b has no observed cell: it is filled with 0" in result.stderr
    assert (tmp_path / "o.csv").read_text() == "a,b\n1,0\n2,0\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 9\nat y")])
def test_too_little_memory_is_said_in_a_line(error, capsys):
    with pytest.raises(typer.Exit), errors_exit():
        raise error
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stream_comes_back_with_its_gaps_filled_and_nothing_else_changed():
    text = "zip,n\n00501,1\n"
    rows = "".join(f"{500 + i:05d},{'' if i % 4 == 0 else i},\n" for i in range(20))
    result = CliRunner().invoke(app, ["ampute", "-", "--out", "-", "--rate", "0"], input=text + rows)
    assert result.exit_code == 0, result.output
    assert result.stdout == text + rows
    numbers = "n,m\n" + rows.replace(",\n", "\n").replace("00", "9")
    words = ["impute", "-", "--out", "-", "--method", "mean"]
    result = CliRunner().invoke(app, words, input=numbers)
    assert result.exit_code == 0, result.output
    assert result.stdout == numbers.replace(",\n", ",10\n")
    assert "5 of 40 cells imputed" in result.stderr
    for marked, fix in ((numbers.replace(",\n", ",?\n"), "--na '?'"), ("a,b\nNA,1\nx,2\n", "--na NA")):
        result = CliRunner().invoke(app, [*words[:-1], "miwae"], input=marked)
        assert (result.exit_code, fix in " ".join(result.stderr.split())) == (2, True)


@pytest.mark.parametrize(("out", "copy", "page"), [
    ("a.csv", "a-1.csv", "a.html"), ("a.b.tsv.gz", "a.b-1.tsv.gz", "a.b.html"), ("a.CSV.GZ", "a-1.CSV.GZ", "a.html"),
])  # fmt: skip
def test_what_lies_beside_a_table_keeps_its_kind(out, copy, page):
    assert _copies(Path("folder", out), 1, "miwae") == [Path("folder", copy)]
    assert _page(Path("folder", out), None) == Path("folder", page)
