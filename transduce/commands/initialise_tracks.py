"""`transduce init` for tables of tracks: what their columns are, how far apart their frames, how long their tracks.

In: CSV, TSV, text, NPY or Parquet files. Out: `TracksAdvice`, its configuration of at most 30 lines, and where needed a validation
split by whole tracks. The decision to question: columns are told by the usual names, or without a header by their order
(frame, track, numbers); what is guessed stands in the configuration as it is used, so that a wrong guess is seen and mended there.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from math import gcd
from pathlib import Path

import numpy as np

from transduce.data.fields import BadRecordError
from transduce.data.lines import open_bytes, raw_lines
from transduce.data.tables import TABLE_ENDINGS, npy_table, parquet_table, read_steps
from transduce.data.windows import WindowsConfig, group_tracks
from transduce.errors import ConfigError, DataError, StorageError
from transduce.tree import scalar_text

LOOKED_AT = 50  # lines that tell what a file is
OTHER_ENDINGS = (".tsv", ".tab", ".txt", ".dat", "")  # of text, or of a table
FEWEST_COLUMNS = 3  # frame, track, one number
VALID_SHARE = 0.1
KITTI_WIDTH, MOT_WIDTHS = 17, (9, 10)
NAMES = {
    "frame": ("frame", "frame_id", "frame_number", "time", "timestamp", "t", "step"),
    "track": ("id", "track_id", "track", "object_id", "agent_id", "ped_id", "pedestrian_id", "person_id"),
    "sequence": ("sequence", "seq", "scene", "scene_id", "video", "recording", "recording_id"),
    "class_column": ("class", "type", "category", "label", "agent_type"),
}
VALUES = (
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("bb_left", "bb_top", "bb_width", "bb_height"),
    ("x", "y", "z"),
    ("x", "y"),
    ("pos_x", "pos_y"),
    ("lon", "lat"),
)


@dataclass(frozen=True)
class TracksAdvice:
    """What was found. tracks, steps: how many. median: steps of a track."""

    windows: WindowsConfig
    tracks: int
    steps: int
    median: int

    @property
    def is_boxes(self) -> bool:
        """Whether a frame is left, top, width, height."""
        return len(self.windows.values) == 4 or self.windows.layout != "columns"

    @property
    def is_position(self) -> bool:
        """Whether a frame is two numbers, x and y."""
        return len(self.windows.values) == 2 and not self.is_boxes

    def lines(self) -> list[str]:
        """For people."""
        return [f"{self.tracks:,} tracks, {self.steps:,} steps; half of the tracks have at least {self.median} steps."]


def is_table(path: Path) -> bool:
    """Whether a file is a table of tracks: by its ending, or because its first lines are numbers in columns."""
    if _ending(path) in TABLE_ENDINGS:
        return True
    if _ending(path) not in OTHER_ENDINGS:
        return False
    rows = _first_rows(path)
    body = rows[1:] if len(rows) > 1 and _has_header(rows) else rows
    width = min(map(len, body), default=0)
    numeric = [all(_is_number(row[place]) for row in body) for place in range(width)]
    return sum(numeric) >= FEWEST_COLUMNS


def advise_tracks(path: Path) -> TracksAdvice:
    """Columns and windows for a table. Raises DataError (what cannot be read), ConfigError (columns that nobody can guess)."""
    windows = _columns(path)
    steps = list(read_steps(path, windows, _refuse))
    if not steps:
        raise DataError("has no rows", path)
    tracks = group_tracks(iter(steps))
    apart = 0
    for track in tracks.values():
        for before, after in pairwise(track):
            apart = gcd(apart, after.frame - before.frame)
    median = int(np.median([len(track) for track in tracks.values()]))
    whole = min(20, median)
    if whole < 3:
        raise DataError(f"its tracks are too short to predict anything: half of them have fewer than {median + 1} steps", path)
    observed = max(2 * whole // 5, 1)
    sizes = {"frame_step": max(apart, 1), "observed": observed, "predicted": whole - observed}
    return TracksAdvice(windows.model_copy(update=sizes), len(tracks), len(steps), median)


def split_tracks(path: Path, windows: WindowsConfig, folder: Path) -> tuple[Path, Path]:
    """Two new tables, the second with a tenth of the tracks, by a hash of their names. Raises ConfigError, StorageError, DataError."""
    rows = {step.line: step.track for step in read_steps(path, windows, _refuse)}
    hashes = {track: hashlib.blake2b("\0".join(track).encode(), digest_size=8).digest() for track in rows.values()}
    if len(hashes) < 2:
        raise DataError("has only one track: name validation files", path)
    limit = sorted(hashes.values())[max(round(VALID_SHARE * len(hashes)), 1) - 1]
    is_valid = {line: hashes[track] <= limit for line, track in rows.items()}
    parts = tuple(folder / f"{part}{_ending(path) or '.txt'}" for part in ("train", "valid"))
    for part in parts:
        if part.exists():
            raise ConfigError(f"{part} exists; it is not written over: remove it, or name validation files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, wanted in zip(parts, (False, True), strict=True):
            _write_part(path, part, [line for line, valid in is_valid.items() if valid == wanted], headed=windows.has_header)
    except OSError as error:
        raise StorageError(f"{folder}: the validation split cannot be written: {error.strerror}") from error
    return parts[0], parts[1]


def tracks_yaml(train: Path, valid: Path, *, advice: TracksAdvice, run_dir: Path) -> str:
    """The configuration, at most 30 lines."""
    tree = advice.windows.model_dump(mode="json")
    differs = advice.windows.model_dump(exclude_defaults=True)
    always = ("frame", "track", "values") if advice.windows.layout == "columns" else ()
    windows = {key: tree[key] for key in tree if key in (*always, "frame_step", "observed", "predicted") or key in differs}
    lines = [
        f"# {advice.tracks} tracks, {advice.steps} steps. All keys: transduce config FILE",
        "preset: tracks-lstm  # or tracks-transformer",
        f"run_dir: {scalar_text(str(run_dir))}",
        "seed: 1",
        "data:",
        f"  train: {_corpus(train)}",
        f"  valid: {_corpus(valid)}",
        "  # Cut into windows of observed + predicted steps, frame_step frames apart; see data.windows for gaps and stride.",
        f"  windows: {scalar_text(windows)}",
    ]
    if not advice.is_position:
        lines.append("  # Boxes and other numbers have no heading to turn to; positions from above have (see docs/tracks.md).")
        for end, relative in (("source", "velocity"), ("target", "last")):
            codec = {"kind": "frames", "relative": relative, "rotate": False, "random_mirror": False, "random_scale": 0.1}
            lines.append(f"  {end}_codec: {scalar_text(codec)}")
    else:
        lines.append("  # In training each track is turned into its heading, mirrored, scaled: source_codec and target_codec change that.")
    lines += ["train:", "  max_minutes: 10  # or max_steps, max_epochs; the first that is reached ends the run"]
    lines += ["  validation: {sentences: 1000}  # windows that ADE and FDE are measured on; 0 = all"]
    return "\n".join(lines) + "\n"


def _corpus(path: Path) -> str:
    corpus = {"path": str(path)}
    return scalar_text(corpus if _ending(path) in TABLE_ENDINGS else {**corpus, "format": "tracks"})


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _columns(path: Path) -> WindowsConfig:
    """Layout and columns."""
    if path.suffix == ".parquet":
        return _named(list(parquet_table(path).schema_arrow.names), path)
    if path.suffix == ".npy":
        return _numbered(npy_table(path).shape[1])
    rows = _first_rows(path)
    if not rows:
        raise DataError("is empty", path)
    if _has_header(rows):
        return _named(rows[0], path)
    width = len(rows[0])
    if width >= KITTI_WIDTH and not _is_number(rows[0][2]):
        return WindowsConfig(layout="kitti")
    if path.suffix == ".txt" and width in MOT_WIDTHS and all(map(_is_number, rows[0])):
        return WindowsConfig(layout="mot")
    if not all(map(_is_number, rows[0][:2])):
        raise ConfigError(f"{path}: its first line is neither column names nor numbers; the first columns must be frame and track")
    return _numbered(width)


def _named(header: Sequence[str], path: Path) -> WindowsConfig:
    plain = {name.strip().lower(): name.strip() for name in header}
    found = {end: next((plain[name] for name in names if name in plain), None) for end, names in NAMES.items()}
    values = next((names for names in VALUES if all(name in plain for name in names)), None)
    missing = [end for end in ("frame", "track") if found[end] is None] + (["values"] if values is None else [])
    if missing or values is None:
        what = ", ".join(f"data.windows.{end}" for end in missing)
        raise ConfigError(f"{path}: cannot tell {what} from the column names {', '.join(header)}; name them in a configuration of your own")
    return WindowsConfig.model_validate({**found, "values": [plain[name] for name in values]})


def _numbered(width: int) -> WindowsConfig:
    """Frame, track, then numbers."""
    return WindowsConfig(frame=0, track=1, values=tuple(range(2, max(width, 3))))


def _first_rows(path: Path) -> list[list[str]]:
    with open_bytes(path) as handle:
        lines = [raw.decode(errors="replace") for raw in islice(raw_lines(handle, path), LOOKED_AT)]
    delimiter = next((mark for mark in (",", "\t") if lines and mark in lines[0]), None)
    return [[cell.strip() for cell in line.split(delimiter)] for line in lines if line.strip()]


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Names stand in the first line: nothing in it is a number."""
    return not any(map(_is_number, rows[0]))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _refuse(bad: BadRecordError, line: int) -> None:
    raise DataError(f"{bad.reason}: {bad.detail}", bad.path, line)


def _write_part(path: Path, part: Path, lines: Sequence[int], *, headed: bool) -> None:
    """The rows that stand at `lines` (from 1), with the header line if there is one."""
    match path.suffix:
        case ".npy":
            np.save(part, npy_table(path)[[line - 1 for line in lines]])
        case ".parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path)
            pyarrow.parquet.write_table(table.take([line - 1 for line in lines]), part)
        case _:
            with part.open("xb") as output:
                output.writelines(raw + b"\n" for raw in _picked(path, set(lines), headed=headed))


def _picked(path: Path, lines: set[int], *, headed: bool) -> Iterator[bytes]:
    with open_bytes(path) as handle:
        for number, raw in enumerate(raw_lines(handle, path), 1):
            if number in lines or (headed and number == 1):
                yield raw
