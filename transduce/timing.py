"""When each token of an output was said: by the CTC layer's best path, or where there is none by the decoder's attention.

In: a predictor of recordings, sources, and texts. Out: ids with start and end in seconds. The decision a reader would question:
attention says where a decoder looked, which is close to, but not, where a token lies; its times are made to run forwards, and are
a fallback for models without CTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transduce.data.audio import AudioCodec
from transduce.data.batch import Batch, pad_tokens
from transduce.data.codec import Codec
from transduce.data.values import Value
from transduce.decode.alignment import align
from transduce.decode.batches import plan_batches
from transduce.errors import ConfigError
from transduce.model.interface import Memory
from transduce.predict import Predictor
from transduce.readings import Readings, evaluation, read_values

TIMING_FRAMES = 12_000  # padded frames that are encoded at once


@dataclass(frozen=True)
class TokenTimes:
    """ids: (T,) tokens of a text. spans: (start, end) of each in seconds from the beginning of its source. confidences: 0 to 1."""

    ids: tuple[int, ...]
    spans: tuple[tuple[float, float], ...]
    confidences: tuple[float, ...]


def as_audio_codec(codec: Codec) -> AudioCodec:
    """The same codec, known to be one of recordings. Raises ConfigError where it is not."""
    match codec:
        case AudioCodec():
            return codec
    raise ConfigError(f"the source of this model is {codec.kind}, not recordings: only they have times")


def token_times(predictor: Predictor, sources: Sequence[Value], texts: Sequence[str]) -> list[TokenTimes | None]:
    """Times of the tokens of each text in its source; None where a source cannot be used or is too short for the text.

    Raises ConfigError for a model that has neither CTC nor attention, and for sources that are no recordings.
    """
    found: list[TokenTimes | None] = []
    for readings in read_values(predictor.members, sources, longest=predictor.ceilings.source, refuse=False):
        found += times_in(predictor, readings, texts[len(found) : len(found) + len(readings.values)])
    return found


def times_in(predictor: Predictor, readings: Readings, texts: Sequence[str]) -> list[TokenTimes | None]:
    """The same for sources that have been read. Raises ConfigError as `token_times`."""
    member, codec = predictor.members[0], as_audio_codec(predictor.source_codec)
    ids = [row.tolist() for row in predictor.target_codec.encode_many(list(texts))]
    found: list[TokenTimes | None] = [None] * len(texts)
    numbers = [number for number in readings.searchable() if ids[number]]
    device = next(member.model.parameters()).device
    with evaluation(predictor.members), torch.inference_mode():
        for places in plan_batches([readings.lengths[number] for number in numbers], budget=TIMING_FRAMES):
            batch = [numbers[place] for place in places]
            source = readings.padded(batch, device)[0]
            memory = member.model.encode(source)
            rows = [np.asarray(ids[number], dtype=np.int64) for number in batch]
            vocabulary = predictor.target_codec.vocabulary
            target = pad_tokens(rows, eos_id=vocabulary.eos_id, pad_id=vocabulary.pad_id).to(device)
            pairs = Batch(torch.arange(len(batch), device=device), source, target)
            spans = _ctc_spans(predictor, memory, rows) or _attention_spans(predictor, pairs, memory)
            lengths = memory.mask.sum(1).tolist()
            for number, length, span in zip(batch, lengths, spans, strict=True):
                hop = codec.config.features.hop_ms / 1000 * max(round(readings.lengths[number] / max(length, 1)), 1)
                found[number] = None if span is None else _in_seconds(ids[number], span, hop)
    return found


Spans = tuple[Sequence[int], Sequence[int], Sequence[float]]
"""First positions, positions behind the last, confidences."""


def _ctc_spans(predictor: Predictor, memory: Memory, rows: Sequence[np.ndarray]) -> list[Spans | None] | None:
    head = predictor.members[0].model.ctc
    if head is None:
        return None
    logs = head.log_probabilities(memory.states).cpu().numpy()
    found = align(logs, memory.mask.sum(1).tolist(), [row.tolist() for row in rows], blank_id=head.blank_id)
    return [None if one is None else (one.starts, one.ends, one.confidences) for one in found]


def _attention_spans(predictor: Predictor, batch: Batch, memory: Memory) -> list[Spans | None]:
    weights = predictor.members[0].model.attention(batch, memory)
    if weights is None:
        raise ConfigError("this model has neither CTC nor attention, so nobody knows when its words were said")
    return [_looked_at(row[: length - 1]) for row, length in zip(weights.float().cpu(), batch.target.lengths.tolist(), strict=True)]


def _looked_at(weights: Tensor) -> Spans:
    """weights: (T, S) -> the most looked at position of each token, never before that of the token before it."""
    confidences, positions = weights.max(1)
    starts = np.maximum.accumulate(positions.numpy()).tolist()
    return starts, [start + 1 for start in starts], confidences.tolist()


def _in_seconds(ids: Sequence[int], spans: Spans, hop: float) -> TokenTimes:
    starts, ends, confidences = spans
    times = tuple((start * hop, end * hop) for start, end in zip(starts, ends, strict=True))
    return TokenTimes(tuple(ids), times, tuple(confidences))
