"""Outputs read off a CTC layer alone: the best path (Graves 2006, 3.2), or prefix beam search (Graves 2006; Hannun 2014).

In: a model with a CTC layer and a batch of sources. Out: hypotheses as of every search. The decision to question: both ways only propose
outputs. Each proposal is then scored exactly, by the sum over all of its paths, and proposals are ranked by that, so that a score means the
same whatever found the output, and the parts of a score are the log-probability of each token given those before it.
"""

import numpy as np
import torch
from torch import Tensor

from transduce.data.batch import Padded
from transduce.decode.ctc import Prefixes, start_prefixes
from transduce.decode.hypotheses import Finished, Hypothesis, Pools, make_hypothesis
from transduce.decode.length import length_limits
from transduce.decode.options import SearchConfig
from transduce.errors import DivergedError
from transduce.model.frontends import token_vocabulary
from transduce.model.heads import expect_ctc
from transduce.model.seq2seq import Seq2Seq

Output = tuple[int, ...]
TINY = 1e-38
"""The smallest probability of a blank: where a layer is sure of a token that may not be written, outputs still go on."""


def ctc_search(model: Seq2Seq, source: Padded, config: SearchConfig, *, max_length: int = 1024) -> list[list[Hypothesis]]:
    """Per source 1 to num_best hypotheses, best first. An output beyond its length limit is cut there and `truncated`.

    Raises ConfigError for a model without a CTC layer, DivergedError for scores that are not numbers.
    """
    head, vocabulary = expect_ctc(model.ctc), token_vocabulary(model.embedding)
    with torch.inference_mode():
        memory = model.encode(source)
        lengths = memory.mask.sum(1)
        prefixes = start_prefixes(model, memory)
        if bool(prefixes.blanks.isnan().any()):
            raise DivergedError("the model gives scores that are not numbers (NaN); its weights are damaged or training has diverged")
        banned = {vocabulary.bos_id, vocabulary.eos_id} | (set() if config.allow_unknown else {vocabulary.unk_id})
        allowed = prefixes.frames.index_fill(1, torch.tensor(sorted(banned), device=lengths.device), 0.0)  # (B, V, S)
        if config.beam_size == 1:
            found = [[output] for output in best_paths(allowed, head.blank_id)]
        else:
            rows = zip(allowed.transpose(1, 2).double().cpu().numpy(), lengths.tolist(), strict=True)
            found = [prefix_beam(row[:length], config.beam_size, blank_id=head.blank_id) for row, length in rows]
        limits = length_limits(config, (lengths - 1).cpu().numpy(), ceiling=max_length - 1).maximum.tolist()
        return ranked(found, prefixes, limits=limits, config=config)


def best_paths(frames: Tensor, blank_id: int) -> list[Output]:
    """frames: (B, V, S), padding sure of the blank -> the most probable token of each position, repeats and blanks taken out."""
    best = frames.argmax(1)  # (B, S)
    changes = torch.nn.functional.pad(best[:, 1:] != best[:, :-1], (1, 0), value=True)
    kept = changes & (best != blank_id)
    return [tuple(row[mask].tolist()) for row, mask in zip(best, kept, strict=True)]


def prefix_beam(frames: np.ndarray, beam_size: int, *, blank_id: int) -> list[Output]:
    """frames: (S, V) probabilities of one sentence -> at most `beam_size` outputs, the most probable first.

    A position extends each kept output by its 2 * beam_size most probable tokens. Sums are scaled at each position, never logarithms.
    """
    count = min(2 * beam_size, frames.shape[1])
    beam: dict[Output, tuple[float, float]] = {(): (1.0, 0.0)}  # ends in a blank, ends in its last token
    for row in frames:
        nothing = max(float(row[blank_id]), TINY)
        tokens = [int(token) for token in np.argpartition(-row, count - 1)[:count] if token != blank_id and row[token] > 0]
        grown: dict[Output, tuple[float, float]] = {}
        for output, (blank, labelled) in beam.items():
            stays = float(row[output[-1]]) * labelled if output else 0.0
            _add(grown, output, blank=(blank + labelled) * nothing, labelled=stays)
            for token in tokens:
                before = blank if output and token == output[-1] else blank + labelled
                _add(grown, (*output, token), blank=0.0, labelled=before * float(row[token]))
        best = sorted(grown.items(), key=lambda item: -sum(item[1]))[:beam_size]
        scale = sum(best[0][1])
        beam = {output: (blank / scale, labelled / scale) for output, (blank, labelled) in best if blank + labelled > 0}
    return list(beam)


def _add(grown: dict[Output, tuple[float, float]], output: Output, *, blank: float, labelled: float) -> None:
    """More paths of an output."""
    before = grown.get(output, (0.0, 0.0))
    grown[output] = (before[0] + blank, before[1] + labelled)


def ranked(found: list[list[Output]], prefixes: Prefixes, *, limits: list[int], config: SearchConfig) -> list[list[Hypothesis]]:
    """The proposals of each sentence as hypotheses, cut at its limit, scored exactly, best first."""
    cut = [
        list(dict.fromkeys((output[:limit], len(output) > limit) for output in outputs))
        for outputs, limit in zip(found, limits, strict=True)
    ]
    width = max(map(len, cut), default=0)
    rows = [output for own in cut for output, _ in [*own, *[((), False)] * (width - len(own))]]
    steps = forced_prefix_scores(prefixes, rows).cpu().numpy()  # (B * width, T + 1)
    pools = Pools(len(found), config.num_best)
    for sentence, own in enumerate(cut):
        for place, (output, truncated) in enumerate(own):
            values = steps[sentence * width + place, : len(output) + (not truncated)].tolist()
            hypothesis = make_hypothesis(list(output), values, total=sum(values), truncated=truncated, config=config)
            pools.add(sentence, Finished.of(hypothesis))
    return pools.results()


def forced_prefix_scores(prefixes: Prefixes, outputs: list[Output]) -> Tensor:
    """outputs: B * W of them, grouped by the B sentences of `prefixes` -> (B * W, T + 1) log-probability of each token given those before
    it, then of the end; 0 behind it. Each row sums to the log-probability of the output, all of its paths together."""
    count, longest, device = len(outputs), max(map(len, outputs), default=0), prefixes.total.device
    width = count // max(1, len(prefixes.frames))
    tokens = torch.tensor([[*output, *[0] * (longest - len(output))] for output in outputs], dtype=torch.int64, device=device)
    lengths = torch.tensor([len(output) for output in outputs], device=device)
    state = prefixes.select(torch.arange(len(prefixes.frames), device=device).repeat_interleave(width))
    scores = torch.zeros(count, longest + 1, dtype=torch.float64, device=device)
    for place in range(longest + 1):
        scores[:, place] = torch.where(lengths == place, state.ended, scores[:, place])
        if place < longest:
            following = state.extended(tokens[:, place])
            scores[:, place] = torch.where(lengths > place, following.total - state.total, scores[:, place])
            state = following
    return scores
