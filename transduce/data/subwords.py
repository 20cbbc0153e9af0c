"""Subwords: a SentencePiece model (Kudo and Richardson 2018), trained here or brought by the user.

In: text. Out: token ids without begin and end of sequence, and back.
Ours are lossless but for a literal U+2581, which SentencePiece keeps for the space: no normalisation, whitespace
kept, unseen characters as bytes. The decision a reader would question: whatever numbers a brought model gives to
padding, begin, end and unknown (or has none for), the codec renumbers so that these four come first, as in every
other codec; the pieces follow in the model's own order.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import sentencepiece

from transduce.data.sampling import evenly_sampled
from transduce.data.symbols import BOS_ID, EOS_ID, NUM_SPECIAL, PAD_ID, SPECIAL_PIECES, UNK_ID, special_first, split_rows, write_codec
from transduce.data.tokens import Ids, TextCodec
from transduce.errors import ConfigError, DataError

MODEL_FILE = "sentencepiece.model"
TRAINING_THREADS = 4  # part of the result: partial sums depend on it, so it does not follow the machine
LONGEST_TRAINING_TEXT_BYTES = 100_000


class SentencePieceCodec(TextCodec):
    """A SentencePiece model with the special tokens at 0 to 3."""

    kind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise DataError(f"not a SentencePiece model: {error}") from None
        self.digest = hashlib.sha256(model).hexdigest()
        self._to_ours, self._to_model = _numbering(self._processor)
        self.vocabulary = special_first(len(self._to_model))

    def encode(self, text: str) -> Ids:
        """(T,) int32."""
        return self._to_ours[np.array(self._processor.encode(text, out_type=int), dtype=np.int64)]

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One (T,) array per text, on all processors this process may use."""
        if len(texts) < 2:
            return [self.encode(text) for text in texts]
        rows = self._processor.encode(list(texts), out_type=int, num_threads=len(os.sched_getaffinity(0)))
        lengths = [len(row) for row in rows]
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=sum(lengths))
        return split_rows(self._to_ours[flat], lengths)

    def decode(self, ids: Sequence[int]) -> str:
        """Text; padding, begin and end say nothing, bytes that are not UTF-8 become U+FFFD."""
        text: str = self._processor.decode([self._to_model[i] for i in ids if i >= UNK_ID])
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One string per id, for display."""
        return [self._pieces[i] for i in ids]

    @cached_property
    def _pieces(self) -> list[str]:
        """By our id; kept, because every prediction is shown in pieces."""
        return [*SPECIAL_PIECES, *(self._processor.id_to_piece(number) for number in self._to_model[NUM_SPECIAL:])]

    def save(self, directory: Path) -> None:
        """Writes codec.json and sentencepiece.model."""
        write_codec(directory, {"kind": self.kind, "size": self.vocabulary.size})
        (directory / MODEL_FILE).write_bytes(self.model)


def _numbering(processor: sentencepiece.SentencePieceProcessor) -> tuple[Ids, list[int]]:
    """Model id -> our id, and our id -> model id (-1 for a special token that the model lacks)."""
    special = [-1] * NUM_SPECIAL
    special[PAD_ID], special[BOS_ID], special[EOS_ID] = processor.pad_id(), processor.bos_id(), processor.eos_id()
    special[UNK_ID] = processor.unk_id()
    named = set(special)
    to_model = special + [number for number in range(processor.get_piece_size()) if number not in named]
    to_ours = np.zeros(processor.get_piece_size(), dtype=np.int32)
    for ours, theirs in enumerate(to_model):
        if theirs >= 0:
            to_ours[theirs] = ours
    return to_ours, to_model


def read_model(path: Path) -> SentencePieceCodec:
    """The model in a file that the user brings."""
    try:
        return SentencePieceCodec(path.read_bytes())
    except FileNotFoundError:
        raise DataError("no such file", path) from None
    except DataError as error:
        raise DataError(str(error), path) from None


def train_model(texts: Iterable[str], *, model_type: str, size: int, coverage: float, sample: int, seed: int) -> SentencePieceCodec:
    """Learn at most `size` pieces from an even sample of at most `sample` texts. The same texts and seed give the same bytes."""
    chosen = evenly_sampled(texts, sample, seed)
    if not chosen:
        raise DataError("there is no text to learn a vocabulary from")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(chosen),
            model_writer=model,
            model_type=model_type,
            vocab_size=size,
            hard_vocab_limit=False,  # a small corpus has fewer pieces than asked for; the real size is reported
            character_coverage=coverage,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            pad_id=PAD_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            num_threads=TRAINING_THREADS,
            max_sentence_length=LONGEST_TRAINING_TEXT_BYTES,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2]
        raise ConfigError(f"cannot learn a {model_type} vocabulary of {size} pieces: {reason} (256 of them are bytes)") from None
    return SentencePieceCodec(model.getvalue())


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """The trainer takes no line ends and leaves out texts with tabs; both characters are encoded as bytes later."""
    for text in texts:
        yield from text.replace("\t", "\n").split("\n")
