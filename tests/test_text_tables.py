"""Text tables: every cell read right, or refused by its line or column; observed cells come back byte for byte."""

import gzip

import numpy as np
import pytest

from latentebm.data.formats import array_files, table_file
from latentebm.data.formats.table_file import check_same_kind, read_table_file
from latentebm.data.formats.text_table import Dialect, parse_text

QUIRKS = '"zip","a ""b""",c\r\n00501,"x, y",1e3\r\n\r\n07,"two\nlines",  \r\n"1",NA,+4.50,\r\n'


def test_every_cell_is_read_as_what_it_means():
    table = parse_text(QUIRKS, Dialect())
    assert list(table.values) == ["zip", 'a "b"', "c"]
    assert table.values["zip"].tolist() == ["00501", "07", "1"]
    assert table.values['a "b"'].tolist() == ["x, y", "two\nlines", "NA"]
    assert np.array_equal(table.values["c"], [1000.0, np.nan, 4.5], equal_nan=True)
    assert list(table.words()) == [('a "b"', "NA")]


def test_only_the_missing_cell_is_written():
    table = parse_text(QUIRKS, Dialect())
    gone = table.values.isna().to_numpy()
    done = table.values.fillna({"c": 2.5})
    assert table.render(done, gone) == QUIRKS.replace(",  \r\n", ",2.5\r\n")
    assert table.render(done, gone & False) == QUIRKS


def test_any_cells_survive_writing_and_reading():
    # Written into empty cells, quoted where need be, and read again: the same text in every cell.
    g = np.random.default_rng(0)
    texts = ["k" + "".join(g.choice(list('a1"., \n;é'), size=g.integers(5))) for _ in range(400)]
    holed = parse_text("p,q\nx,y\n" + ",z\nz,\n" * 200, Dialect())
    gone = holed.values.isna().to_numpy()
    done = holed.values.astype(object)
    for (i, j), text in zip(np.argwhere(gone), texts, strict=True):
        done.iloc[i, j] = text
    again = parse_text(holed.render(done, gone), Dialect())
    assert [again.text.iloc[i, j] for i, j in np.argwhere(gone)] == texts


def test_dialects_and_markers():
    table = parse_text("a;b\n1,5;?\n;-9\n2;3\n", Dialect(";", ",", na=("?", "-9")))
    assert np.array_equal(table.values, [[1.5, np.nan], [np.nan, np.nan], [2.0, 3.0]], equal_nan=True)
    text = table.render(table.values.fillna(0.25), table.values.isna().to_numpy())
    assert text == "a;b\n1,5;0,25\n0,25;0,25\n2;3\n"
    assert list(parse_text("a,b\n1,?\n2,3\n3,4\n", Dialect()).spoiled()) == [("b", "?", 1)]
    assert list(parse_text("a,b\n1,12a\n2,12b\n3,7\n", Dialect()).spoiled()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,4,5\n", "2 cells in each line, got 3 in line 3"),
        ('a,b\n"x\ny",2\n3\n', "2 cells in each line, got 1 in line 4"),
        ('a,b\n1,2\n"3,4\n', "a quote that line 3 opens"),
        ("a;b\n1;2\n", "pass sep=';'"),
        ("a\tb\n1\t2\n", "pass sep=tab"),
        ('a,b\n1,"2,5"\n2,\n', "pass decimal=,"),
        ("a,b\n\u22125,2\n7,3\n", "numbers with the sign '-' in column 'a', got '\u22125'; write a hyphen"),
        ('a,b\n"1,000",2\n"12,000,000",3\n', "'1,000'; remove each , that parts thousands$"),
        ('a,b\n"1,000",2\n7,3\n', "remove each , that parts thousands, or pass decimal=,"),
        ("a,a\n1,2\n", "'a' twice"),
        ("a,b\n", "at least one row"),
        ("\n\n", "an empty file"),
    ],
)
def test_what_cannot_be_read_right_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_text(text, Dialect())


def test_files_of_every_kind(tmp_path):
    text = "a,b\n1,\n2,é\n"
    (tmp_path / "plain.CSV").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "tabs.tsv").write_text(text.replace(",", "\t"), encoding="utf-8")
    (tmp_path / "old.csv").write_bytes(text.encode("latin-1"))
    for name, settings in (
        ("plain.CSV", {}),
        ("packed.csv.gz", {}),
        ("tabs.tsv", {}),
        ("old.csv", {"encoding": "latin-1"}),
    ):
        read = read_table_file(tmp_path / name, **settings)
        assert read.values["b"].isna().tolist() == [True, False], name
        out = tmp_path / f"out{''.join((tmp_path / name).suffixes)}"
        read.write(out, read.values, np.zeros((2, 2), dtype=bool))
        unpack = gzip.decompress if name.endswith("gz") else bytes
        assert unpack(out.read_bytes()) == unpack((tmp_path / name).read_bytes())
    with pytest.raises(ValueError, match="byte 0xe9 in line 3; pass encoding=latin-1"):
        read_table_file(tmp_path / "old.csv")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "broken.csv.gz").write_bytes(b"a,b")
    for name in ("broken.npz", "broken.parquet", "broken.csv.gz"):
        with pytest.raises(ValueError, match=rf"FILE .*{name}"):
            read_table_file(tmp_path / name)
    with pytest.raises(ValueError, match=r"--out: expected a name ending in \.csv"):
        check_same_kind("a.npz", "b.csv")


def test_parquet_keeps_whole_numbers(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    file = tmp_path / "t.parquet"
    pd.DataFrame({"n": pd.array([2**60 + 1, None], dtype="Int64"), "x": [1.0, 2.0]}).to_parquet(file)
    read = read_table_file(file)
    read.write(tmp_path / "o.parquet", read.values.fillna({"n": 3}), read.values.isna().to_numpy())
    assert pd.read_parquet(tmp_path / "o.parquet")["n"].tolist() == [2**60 + 1, 3]


def test_archives_of_nothing_but_repetition_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "HELD", 10_000)
    same, noise = np.zeros((3_000, 10)), np.random.default_rng(0).random((3_000, 10))
    lines = gzip.compress(b"a,b\n" + b"0,\n" * 30_000)
    for name, content in (
        ("a.csv.gz", lines),
        ("lying.csv.gz", lines[:-4] + b"\x09\0\0\0"),
        ("zeros.csv", bytes(9_999)),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"FILE .*{name}: expected a? ?(table|text|readable)"):
            read_table_file(tmp_path / name)
    np.savez_compressed(tmp_path / "same.npz", x=same)
    with pytest.raises(ValueError, match=r"same\.npz: expected .*240,128 bytes unpacked, of"):
        read_table_file(tmp_path / "same.npz")
    np.savez_compressed(tmp_path / "noise.npz", x=noise)
    assert read_table_file(tmp_path / "noise.npz").values.shape == (3_000, 10)


def test_a_packed_table_of_repetition_is_left_early_whatever_length_it_promises(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "HELD", 1 << 20)
    monkeypatch.setattr(table_file, "PART", 1 << 16)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"0,\n" * (1 << 22)) + gzip.compress(b"1,2\n"))
    with pytest.raises(ValueError, match=r"a table that is mostly data, got \d,\d\d\d,\d\d\d bytes unpacked"):
        read_table_file(tmp_path / "a.csv.gz")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,\n"))
    assert len(read_table_file(tmp_path / "b.csv.gz").values) == 2
