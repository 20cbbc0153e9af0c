"""Made-up data for every kind of source, with lengths like those of real data: what a step costs does not depend on what it says.

In: a kind of source codec, a folder, a number of examples. Out: files there and the `data:` group of a configuration that reads them.
The decision to question: noise instead of speech and pictures. Decoding a WAV file or a PNG of noise costs a little more than one of
something; the rest of a step cannot tell.
"""

import io
import json
import random
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_scale import NUM_WORDS, sentences

Tree = dict[str, Any]

SAMPLE_RATE_HZ = 16_000
SPEECH_SECONDS = (1.5, 6.0)
LETTERS_PER_SECOND = 14
PICTURE_SIZE = 256
CAPTIONS_PER_PICTURE = 5
OBSERVED, PREDICTED = 8, 12


def generated_data(kind: str, folder: Path, count: int) -> Tree:
    """Training and validation data for sources of a kind of codec: audio, image, frames, none, or any kind of text."""
    make = MAKERS.get(kind, sentence_pairs)
    return {**make(folder, count), "cache_dir": str(folder / "cache")}


def sentence_pairs(folder: Path, count: int) -> Tree:
    """Two aligned files of sentences of about eleven words, frequencies as 1 / rank; the target is the source in other letters."""
    tree = {}
    chances = 1 / np.arange(1, NUM_WORDS + 1)
    edges = np.cumsum(chances / chances.sum())
    for seed, split in enumerate(("train", "valid")):
        rows = list(sentences(max(count // (1 + 9 * seed), 2), edges, np.random.default_rng(seed)))
        for end, consonants in (("src", "bdfgklm"), ("tgt", "nprstvz")):
            text = "".join(" ".join(word(rank, consonants) for rank in row) + "\n" for row in rows)
            (folder / f"{split}.{end}").write_text(text, encoding="utf-8")
        tree[split] = {"source": str(folder / f"{split}.src"), "target": str(folder / f"{split}.tgt")}
    return tree


def sentences_alone(folder: Path, count: int) -> Tree:
    """The targets of `sentence_pairs`, for a language model."""
    return {split: {"target": files["target"]} for split, files in sentence_pairs(folder, count).items()}


def word(rank: int, consonants: str) -> str:
    """The number of a word in syllables: short for the frequent ones."""
    syllables = [consonant + vowel for consonant in consonants for vowel in "aeiou"]
    spoken = syllables[rank % len(syllables)]
    while rank := rank // len(syllables):
        spoken += syllables[rank % len(syllables)]
    return spoken


def recordings(folder: Path, count: int) -> Tree:
    """Archives of noise of 1.5 to 6 seconds, with fourteen letters a second."""
    tree, draw = {}, random.Random(1)
    for split, size in (("train", count), ("valid", max(count // 10, 2))):
        records = []
        with tarfile.open(folder / f"{split}.tar", "w") as archive:
            for number in range(size):
                seconds = draw.uniform(*SPEECH_SECONDS)
                add_bytes(archive, f"{number}.wav", noise(seconds, draw))
                text = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz    ", k=round(seconds * LETTERS_PER_SECOND)))
                records.append({"audio": f"{number}.wav", "text": f"a{text}z"})
        path = write_records(folder / f"{split}.jsonl", records)
        tree[split] = {"path": str(path), "source": "audio", "target": "text", "media": str(folder / f"{split}.tar")}
    return tree


def noise(seconds: float, draw: random.Random) -> bytes:
    """A WAV file, mono, 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        writer.writeframes(draw.randbytes(2 * round(seconds * SAMPLE_RATE_HZ)))
    return file.getvalue()


def pictures(folder: Path, count: int) -> Tree:
    """Archives of noisy pictures, five captions of about eleven words each."""
    from PIL import Image

    tree, draw = {}, np.random.default_rng(1)
    for split, size in (("train", count), ("valid", max(count // 10, 2))):
        records = []
        with tarfile.open(folder / f"{split}.tar", "w") as archive:
            for number in range(size):
                file = io.BytesIO()
                coarse = draw.integers(0, 256, (PICTURE_SIZE // 8, PICTURE_SIZE // 8, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((PICTURE_SIZE, PICTURE_SIZE)).save(file, "JPEG")
                add_bytes(archive, f"{number}.jpg", file.getvalue())
                captions = [
                    " ".join(f"w{word}" for word in draw.zipf(1.3, draw.integers(7, 16)) % 3000) for _ in range(CAPTIONS_PER_PICTURE)
                ]
                records.append({"image": f"{number}.jpg", "captions": captions})
        path = write_records(folder / f"{split}.jsonl", records)
        tree[split] = {"path": str(path), "source": "image", "target": "captions", "media": str(folder / f"{split}.tar")}
    return tree


def tracks(folder: Path, count: int) -> Tree:
    """Tables of walkers who keep their direction for the most part."""
    tree: Tree = {"windows": {"frame": "frame", "track": "id", "values": ["x", "y"], "observed": OBSERVED, "predicted": PREDICTED}}
    for seed, split in enumerate(("train", "valid")):
        draw = np.random.default_rng(seed)
        rows = ["frame,id,x,y"]
        for name in range(max(count // (1 + 9 * seed), 2)):
            turns = draw.normal(0, 0.1, OBSERVED + PREDICTED).cumsum() + draw.uniform(0, 6.3)
            places = np.stack([np.cos(turns), np.sin(turns)], axis=1).cumsum(axis=0) * draw.uniform(0.2, 0.6)
            rows += [f"{frame},{name},{x:.3f},{y:.3f}" for frame, (x, y) in enumerate(places)]
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        tree[split] = {"path": str(folder / f"{split}.csv")}
    return tree


MAKERS: dict[str, Callable[[Path, int], Tree]] = {"audio": recordings, "image": pictures, "frames": tracks, "none": sentences_alone}


def add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member of an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_records(path: Path, records: list[Tree]) -> Path:
    """JSON lines."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path
