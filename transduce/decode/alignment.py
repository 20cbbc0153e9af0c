"""Where output tokens lie in the source, by CTC: the most probable path that spells it (Viterbi; Graves 2006, 4.1's lattice).

In: log-probabilities of a CTC layer and outputs. Out: for each token the positions that it holds and how sure the layer is there.
The decision to question: all outputs of a batch walk through their lattices together, position by position, in numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEVER = -np.inf


@dataclass(frozen=True)
class Alignment:
    """starts, ends: (T,) first position of each token and the one behind its last, in positions of the encoder. confidences: (T,) mean
    probability of each token over its positions, 0 to 1. confidence: mean over the tokens, NaN of an empty output."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    confidences: tuple[float, ...]

    @property
    def confidence(self) -> float:
        """Mean over the tokens."""
        return float(np.mean(self.confidences)) if self.confidences else float("nan")


def align(logs: np.ndarray, lengths: Sequence[int], outputs: Sequence[Sequence[int]], *, blank_id: int) -> list[Alignment | None]:
    """logs: (B, S, V), lengths: B real positions, outputs: B token sequences without their end -> one alignment each; None where the
    source has fewer positions than the output needs (one per token, and one between two equal neighbours)."""
    if not len(outputs):
        return []
    labels, sizes = _lattice(outputs, blank_id)  # (B, 2 T + 1), (B,)
    back, last = _walk(logs, np.asarray(lengths), labels, blank_id=blank_id)
    rows = np.arange(len(outputs))
    final = np.maximum(sizes - 2, 0)
    place = np.where(last[rows, sizes - 1] >= last[rows, final], sizes - 1, final)
    reachable = last[rows, place] > NEVER
    path = np.full(logs.shape[:2], -1)
    for position in range(logs.shape[1] - 1, -1, -1):
        inside = position < np.asarray(lengths)
        path[inside, position] = place[inside]
        place = np.where(inside, place - back[position, rows, place], place)
    return [_spans(path[row, : lengths[row]], logs[row], output) if reachable[row] else None for row, output in enumerate(outputs)]


def _lattice(outputs: Sequence[Sequence[int]], blank_id: int) -> tuple[np.ndarray, np.ndarray]:
    """-> (B, 2 T + 1) blank, token, blank, token, ..., blank, and how many of these each row has."""
    longest = max(map(len, outputs))
    labels = np.full((len(outputs), 2 * longest + 1), blank_id, dtype=np.int64)
    for row, output in enumerate(outputs):
        labels[row, 1 : 2 * len(output) : 2] = output
    return labels, np.array([2 * len(output) + 1 for output in outputs])


def _walk(logs: np.ndarray, lengths: np.ndarray, labels: np.ndarray, *, blank_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The best path to each place of the lattice. -> steps back (S, B, P): 0, 1 or 2 places; scores at each row's last position (B, P)."""
    count, places = labels.shape
    skips = np.zeros(labels.shape, dtype=bool)
    skips[:, 2:] = (labels[:, 2:] != blank_id) & (labels[:, 2:] != labels[:, :-2])
    scores = np.full((count, places), NEVER)
    scores[:, 0] = 0.0  # before the first position, so that it may begin in the first blank or the first token
    back = np.zeros((logs.shape[1], count, places), dtype=np.int8)
    rows = np.arange(count)[:, None]
    for position in range(logs.shape[1]):
        moved = np.stack([scores, _shifted(scores, 1), np.where(skips, _shifted(scores, 2), NEVER)])  # (3, B, P)
        back[position] = moved.argmax(0)
        following = moved.max(0) + logs[rows, position, labels]
        scores = np.where((position < lengths)[:, None], following, scores)
    return back, scores


def _shifted(scores: np.ndarray, places: int) -> np.ndarray:
    """The score of the place so many before, NEVER where there is none."""
    shifted = np.full_like(scores, NEVER)
    if places < scores.shape[1]:
        shifted[:, places:] = scores[:, :-places]
    return shifted


def _spans(path: np.ndarray, logs: np.ndarray, output: Sequence[int]) -> Alignment:
    """path: the place in the lattice at each position of one row -> where its odd places, the tokens, lie."""
    starts, ends, confidences = [], [], []
    for number, token in enumerate(output):
        positions = np.flatnonzero(path == 2 * number + 1)
        starts.append(int(positions[0]))
        ends.append(int(positions[-1]) + 1)
        confidences.append(float(np.exp(logs[positions, token]).mean()))
    return Alignment(tuple(starts), tuple(ends), tuple(confidences))
