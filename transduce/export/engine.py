"""Search with CTranslate2: settings in, hypotheses out that torch would have found.

In: an exported model, sources, search settings. Out: the best hypothesis of each source. CTranslate2 keeps the same W hypotheses open
as `decode/beam.py`; what differs is when it stops, what it divides scores by, and that it forbids tokens before the softmax.

The decision to question: so only rules of stopping are taken over that both have, and every answer is checked. A sentence that
reaches its length limit, or whose best hypothesis might have been dropped before the lengths were weighed, is left to torch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from transduce.data.tokens import TextCodec
from transduce.decode.hypotheses import Hypothesis, make_hypothesis
from transduce.decode.length import length_divisor, length_limits
from transduce.decode.options import SearchConfig
from transduce.export.ctranslate2 import vocabulary_of
from transduce.readings import Readings

BATCH = 64  # sentences that one thread searches at once; 32 and 2,048 tokens were slower
NO_PENALTY = 1e-9  # as an exponent of the length it is 1 in float32, yet not the 0 that switches CTranslate2 to another rule of stopping


@dataclass(frozen=True)
class CTranslate2Options:
    """How an exported model runs.

    compute_type: int8 or float32. threads: batches searched at once, one processor thread each. probabilities: whether hypotheses carry
    the probability of each token, which costs a second pass. checked: the kinds of search that passed the parity check.
    """

    compute_type: str
    threads: int
    probabilities: bool = True
    reverse_source: bool = False
    checked: frozenset[str] = frozenset({"greedy", "beam"})


class CTranslate2Engine:
    """An exported model in CTranslate2, on the processor."""

    def __init__(self, folder: Path, *, codecs: tuple[TextCodec, TextCodec], options: CTranslate2Options) -> None:
        self.options = options
        self.source_names, self.target_names = vocabulary_of(codecs[0]), vocabulary_of(codecs[1])
        self.target_ids = {name: number for number, name in enumerate(self.target_names)}
        self.source_end = self.source_names[codecs[0].vocabulary.eos_id]
        self.special = codecs[1].vocabulary
        kind, threads = options.compute_type, options.threads
        self.translator = ctranslate2.Translator(str(folder), compute_type=kind, inter_threads=threads, intra_threads=1)

    @property
    def name(self) -> str:
        """See `Engine`."""
        threads = f"{self.options.threads} x 1 threads"
        return f"ctranslate2 {ctranslate2.__version__}, {self.options.compute_type}, {threads}"

    def obstacle(self, config: SearchConfig) -> str | None:
        """See `Engine`."""
        kind = kind_of(config)
        return setting_obstacle(config) or (None if kind in self.options.checked else f"its {kind} search failed the parity check")

    def search(
        self, read: Readings, plan: Sequence[Sequence[int]], config: SearchConfig, *, ceiling: int
    ) -> Iterator[list[Hypothesis | None]]:
        """See `Engine`. All batches are given to the threads at once."""
        rows = [[self._source(read.first(number).data) for number in batch] for batch in plan]
        waiting = [
            self._translate(batch, config, longest=self._longest(batch_numbers, read, config, ceiling=ceiling))
            for batch, batch_numbers in zip(rows, plan, strict=True)
        ]
        found = [[self._best(one.result(), config) for one in batch] for batch in waiting]
        if not self.options.probabilities:
            yield from found
            return
        scores = [self._score(sources, batch) for sources, batch in zip(rows, found, strict=True)]
        for batch, values in zip(found, scores, strict=True):
            logs = iter(values)
            yield [None if one is None else _rescored(one, next(logs).result().log_probs, config) for one in batch]

    def _source(self, row: np.ndarray) -> list[str]:
        names = [self.source_names[number] for number in row.tolist()] + [self.source_end]
        return names[::-1] if self.options.reverse_source else names

    def _longest(self, batch: Sequence[int], read: Readings, config: SearchConfig, *, ceiling: int) -> int:
        """The smallest length limit of a batch, in tokens without the end; what reaches it goes to torch with its own limit."""
        lengths = np.array([read.lengths[number] - 1 for number in batch])
        return int(length_limits(config, lengths, ceiling=ceiling - 1).maximum.min())

    def _translate(self, sources: list[list[str]], config: SearchConfig, *, longest: int) -> list[Any]:
        forbidden = {self.special.pad_id, self.special.bos_id} | (set() if config.allow_unknown else {self.special.unk_id})
        return list(
            self.translator.translate_batch(
                sources,
                asynchronous=True,
                max_batch_size=BATCH,
                max_input_length=0,
                max_decoding_length=longest + 1,
                min_decoding_length=0,
                suppress_sequences=[[self.target_names[number]] for number in sorted(forbidden)],
                return_end_token=True,
                return_scores=True,
                **search_arguments(config),
            )
        )

    def _best(self, result: Any, config: SearchConfig) -> Hypothesis | None:
        """The best hypothesis by our score; None where torch might find another one."""
        rows = [[self.target_ids[name] for name in names] for names in result.hypotheses]
        if any(not row or row[-1] != self.special.eos_id for row in rows):
            return None
        exponent = search_arguments(config).get("length_penalty", 0.0)
        totals = [score * len(row) ** exponent for score, row in zip(result.scores, rows, strict=True)]
        scores = [total / length_divisor(config, len(row)) for total, row in zip(totals, rows, strict=True)]
        best = max(range(len(rows)), key=lambda place: scores[place])
        if len(rows) > 1 and scores[best] < _highest_dropped(totals, rows, config):
            return None
        tokens = tuple(rows[best][:-1])
        return Hypothesis(tokens, scores[best], totals[best], (), truncated=False)

    def _score(self, sources: list[list[str]], found: list[Hypothesis | None]) -> list[Any]:
        """Forced scoring of what was found, without anything forbidden, as torch scores."""
        pairs = [(source, one.tokens) for source, one in zip(sources, found, strict=True) if one is not None]
        if not pairs:
            return []
        targets = [[self.target_names[token] for token in tokens] for _, tokens in pairs]
        return list(
            self.translator.score_batch(
                [source for source, _ in pairs], targets, asynchronous=True, max_batch_size=BATCH, max_input_length=0
            )
        )


def kind_of(config: SearchConfig) -> str:
    """greedy or beam: what the parity check tells apart."""
    return "greedy" if config.beam_size == 1 else "beam"


def setting_obstacle(config: SearchConfig) -> str | None:
    """The first setting that CTranslate2 cannot search with as torch does, and why; None where there is none."""
    reasons = {
        "sampling": config.sampling is not None and "draws its random numbers otherwise",
        "num_best": config.num_best > 1 and "drops hypotheses before our length penalty ranks them",
        "ctc_weight": config.ctc_weight > 0 and "knows no CTC layer",
        "min_length": config.min_length > 0 and "spreads the probability of a forbidden end over the other tokens",
        "min_length_ratio": config.min_length_ratio > 0 and "spreads the probability of a forbidden end over the other tokens",
        "no_repeat_ngram": config.no_repeat_ngram > 0 and "spreads the probability of forbidden tokens over the others",
        "repetition_penalty": config.repetition_penalty != 1 and "re-weighs logits, not log-probabilities",
        "early_stop": not _stops_alike(config) and "stops a beam by `first` or `full` only, or where length_penalty is none",
    }
    found = next(((name, why) for name, why in reasons.items() if why), None)
    return None if found is None else f"search.{found[0]} = {_shown(config, found[0])}: ctranslate2 {found[1]}"


def _shown(config: SearchConfig, name: str) -> str:
    return "on" if name == "sampling" else str(config.model_dump()[name])


def _stops_alike(config: SearchConfig) -> bool:
    return config.beam_size == 1 or config.early_stop in ("first", "full") or _unweighed(config)


def _unweighed(config: SearchConfig) -> bool:
    """Whether hypotheses are ranked by their log-probability as it is."""
    return config.length_penalty == "none" or (config.length_penalty == "wu" and config.alpha == 0)


def search_arguments(config: SearchConfig) -> dict[str, Any]:
    """How CTranslate2 is told to search and to stop (its translation options).

    Without a length penalty it stops when the best of all continuations is an end: from then on totals only fall, so whatever
    finished with the highest total stays the best, as `likely`, `best` and `never` also find. With one it stops when
    beam_size * patience hypotheses have finished; those that finish in the same step have the same length.
    """
    width = config.beam_size
    if width == 1:
        return {"beam_size": 1, "length_penalty": 0.0}
    if config.early_stop == "first":
        return {"beam_size": width, "length_penalty": 1.0, "patience": 1 / width, "num_hypotheses": 1}
    if config.early_stop == "full":
        exponent = 1.0 if config.length_penalty == "average" else NO_PENALTY
        return {"beam_size": width, "length_penalty": exponent, "num_hypotheses": width}
    return {"beam_size": width, "length_penalty": 0.0, "num_hypotheses": 1}


def _highest_dropped(totals: Sequence[float], rows: Sequence[Sequence[int]], config: SearchConfig) -> float:
    """What a hypothesis can score at most that finished but was not returned, as more than W may do in the last step.

    It ranked behind the last one returned. Where it ranked by its total, that of the last one bounds its own, and the last step's
    length, which one of the returned ones has, its length.
    """
    if config.length_penalty == "average" or _unweighed(config):
        return -math.inf
    return min(totals) / length_divisor(config, max(len(row) for row in rows))


def _rescored(found: Hypothesis, logs: Sequence[float], config: SearchConfig) -> Hypothesis:
    """The same tokens with the log-probability of each, the end included, and scores made of these."""
    values = [float(value) for value in logs]
    return make_hypothesis(list(found.tokens), values, total=sum(values), truncated=False, config=config)
