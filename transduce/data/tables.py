"""Rows of tables of tracks: delimited text with or without a header, MOTChallenge, KITTI, NPY, Parquet.

In: a path and `WindowsConfig`. Out: `Step`s one at a time. A row that is not what it should be raises BadRecordError with its line;
the reader goes on after it, so that tolerant reading can count. The decision a reader would question: text is split by comma,
tab or blanks, whichever its first line has; numbers in quotes and thousands separators are not guessed at.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transduce.data.fields import BadRecordError
from transduce.data.lines import open_bytes, raw_lines
from transduce.data.report import CorpusReport
from transduce.data.values import Track
from transduce.data.windows import Column, Step, Window, WindowsConfig, cut_windows, group_tracks, last_observed
from transduce.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow.parquet

TABLE_ENDINGS = (".csv", ".npy", ".parquet")
MOT_COLUMNS = ("frame", "id", "x", "y", "w", "h")
KITTI_COLUMNS = ("frame", "id", "class", "truncated", "occluded", "alpha", "left", "top", "right", "bottom")
LARGEST_NPY_BYTES = 8 << 30
LARGEST_GROUP_BYTES = 128 << 20  # of a Parquet file, unpacked: what is read at once
MOST_ROWS_PER_BYTE = 16  # of a Parquet file; positions that were measured do not pack as well as that
LARGEST_NUMBER = float(np.finfo(np.float32).max)
OTHER_CLASS = "row of another class"


class Columns(NamedTuple):
    """Places of the columns that are read. sequence, class_: None = there is none."""

    frame: int
    track: int
    values: tuple[int, ...]
    sequence: int | None
    class_: int | None


Row = tuple[int, list[Any]]


def read_steps(path: Path, config: WindowsConfig, on_bad: Callable[[BadRecordError, int], None]) -> Iterator[Step]:
    """The rows of a table in file order. A bad one goes to `on_bad` (which may raise) and is left out.

    Raises DataError for a file that cannot be read at all and for a column that is not there.
    """
    header, rows = _opened(path, config)
    columns = _columns(config, header, path)
    newest: dict[tuple[str, str], int] = {}
    for line, cells in rows:
        try:
            step = _step(cells, columns, config=config, path=path, line=line, width=None if header is None else len(header))
            _check_time(step, newest, path)
        except BadRecordError as bad:
            on_bad(bad, line)
            continue
        newest[step.track] = step.frame
        yield step


def read_windows(path: Path, config: WindowsConfig, *, tolerant: bool, entry: CorpusReport) -> Iterator[Window]:
    """All windows of the tracks in a table, track by track in the order in which they begin. What is not used is counted in `entry`.

    A bad row raises DataError with its line, or (tolerant) is left out and counted.
    """

    def on_bad(bad: BadRecordError, line: int) -> None:
        if bad.reason == OTHER_CLASS:
            entry.note("rows of other classes, not used", f"{path}:{line}")
            return
        if not tolerant:
            raise DataError(f"{bad.reason}: {bad.detail} (data.errors: tolerant leaves such rows out and counts them)", path, line)
        entry.read += 1
        entry.skip(f"row: {bad.reason}", f"{path}:{line}")

    for steps in group_tracks(read_steps(path, config, on_bad)).values():
        for window in cut_windows(steps, config, entry=entry, path=path):
            entry.read += 1
            yield window


def newest_observed(path: Path, config: WindowsConfig) -> Iterator[Track]:
    """What is observed of each track of a table at its end, in the order in which tracks begin. Tracks that are too short are refused.

    Raises DataError for a bad row and for a track without `observed` steps in a row.
    """

    def on_bad(bad: BadRecordError, line: int) -> None:
        if bad.reason != OTHER_CLASS:
            raise DataError(f"{bad.reason}: {bad.detail}", path, line)

    for name, steps in group_tracks(read_steps(path, config, on_bad)).items():
        track = last_observed(steps, config)
        if track is None:
            what = f"track {' '.join(filter(None, name))} ends with fewer than {config.observed} steps in a row"
            raise DataError(what, path, steps[-1].line)
        yield track


def _opened(path: Path, config: WindowsConfig) -> tuple[list[str] | None, Iterator[Row]]:
    """Column names where the table has them, and numbered rows of cells."""
    match path.suffix:
        case ".npy":
            return None, _npy_rows(path)
        case ".parquet":
            return _parquet_rows(path)
    lines = _split_lines(path)
    if not config.has_header:
        return None, lines
    first = next(lines, None)
    if first is None:
        raise DataError("is empty: a header line with column names is needed", path)
    return [str(cell).strip() for cell in first[1]], lines


def _split_lines(path: Path) -> Iterator[Row]:
    delimiter: str | None = None
    known = False
    with open_bytes(path) as handle:
        for line, raw in enumerate(raw_lines(handle, path), 1):
            text = raw.decode(errors="replace")
            if not known:
                delimiter, known = next((mark for mark in (",", "\t") if mark in text), None), True
            yield line, text.split(delimiter)


def npy_table(path: Path) -> NDArray[Any]:
    """A 2-D array of numbers, mapped and not read, so that what its header claims costs nothing; pickled objects are refused."""
    try:
        if path.stat().st_size > LARGEST_NPY_BYTES:
            raise DataError(f"is larger than {LARGEST_NPY_BYTES >> 30} GiB; cut it into several files", path)
        table = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise DataError(f"not an NPY file of numbers: {error}", path) from None
    if table.ndim != 2 or table.dtype.kind not in "fiu":
        raise DataError(f"must be a table of numbers (rows, columns); it is {table.dtype} of shape {table.shape}", path)
    return table


def _npy_rows(path: Path) -> Iterator[Row]:
    return ((line, row.tolist()) for line, row in enumerate(npy_table(path), 1))


def parquet_table(path: Path) -> "pyarrow.parquet.ParquetFile":
    """An open Parquet file of plain columns. Raises ConfigError without pyarrow, DataError for what is none or claims too much."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("reading Parquet needs pyarrow: pip install 'transduce[arrow]'") from None
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError(f"not a Parquet file: {error}", path) from None
    if table.metadata.num_rows > MOST_ROWS_PER_BYTE * path.stat().st_size:
        raise DataError(f"claims {table.metadata.num_rows:,} rows in {path.stat().st_size:,} bytes, which no tracks pack into", path)
    groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
    largest = max((group.total_byte_size for group in groups), default=0)
    if largest > LARGEST_GROUP_BYTES:
        raise DataError(f"has a row group of {largest:,} bytes; write it with row groups of at most {LARGEST_GROUP_BYTES:,}", path)
    return table


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    table = parquet_table(path)

    def rows() -> Iterator[Row]:
        line = 0
        try:
            for batch in table.iter_batches():
                for record in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    line += 1
                    yield line, list(record)
        except (OSError, ValueError) as error:
            raise DataError(f"damaged Parquet file after row {line}: {error}", path) from None

    return list(table.schema_arrow.names), rows()


