"""The sentence pairs that all sides read: Multi30k, English to German, with one vocabulary and the same token ids for everybody.

In: a folder with train.en, train.de, val.en, ... Out: a folder with the same texts, a SentencePiece model learned from both languages
of the training part, and every sentence as the ids of `transduce`'s codec in digits between blanks (SPLIT.ids.LANGUAGE).

The decision to question: peers get ids as if they were words. So nobody's tokenizer is measured, blanks in odd places split nothing,
and a token is the same thing for all of them.
"""

import json
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from transduce.data.subwords import SentencePieceCodec, read_model, train_model

SPLITS = {"train": "train", "val": "val", "test": "test_2016_flickr"}
MODEL, FACTS = "spm.model", "facts.json"
PAD, BOS, EOS, UNK = range(4)


@dataclass(frozen=True)
class Pairs:
    """Prepared pairs. vocabulary: real number of pieces. source, target: mean tokens of a training sentence, with its end."""

    folder: Path
    vocabulary: int
    sentences: int
    source: float
    target: float

    def text(self, split: str, language: str) -> Path:
        """Sentences, one to a line."""
        return self.folder / f"{split}.{language}"

    def ids(self, split: str, language: str) -> Path:
        """The same as ids, without begin and end."""
        return self.folder / f"{split}.ids.{language}"


def prepare_pairs(data: Path, folder: Path, *, vocabulary: int, limit: int | None = None) -> Pairs:
    """Write the files, unless they are there. limit: training pairs that are used. Raises FileNotFoundError without the data."""
    if not (folder / FACTS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            (split, language): read_lines(data / f"{name}.{language}", limit) for split, name in SPLITS.items() for language in ("en", "de")
        }
        learned = chain(texts["train", "en"], texts["train", "de"])
        codec = train_model(learned, model_type="bpe", size=vocabulary, coverage=1.0, sample=1_000_000, seed=1)
        (folder / MODEL).write_bytes(codec.model)
        for (split, language), lines in texts.items():
            (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            rows = (" ".join(map(str, row.tolist())) for row in codec.encode_many(lines))
            (folder / f"{split}.ids.{language}").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        facts = Pairs(
            folder, codec.vocabulary.size, len(texts["train", "en"]), *(mean_length(folder / f"train.ids.{end}") for end in ("en", "de"))
        )
        (folder / FACTS).write_text(json.dumps({**asdict(facts), "folder": ""}) + "\n", encoding="utf-8")
    return load_pairs(folder)


def load_pairs(folder: Path) -> Pairs:
    """What `prepare_pairs` wrote."""
    return Pairs(**{**json.loads((folder / FACTS).read_text(encoding="utf-8")), "folder": folder})


def load_codec_of(pairs: Pairs) -> SentencePieceCodec:
    """The codec behind the ids."""
    return read_model(pairs.folder / MODEL)


def read_lines(path: Path, limit: int | None = None) -> list[str]:
    """Lines without their ends. Only \\n ends a line."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")[:limit]


def mean_length(path: Path) -> float:
    """Tokens of a line, with its end."""
    lines = read_lines(path)
    return sum(len(line.split()) + 1 for line in lines) / len(lines)
