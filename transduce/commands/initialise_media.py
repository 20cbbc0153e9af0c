"""`transduce init` for recordings and pictures: which field of a manifest names them, where they are, and what they are.

In: JSONL or TSV manifests. Out: `MediaAdvice` and its configuration of at most 30 lines. The decision to question: what the files are
is told by opening the first one, not by its name; and archives are looked for where people put them, beside the manifest under its name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from transduce.data.audio import AudioCodec, AudioConfig
from transduce.data.lines import read_lines
from transduce.data.media import media_from_fields, open_media
from transduce.data.values import BadValueError, Media
from transduce.errors import DataError
from transduce.tree import scalar_text

SOURCES = (
    *("audio", "audio_filepath", "wav", "sound", "recording"),
    *("image", "image_path", "picture", "path", "file", "filename", "file_name"),
)
TARGETS = ("text", "sentence", "transcript", "transcription", "captions", "caption", "target")
LOOKED_AT = 50  # records
PRESETS = {
    "audio": ("speech-conformer", "speech-transformer", "speech-las"),
    "image": ("caption-attend", "caption-transformer", "caption-show-tell"),
}
FRAME_SECONDS = 0.01
LONG_HOURS = 5.0
"""Speech from which on the larger preset pays."""


@dataclass(frozen=True)
class Manifest:
    """A file that names recordings or pictures. media: None = they are beside it."""

    path: Path
    source: str
    target: str
    media: Path | None


@dataclass(frozen=True)
class MediaAdvice:
    """What was found. hours: of sound, None for pictures."""

    kind: Literal["audio", "image"]
    records: int
    hours: float | None

    @property
    def preset(self) -> str:
        """Tested settings for it."""
        if self.kind == "image":
            return "caption-attend"
        return "speech-transformer" if self.hours is not None and self.hours > LONG_HOURS else "speech-conformer"

    def line(self) -> str:
        """For people."""
        what = "pictures" if self.hours is None else f"recordings, about {60 * self.hours:.1f} minutes of sound"
        return f"{self.records:,} {what}."


def read_manifest(path: Path) -> Manifest | None:
    """How a file names recordings or pictures; None where it does not. Raises DataError where it does and they are not to be found."""
    records = list(islice(_records(path), LOOKED_AT))
    fields = set(records[0]).intersection(*records[1:]) if records else set()
    source, target = (next((name for name in names if name in fields), None) for names in (SOURCES, TARGETS))
    if source is None or target is None:
        return None
    name = str(records[0][source])
    places = [path.parent, path.parent / f"{path.name.split('.')[0]}.tar", path.parent / path.name.split(".")[0]]
    for place in places:
        if place.exists() and _is_there(name, place):
            return Manifest(path, source, target, None if place == path.parent else place)
    raise DataError(f"its field {source!r} names {name!r}, which is not in {', '.join(map(str, places))}", path, 1)


def advise_media(manifest: Manifest) -> MediaAdvice:
    """What the files are. Raises DataError where they are neither recordings nor pictures."""
    root = manifest.media or manifest.path.parent
    names = [str(record[manifest.source]) for record in _records(manifest.path)]
    looked = [media_from_fields(name, root) for name in names[:: max(len(names) // LOOKED_AT, 1)]]
    if _is_picture(looked[0]):
        return MediaAdvice("image", len(names), None)
    rows = [row for row in AudioCodec(AudioConfig(), [], []).rows(looked) if row.problem is None]
    if not rows:
        raise DataError(f"{looked[0].place()} is neither a recording nor a picture that can be read", manifest.path, 1)
    seconds = sum(row.width for row in rows) * FRAME_SECONDS / len(rows)
    return MediaAdvice("audio", len(names), seconds * len(names) / 3600)


def media_yaml(train: Manifest, valid: Manifest, *, advice: MediaAdvice, run_dir: Path) -> str:
    """The configuration, at most 30 lines."""
    lines = [
        f"# {advice.line()} All keys: transduce config FILE",
        f"preset: {advice.preset}  # {', '.join(PRESETS[advice.kind])}",
        f"run_dir: {scalar_text(str(run_dir))}",
        "seed: 1",
        "data:",
        f"  train: {_corpus(train)}",
        f"  valid: {_corpus(valid)}",
        "  errors: strict  # tolerant leaves files that cannot be read out, and counts them",
        "train:",
        "  max_minutes: 60  # or max_steps, max_epochs; the first that is reached ends the run",
    ]
    return "\n".join(lines) + "\n"


def _corpus(manifest: Manifest) -> str:
    tree = {"path": str(manifest.path), "source": manifest.source, "target": manifest.target}
    return scalar_text(tree | ({} if manifest.media is None else {"media": str(manifest.media)}))


def _records(path: Path) -> Iterator[dict[str, object]]:
    """The records of a JSONL file, or of a TSV file with a header; what is no record has no fields."""
    header: list[str] = []
    for line in read_lines(path):
        if Path(path.name.removesuffix(".gz")).suffix in (".jsonl", ".ndjson"):
            try:
                tree = json.loads(line)
            except (ValueError, RecursionError):
                tree = {}
            yield tree if type(tree) is dict else {}
        elif header:
            yield dict(zip(header, line.split("\t"), strict=False))
        else:
            header = line.split("\t")


def _is_there(name: str, root: Path) -> bool:
    try:
        with open_media(media_from_fields(name, root)):
            return True
    except BadValueError:
        return False


def _is_picture(media: Media) -> bool:
    """By the first bytes of JPEG, PNG and WebP."""
    with open_media(media) as file:
        head = file.read(12)
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
