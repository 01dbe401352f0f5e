"""Table files of every kind: text, compressed or not, .npz and parquet, the standard streams among them."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latentebm.checks import fail
from latentebm.data.formats.array_files import SqueezedError, check_unpacked, read_npz
from latentebm.data.formats.text_table import Dialect, TextTable, parse_text
from latentebm.files import write_atomic

__all__ = ["STREAM", "TableFile", "check_same_kind", "read_table_file"]

STREAM = "-"  # in place of a path: the standard input or output, a .csv
RUNS = 1_000  # bytes of a column for one in a parquet file, which writes equal cells once
PART = 1 << 24  # bytes unpacked at once
HEAD = 1 << 16  # bytes of a text file that are looked at first
TEXT, KINDS = (".csv", ".tsv"), (".csv", ".tsv", ".npz", ".parquet")


@dataclass
class TableFile:
    """A table and what its file held besides: cells that nobody changed are written as they stood there."""

    values: pd.DataFrame  # (N, D), NaN where missing
    kind: str  # one of KINDS
    text: TextTable | None = None
    encoding: str = "utf-8"
    file: str = STREAM  # what it was read from

    def write(self, out: Path | str, done: pd.DataFrame, changed: NDArray[np.bool_]) -> None:
        """Write the table with the cells of `done` (N, D) where `changed` (N, D) is True, whole or not at all."""
        if self.text is not None:
            content = self.text.render(done, changed).encode(self.encoding)
            if str(out) == STREAM:
                sys.stdout.buffer.write(content)
                sys.stdout.flush()
                return
            packed = gzip.compress(content, mtime=0) if Path(out).suffix.lower() == ".gz" else content
            write_atomic(out, lambda p: p.write_bytes(packed))
        elif self.kind == ".npz":
            write_atomic(out, lambda p: np.savez_compressed(p, x=done.to_numpy(dtype=np.float64)))
        else:
            write_atomic(out, lambda p: done.to_parquet(p, index=False))


def read_table_file(
    file: Path | str, dialect: Dialect | None = None, *, encoding: str = "utf-8", name: str = "FILE"
) -> TableFile:  # fmt: skip
    r"""Read a .csv or .tsv, both also .gz, a .parquet, or the array ``x`` (or the only one) of an .npz.

    Arguments:
        file: the path, or ``-`` for a .csv from the standard input.
        dialect: of text; by default cells are separated by a comma, or a tab in a .tsv.
        encoding: of text.
        name: what errors call the file.

    Raises:
        ValueError: there is no such file, or it is of another kind, damaged, or not a table.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "t.csv"
        >>> _ = file.write_text("a,b\n1,\n")
        >>> read_table_file(file).values.isna().to_numpy()
        array([[False,  True]])
    """
    kind = kind_of(file, name)
    if str(file) != STREAM and not Path(file).is_file():
        raise fail(name, "an existing file", str(file), "check the path")
    named = f"{name} {file}"
    try:
        if kind in TEXT:
            return _read_text(file, dialect or Dialect(sep="\t" if kind == ".tsv" else ","), encoding, named)
        values = _read_npz(Path(file), named) if kind == ".npz" else _read_parquet(Path(file), named)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise fail(named, f"a readable {kind}", str(error), "check the file and its permissions") from None
    if values.empty:
        raise fail(named, "at least one row and one column", values.shape, "pass a table with rows")
    return TableFile(values, kind, file=str(file))


def kind_of(file: Path | str, name: str) -> str:
    """The suffix that says how a file is read, in lower case and without .gz; ValueError for another one."""
    suffixes = [s.lower() for s in Path(file).suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = ".csv" if str(file) == STREAM else "".join(suffixes[:-1][-1:] if packed else suffixes[-1:])
    if kind not in (TEXT if packed else KINDS):
        got = Path(file).suffix or "no suffix"
        raise fail(name, ".csv, .tsv (or these and .gz), .npz, .parquet or -", got, "convert it")
    return kind


def check_same_kind(out: Path | str, file: Path | str, name: str = "--out") -> None:
    """Raise ValueError unless the output is of the input's kind.

    Example:
        >>> check_same_kind("a.CSV.gz", "b.csv")
    """
    kind = kind_of(file, "FILE")
    try:
        same = kind_of(out, name) == kind
    except ValueError:
        same = False
    if not same:
        raise fail(name, f"a name ending in {kind}, as the input", str(out) or "none", f"pass {name} name{kind}")


def _read_text(file: Path | str, dialect: Dialect, encoding: str, name: str) -> TableFile:
    content = sys.stdin.buffer.read() if str(file) == STREAM else _bytes(Path(file), name)
    if encoding == "utf-8" and content.startswith(b"\xef\xbb\xbf"):
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except LookupError:
        raise fail("encoding", "the name of an encoding", repr(encoding), "pass for example utf-8 or latin-1") from None
    except UnicodeDecodeError as error:
        for sign, (what, fix) in OTHERS.items():
            if content.startswith(sign):
                raise fail(name, f"text in {encoding}", what, fix) from None
        got = f"byte 0x{content[error.start]:02x} in line {content.count(10, 0, error.start) + 1}"
        fix = "pass encoding=" + ("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1, or what it is")
        raise fail(name, f"text in {encoding}", got, fix) from None
    if "\0" in text:
        raise fail(name, f"text in {encoding}", "zero bytes", "pass encoding=utf-16, or convert the file")
    table = parse_text(text, dialect, name=name)
    return TableFile(table.values, ".csv", table, encoding, str(file))


OTHERS = {
    b"\x1f\x8b": ("a gzip file", "give it a name that ends in .gz"),
    b"PK\x03\x04": ("a zip archive, as Excel's files are", "save it as .csv"),
    b"\xd0\xcf\x11\xe0": ("an old file of Excel", "save it as .csv"),
    b"PAR1": ("a parquet file", "give it a name that ends in .parquet"),
}  # by how they begin


def _bytes(file: Path, name: str) -> bytes:
    """The bytes of a file, unpacked; those that begin with zeros, which no text does, are not all read."""
    packed = file.suffix.lower() == ".gz"
    try:
        with file.open("rb") as raw, gzip.open(raw) if packed else nullcontext(raw) as stream:
            head = stream.read(HEAD)
            if head.startswith(b"\0\0\0\0"):
                raise fail(name, "text", "zero bytes", "convert the file")
            return _unpacked(stream, raw, head) if packed else head + stream.read()
    except SqueezedError as error:
        raise fail(name, "a table that is mostly data", str(error), "unpack it, and look into it") from None


def _unpacked(stream: gzip.GzipFile | BinaryIO, raw: BinaryIO, head: bytes) -> bytes:
    """All of a .gz file, whose own word on its length is for its last part alone and may be wrong."""
    parts, size = [head], len(head)
    while part := stream.read(PART):
        size += len(part)
        check_unpacked(size, raw.tell())
        parts.append(part)
    return b"".join(parts)


def _read_npz(file: Path, name: str) -> pd.DataFrame:
    arrays = read_npz(file, name)
    x = arrays.get("x", next(iter(arrays.values())) if len(arrays) == 1 else np.empty(0))
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        fix = "save it with numpy.savez(file, x=table)"
        got = f"{', '.join(arrays) or 'none'}, of {x.dtype} and shape {x.shape}" if len(arrays) == 1 else list(arrays)
        raise fail(name, "numbers x of shape (N, D)", got, fix)
    return pd.DataFrame(x)


def _read_parquet(file: Path, name: str) -> pd.DataFrame:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise fail(name, "pyarrow to read parquet", "none", "pip install pyarrow") from None
    try:
        facts = parquet.ParquetFile(file).metadata
        check_unpacked(8 * facts.num_rows * facts.num_columns, file.stat().st_size, RUNS)
        # Nullable types: whole numbers with gaps stay whole.
        return pd.read_parquet(io.BytesIO(file.read_bytes()), dtype_backend="numpy_nullable")
    except (pa.ArrowException, ValueError) as error:
        raise fail(name, "a parquet file", str(error).splitlines()[0], "check the file") from None
