"""One field of a record, as one end of a pair reads it: a text, the name of a media file, or numbers.

In: bytes of a line or a value of a JSON object. Out: `Value`s. The decision a reader would question: a field that holds a list of
texts is one source's several targets (captions of one picture), never a text joined from parts.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transduce.data.media import media_from_fields
from transduce.data.values import NOTHING, BadValueError, Media, Track, Value

ValueKind = Literal["text", "media", "frames", "nothing"]
"""What one end of a pair is: texts, references to media files, tracks of numbers, or nothing (the source of a language model)."""

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
EndReader = Callable[[object, Mapping[str, Any]], tuple[Value, ...]]
"""From a field's content, and the other fields of its record, to one value or several."""


class BadRecordError(Exception):
    """A record that is not what its format says. `reason` is counted, `detail` is shown."""

    def __init__(self, reason: str, detail: str, path: Path) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.path = reason, detail, path


def field_reader(kind: ValueKind, *, name: str, path: Path, root: Path) -> EndReader:
    """How one end reads its field. name: of the field, for messages. root: where media files are."""
    match kind:
        case "text":
            return lambda content, _record: _texts(content, name, path)
        case "media":
            return lambda content, record: (_media(content, record, name=name, path=path, root=root),)
        case "frames":
            return lambda content, _record: (_track(content, name, path),)
        case "nothing":
            return lambda _content, _record: (NOTHING,)


def json_fields(line: str, names: tuple[str, ...], path: Path) -> dict[str, Any]:
    """The object in a line of JSON, which has all of `names`. Raises BadRecordError."""
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRecordError("invalid JSON", str(error), path) from None
    if not isinstance(tree, dict):
        raise BadRecordError("invalid JSON", "the line is not an object", path)
    for name in names:
        if name not in tree:
            raise BadRecordError("missing field", f"no {name!r}; there are {', '.join(map(repr, tree))}", path)
    return tree


def decoded(raw: bytes, path: Path) -> str:
    """The text of a line. Raises BadRecordError for bytes that are not UTF-8 and for NUL."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadRecordError("invalid UTF-8", utf8_detail(raw, error), path) from None
    if "\0" in text:
        raise BadRecordError("NUL character", f"at byte {raw.index(0) + 1} of the line", path)
    return text


def utf8_detail(raw: bytes, error: UnicodeDecodeError) -> str:
    """Which byte is wrong, and what the file looks like instead."""
    hint = "; the file looks like UTF-16, convert it to UTF-8" if raw.startswith(UTF16_MARKS) else ""
    return f"byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line{hint}"


def _texts(content: object, name: str, path: Path) -> tuple[str, ...]:
    if isinstance(content, list) and content:
        return tuple(_text(item, name, path) for item in content)
    return (_text(content, name, path),)


def _text(content: object, name: str, path: Path) -> str:
    if not isinstance(content, str):
        raise BadRecordError("field is not text", f"{name!r} is {json.dumps(content)[:60]}", path)
    if "\0" in content:
        raise BadRecordError("NUL character", f"in {name!r}", path)
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise BadRecordError("invalid Unicode", f"{name!r}: {error.reason}", path) from None
    return content


def _media(content: object, record: Mapping[str, Any], *, name: str, path: Path, root: Path) -> Media:
    if not isinstance(content, str) or not content:
        raise BadRecordError("field is not a file name", f"{name!r} is {json.dumps(content)[:60]}", path)
    try:
        return media_from_fields(content, root, start=_seconds(record, "start", path), end=_seconds(record, "end", path))
    except BadValueError as bad:
        raise BadRecordError(bad.reason, bad.detail, path) from None


def _seconds(record: Mapping[str, Any], name: str, path: Path) -> float | None:
    value = record.get(name)
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadRecordError("field is not a time", f"{name!r} is {json.dumps(value)[:60]}, not seconds from 0 on", path)
    return seconds


def _track(content: object, name: str, path: Path) -> Track:
    """A list of frames, each a list of numbers; a TSV cell holds the same as JSON."""
    try:
        steps = json.loads(content) if isinstance(content, str) else content
        with np.errstate(over="ignore"):
            values = np.array(steps, dtype=np.float64).astype(np.float32)
    except (ValueError, TypeError, RecursionError):
        raise BadRecordError("field is not numbers", f"{name!r} is {json.dumps(content)[:60]}", path) from None
    if values.ndim != 2 or not values.size:
        detail = f"{name!r} must be a list of frames, each a list of as many numbers; it is {json.dumps(content)[:60]}"
        raise BadRecordError("field is not a track", detail, path)
    if not np.isfinite(values).all():
        raise BadRecordError("number is not finite", f"in {name!r}", path)
    return Track(values)
