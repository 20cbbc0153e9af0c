"""Codecs that need no training but counting: characters, bytes, words.

In: text. Out: token ids without begin and end of sequence, and back.
All three put the special tokens first: padding 0, begin 1, end 2, unknown 3. The decision a reader would question:
an unknown symbol decodes to U+FFFD (characters) or "<unk>" (words), never to nothing, so that a loss is seen.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from transduce.data.tokens import Ids, TextCodec
from transduce.errors import DataError
from transduce.model.frontends import Vocabulary

SPECIAL_PIECES = ("<pad>", "<s>", "</s>", "<unk>")
PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)
NUM_SPECIAL = len(SPECIAL_PIECES)
CODEC_FILE = "codec.json"
UNICODE_SIZE = 0x110000


def special_first(size: int) -> Vocabulary:
    """`size` pieces of which the first four are padding, begin, end and unknown."""
    return Vocabulary(size=size, pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID, unk_id=UNK_ID)


def write_codec(directory: Path, tree: dict[str, object]) -> None:
    """codec.json in `directory`, which is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CODEC_FILE).write_text(json.dumps(tree, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def digest_of(tree: dict[str, object]) -> str:
    """SHA-256 of what a codec is, to tell two codecs apart."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def split_rows(flat: Ids, lengths: Sequence[int]) -> list[Ids]:
    """One array per text from the ids of all texts in a row."""
    ends = np.cumsum(lengths).tolist()
    return [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


class CharacterCodec(TextCodec):
    """One token per Unicode code point."""

    kind = "characters"

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = tuple(characters)
        self.vocabulary = special_first(len(self.characters) + NUM_SPECIAL)
        self._table = np.full(UNICODE_SIZE, UNK_ID, dtype=np.int32)  # code point -> id
        self._table[[ord(character) for character in self.characters]] = np.arange(NUM_SPECIAL, self.vocabulary.size, dtype=np.int32)
        self.digest = digest_of(self._tree())

    @classmethod
    def fit(cls, texts: Iterable[str], *, min_count: int) -> "CharacterCodec":
        """Every code point that occurs at least `min_count` times, the most frequent first."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        return cls(most_frequent(counts, min_count=min_count, limit=None))

    def encode(self, text: str) -> Ids:
        """(T,) int32."""
        return self._table[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)]

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One (T,) array per text."""
        return split_rows(self.encode("".join(texts)), [len(text) for text in texts])

    def decode(self, ids: Sequence[int]) -> str:
        """Text; padding, begin and end say nothing, an unknown character is U+FFFD."""
        return "".join("\ufffd" if i == UNK_ID else self.characters[i - NUM_SPECIAL] for i in ids if i >= UNK_ID)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One string per id, for display."""
        return [SPECIAL_PIECES[i] if i < NUM_SPECIAL else self.characters[i - NUM_SPECIAL] for i in ids]

    def save(self, directory: Path) -> None:
        """Writes codec.json."""
        write_codec(directory, self._tree())

    def _tree(self) -> dict[str, object]:
        return {"kind": self.kind, "characters": list(self.characters)}


class ByteCodec(TextCodec):
    """One token per UTF-8 byte: nothing to learn, nothing unknown."""

    kind = "bytes"

    def __init__(self) -> None:
        self.vocabulary = special_first(256 + NUM_SPECIAL)
        self.digest = digest_of(self._tree())

    def encode(self, text: str) -> Ids:
        """(T,) int32."""
        return np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int32) + NUM_SPECIAL

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One (T,) array per text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text; special tokens say nothing, bytes that are not UTF-8 become U+FFFD."""
        return bytes(i - NUM_SPECIAL for i in ids if i >= NUM_SPECIAL).decode(errors="replace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The character of a printable ASCII byte, `<0xC3>` for any other."""
        return [_byte_piece(i) for i in ids]

    def save(self, directory: Path) -> None:
        """Writes codec.json."""
        write_codec(directory, self._tree())

    def _tree(self) -> dict[str, object]:
        return {"kind": self.kind}


def _byte_piece(i: int) -> str:
    if i < NUM_SPECIAL:
        return SPECIAL_PIECES[i]
    byte = i - NUM_SPECIAL
    return chr(byte) if 0x20 <= byte < 0x7F else f"<0x{byte:02X}>"


class WordCodec(TextCodec):
    """One token per word between whitespace; the amount of whitespace is lost (the lossless check counts it)."""

    kind = "words"

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.vocabulary = special_first(len(self.words) + NUM_SPECIAL)
        self._numbers = {word: number for number, word in enumerate(self.words, NUM_SPECIAL)}
        self.digest = digest_of(self._tree())

    @classmethod
    def fit(cls, texts: Iterable[str], *, min_count: int, limit: int | None) -> "WordCodec":
        """The most frequent words that occur at least `min_count` times, with the special tokens at most `limit` pieces."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.split())
        return cls(most_frequent(counts, min_count=min_count, limit=None if limit is None else limit - NUM_SPECIAL))

    def encode(self, text: str) -> Ids:
        """(T,) int32."""
        numbers = self._numbers
        return np.array([numbers.get(word, UNK_ID) for word in text.split()], dtype=np.int32)

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One (T,) array per text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Words joined by one space; padding, begin and end say nothing, an unknown word is "<unk>"."""
        return " ".join(self.pieces([i for i in ids if i >= UNK_ID]))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One string per id, for display."""
        return [SPECIAL_PIECES[i] if i < NUM_SPECIAL else self.words[i - NUM_SPECIAL] for i in ids]

    def save(self, directory: Path) -> None:
        """Writes codec.json."""
        write_codec(directory, self._tree())

    def _tree(self) -> dict[str, object]:
        return {"kind": self.kind, "words": list(self.words)}


def most_frequent(counts: Counter[str], *, min_count: int, limit: int | None) -> list[str]:
    """Symbols by falling frequency, equal ones in code point order. DataError if none is left."""
    ordered = sorted((symbol for symbol, count in counts.items() if count >= min_count), key=lambda symbol: (-counts[symbol], symbol))
    if not ordered:
        raise DataError(f"no symbol occurs {min_count} times: there is nothing to learn a vocabulary from")
    return ordered[:limit]
