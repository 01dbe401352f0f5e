"""Records and cells of text tables, quoted ones among them, exactly as they stand in the file."""

from __future__ import annotations

from latentebm.checks import fail

__all__ = ["plain_cell", "split_cells", "split_records"]


def split_records(lines: list[str], newline: str, sep: str, name: str) -> tuple[list[str], list[int]]:
    """Records, of which quoted cells may make more than one line, and the line each begins in, from 1.

    Raises:
        ValueError: a quoted cell has no end.

    Example:
        >>> split_records(['"a', 'b",c', "d,e"], "|", ",", "FILE")
        (['"a|b",c', 'd,e'], [1, 3])
    """
    records: list[str] = []
    starts: list[int] = []
    open_from, quotes = -1, 0
    for i, line in enumerate(lines):
        if open_from < 0:
            quotes = _open_quotes(line, sep) if '"' in line else 0
            parts = [line]
        else:
            parts.append(line)
            quotes += line.count('"')
            if quotes % 2 == 0:  # what follows the closing quote may open another one
                quotes = _open_quotes(newline.join(parts), sep)
        if quotes % 2:
            open_from = i if open_from < 0 else open_from
            continue
        starts.append((i if open_from < 0 else open_from) + 1)
        records.append(newline.join(parts))
        open_from = -1
    if open_from >= 0:
        raise fail(name, "an end of every quoted cell", f"a quote that line {open_from + 1} opens", "close it")
    return records, starts


def _open_quotes(body: str, sep: str) -> int:
    """Quotes in the last cell if it begins with one, else 0: an odd number leaves it open."""
    last = split_cells(body, sep)[-1]
    return last.removesuffix("\r").count('"') if last.startswith('"') else 0


def split_cells(body: str, sep: str) -> list[str]:
    """Cells of a record with their quotes; one that begins with a quote ends with it.

    Example:
        >>> split_cells('"a,b",c"', ",")
        ['"a,b"', 'c"']
    """
    if '"' not in body:
        return body.split(sep)
    cells: list[str] = []
    for piece in body.split(sep):
        if cells and cells[-1].startswith('"') and cells[-1].count('"') % 2:
            cells[-1] += sep + piece
        else:
            cells.append(piece)
    return cells


def plain_cell(cell: str) -> str:
    """A cell without its quotes.

    Example:
        >>> plain_cell('"5"" pipe"')
        '5" pipe'
    """
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