def _columns(config: WindowsConfig, header: list[str] | None, path: Path) -> Columns:
    """Where the columns stand. Raises DataError for a name that the header has not."""
    if config.layout == "mot":
        return Columns(0, 1, (2, 3, 4, 5), None, 7 if config.classes else None)
    if config.layout == "kitti":
        return Columns(0, 1, (6, 7, 8, 9), None, 2)

    def place(column: Column) -> int:
        if header is None or isinstance(column, int):
            return int(column)
        if column not in header:
            raise DataError(f"no column called {column!r}; the header has {', '.join(map(repr, header))}", path, 1)
        return header.index(column)

    optional = [None if column is None else place(column) for column in (config.sequence, config.class_column)]
    return Columns(place(config.frame), place(config.track), tuple(place(column) for column in config.values), *optional)


def _step(cells: list[Any], columns: Columns, *, config: WindowsConfig, path: Path, line: int, width: int | None) -> Step:
    needed = 1 + max(columns.frame, columns.track, *columns.values, columns.sequence or 0, columns.class_ or 0)
    if len(cells) < needed or (width is not None and len(cells) != width):
        raise BadRecordError("wrong number of columns", f"{len(cells)} instead of {width or f'at least {needed}'}", path)
    if config.classes and columns.class_ is not None and str(cells[columns.class_]).strip() not in config.classes:
        raise BadRecordError(OTHER_CLASS, f"{cells[columns.class_]!r} is none of {', '.join(config.classes)}", path)
    numbers = tuple(_number(cells[column], path) for column in columns.values)
    if config.layout == "kitti":
        left, top, right, bottom = numbers
        numbers = (left, top, right - left, bottom - top)
    frame = _number(cells[columns.frame], path)
    if not float(frame).is_integer():
        raise BadRecordError("frame is not a whole number", str(cells[columns.frame]), path)
    sequence = "" if columns.sequence is None else str(cells[columns.sequence]).strip()
    return Step((sequence, _name(cells[columns.track])), int(frame), numbers, line)


def _name(cell: Any) -> str:
    """A track's name: 7, 7.0 and "7" are the same."""
    text = str(cell).strip()
    return text.removesuffix(".0")


def _number(cell: Any, path: Path) -> float:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        raise BadRecordError("not a number", repr(cell)[:60], path) from None
    if not abs(number) <= LARGEST_NUMBER:
        raise BadRecordError("number is not finite", repr(cell)[:60], path)
    return number


def _check_time(step: Step, newest: dict[tuple[str, str], int], path: Path) -> None:
    before = newest.get(step.track)
    if before is None or step.frame > before:
        return
    name = " ".join(part for part in step.track if part)
    if step.frame == before:
        raise BadRecordError("duplicate frame of a track", f"track {name} has frame {step.frame} twice", path)
    raise BadRecordError("time goes back in a track", f"track {name} has frame {step.frame} after frame {before}", path)
