"""Files of the text experiments, prepared from the public data sets.

In: the folder with the data sets (multi30k, scan, cmudict, g2p_sigmorphon2021_eng_us). Out: links and small derived files in a
work folder that git ignores; nothing of the data enters the repository.

Decision to question: the validation pair of a CMUdict word is its first pronunciation only, because training compares
one output with one reference; the test compares with all of them.
"""

import random
import shutil
from collections.abc import Iterable
from pathlib import Path

VALIDATION_SHARE = 0.1


def prepare_multi30k(data: Path, work: Path) -> None:
    """train, val and test_2016_flickr in English, German and French, linked."""
    for split in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de", "fr"):
            link(data / "multi30k" / f"{split}.{language}", work / "multi30k" / f"{split}.{language}")


def prepare_g2p(data: Path, work: Path) -> None:
    """SIGMORPHON 2021, American English: one pronunciation per word."""
    origin = data / "g2p_sigmorphon2021_eng_us"
    for ours, theirs in (("train", "train"), ("valid", "dev"), ("test", "test")):
        write_pairs(work / "g2p", ours, read_pairs(origin / f"{theirs}.tsv"))


def prepare_cmudict(data: Path, work: Path) -> None:
    """CMUdict: all pronunciations in training, the first in validation, all of them as references of the test."""
    origin = data / "cmudict"
    write_pairs(work / "cmudict", "train", read_pairs(origin / "train.tsv"))
    write_pairs(work / "cmudict", "valid", first_of_each(read_pairs(origin / "val.tsv")))
    write_pairs(work / "cmudict", "test", first_of_each(read_pairs(origin / "test.tsv")))
    link(origin / "test.tsv", work / "cmudict" / "references.tsv")


def prepare_scan(data: Path, work: Path) -> None:
    """SCAN: each split's training file minus a random tenth (seed 1) for validation; there is no official one."""
    for split in ("simple", "length", "addprim_jump"):
        pairs = read_pairs(data / "scan" / f"{split}.train.tsv")
        random.Random(1).shuffle(pairs)
        count = round(len(pairs) * VALIDATION_SHARE)
        folder = work / f"scan-{split}"
        write_pairs(folder, "train", pairs[count:])
        write_pairs(folder, "valid", pairs[:count])
        write_pairs(folder, "test", read_pairs(data / "scan" / f"{split}.test.tsv"))


def references_of(words: Iterable[str], pronunciations: Path) -> list[list[str]]:
    """For each word all its pronunciations, in file order."""
    found: dict[str, list[str]] = {}
    for word, pronunciation in read_pairs(pronunciations):
        found.setdefault(word, []).append(pronunciation)
    return [found[word] for word in words]


def read_lines(path: Path) -> list[str]:
    """Lines without their ends. Only \\n ends a line."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The two columns of a TSV file."""
    rows = [line.split("\t") for line in read_lines(path)]
    return [(row[0], row[1]) for row in rows]


def first_of_each(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """One pair per word: its first."""
    found: dict[str, str] = {}
    for word, pronunciation in pairs:
        found.setdefault(word, pronunciation)
    return list(found.items())


def write_pairs(folder: Path, split: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Two aligned files, `split.source` and `split.target`."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = list(pairs)
    for side, name in enumerate(("source", "target")):
        (folder / f"{split}.{name}").write_text("".join(f"{pair[side]}\n" for pair in kept), encoding="utf-8")


def link(origin: Path, place: Path) -> None:
    """A symbolic link, or a copy where the file system has none. Nothing is done where `place` lies in the folder of the data itself:
    a work folder that somebody linked there must not lead to the data being replaced."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.parent.resolve() == origin.parent.resolve():
        return
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(origin.resolve())
    except OSError:
        shutil.copyfile(origin, place)
