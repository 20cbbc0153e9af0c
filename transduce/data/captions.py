"""Captions as data sets publish them: Flickr8k's token files and COCO's JSON, one record for each picture with all its captions.

In: a file of either form. Out: numbered raw records, the name of the picture first, its captions after it. The decision a reader
would question: a Flickr8k file is read line by line and pictures are told apart by neighbouring lines, as all such files are sorted;
COCO's form is one JSON value and is read whole.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from transduce.data.lines import read_lines
from transduce.errors import DataError

NumberedCaptions = tuple[int, tuple[bytes | None, ...]]


def picture_names(path: Path) -> frozenset[str]:
    """The names in a list of pictures, one a line, as Flickr8k's splits are given. Raises DataError for a missing or empty file."""
    names = frozenset(line.strip() for line in read_lines(path) if line.strip())
    if not names:
        raise DataError("is empty: it must name the pictures that are used, one a line", path)
    return names


def flickr_records(lines: Iterator[tuple[int, bytes | None]]) -> Iterator[NumberedCaptions]:
    """`name.jpg#0 TAB caption` lines -> (number of the first line, (name, captions...)). A line of another form stands alone, with no
    captions, for its reader to refuse."""
    split = ((number, *_flickr_line(raw or b"")) for number, raw in lines)
    for name, group in groupby(split, key=lambda entry: entry[1]):
        if name is None:
            yield from ((number, (line,)) for number, _, line in group)
        else:
            first, *rest = group
            yield first[0], (name, first[2], *(line for _, _, line in rest))


def _flickr_line(raw: bytes) -> tuple[bytes | None, bytes]:
    """(name, caption), or (None, the line) for one of another form."""
    key, tab, caption = raw.partition(b"\t")
    name, mark, number = key.rpartition(b"#")
    return (name, caption) if tab and mark and name and number.strip().isdigit() else (None, raw)


def coco_records(path: Path) -> Iterator[NumberedCaptions]:
    """`images` with `id` and `file_name`, `annotations` with `image_id` and `caption` -> (number of the picture, (name, captions...)).

    Raises DataError where the file is not of that form, names a picture twice or captions one that it does not list.
    """
    try:
        tree = json.loads(path.read_bytes())
        names = {image["id"]: str(image["file_name"]) for image in tree["images"]}
        captions: dict[object, list[str]] = {key: [] for key in names}
        for annotation in tree["annotations"]:
            captions[annotation["image_id"]].append(str(annotation["caption"]))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from None
    except KeyError as error:
        raise DataError(f"is not a file of COCO captions: there is no {error}", path) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"is not a file of COCO captions: {error}", path) from None
    if len(names) != len(tree["images"]):
        raise DataError("names two pictures with the same id", path)
    for number, (key, name) in enumerate(names.items(), 1):
        if captions[key]:
            yield number, (_utf8(name), *(_utf8(caption) for caption in captions[key]))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # what is no Unicode is refused where all fields are
