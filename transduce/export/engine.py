"""Search with CTranslate2: settings in, hypotheses out that torch would have found.

In: an exported model, sources, search settings. Out: the best hypothesis of each source. CTranslate2 keeps the same W hypotheses open
as `decode/beam.py`; what differs is when it stops, what it divides scores by, and that it forbids tokens before the softmax.

The decision to question: so only rules of stopping are taken over that both have, and every answer is checked. Left to torch are the
sentences whose beam reaches the length limit, or whose best hypothesis might have been dropped before the lengths were weighed. A greedy
search takes one token after the other, so nothing has to be forbidden in advance: what took no forbidden token would have come with
forbidding as well, and what is cut at its length limit is the beginning of what CTranslate2 went on with.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import ctranslate2
import numpy as np
import torch

from transduce.data.tokens import TextCodec
from transduce.decode.batches import longest_first
from transduce.decode.hypotheses import Hypothesis, make_hypothesis
from transduce.decode.length import length_divisor, length_limits
from transduce.decode.options import SearchConfig
from transduce.export.ctranslate2 import vocabulary_of
from transduce.readings import Readings

BATCH = 32  # sentences that one thread searches at once; of 64 a beam is slower, and more of a greedy batch is padding
NO_PENALTY = 1e-9  # as an exponent of the length it is 1 in float32, yet not the 0 that switches CTranslate2 to another rule of stopping


@dataclass(frozen=True)
class CTranslate2Options:
    """How an exported model runs.

    compute_type: int8 or float32. threads: batches searched at once, one processor thread each. probabilities: whether hypotheses carry
    the probability of each token, which costs a second pass. checked: the kinds of search that passed the parity check. shortlisted: those
    that passed it with the shortlist, which the export must hold.
    """

    compute_type: str
    threads: int
    probabilities: bool = True
    reverse_source: bool = False
    checked: frozenset[str] = frozenset({"greedy", "beam"})
    shortlisted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Asked:
    """A batch that the threads have. limits: longest output of each source, in tokens without the end. results: to be waited for."""

    numbers: list[int]
    sources: list[list[str]]
    limits: list[int]
    results: list[Any]


class CTranslate2Engine:
    """An exported model in CTranslate2, on the processor."""

    def __init__(self, folder: Path, *, codecs: tuple[TextCodec, TextCodec], options: CTranslate2Options) -> None:
        self.options = options
        self.source_names, self.target_names = vocabulary_of(codecs[0]), vocabulary_of(codecs[1])
        self.target_ids = {name: number for number, name in enumerate(self.target_names)}
        self.source_end = self.source_names[codecs[0].vocabulary.eos_id]
        self.special = codecs[1].vocabulary
        kind, threads, ours = options.compute_type, options.threads, torch.get_num_threads()
        self.translator = ctranslate2.Translator(
            str(folder), compute_type=kind, inter_threads=threads, intra_threads=1, max_queued_batches=-1
        )
        torch.set_num_threads(ours)  # CTranslate2 sets its own for the whole thread; what it leaves to torch would get one

    @property
    def name(self) -> str:
        """See `Engine`."""
        threads = f"{self.options.threads} x 1 threads"
        kinds = f" ({' and '.join(sorted(self.options.shortlisted))} with a shortlist)" if self.options.shortlisted else ""
        return f"ctranslate2 {ctranslate2.__version__}, {self.options.compute_type}{kinds}, {threads}"

    def obstacle(self, config: SearchConfig) -> str | None:
        """See `Engine`."""
        kind = kind_of(config)
        passed = kind in self.options.checked or self._shortlisted(config)
        return setting_obstacle(config) or (None if passed else f"its {kind} search failed the parity check")

    def _shortlisted(self, config: SearchConfig) -> bool:
        """Whether a search considers the tokens of a shortlist only."""
        return config.shortlist and kind_of(config) in self.options.shortlisted

    def search(self, read: Readings, config: SearchConfig, *, ceiling: int) -> Iterator[tuple[list[int], list[Hypothesis | None]]]:
        """See `Engine`. All batches are given to the threads at once; those that need a second pass come last."""
        waiting = [self._ask(batch, read, config, ceiling=ceiling) for batch in batches_of(read)]
        rest = []
        for asked in waiting:
            found = [self._best(one.result(), limit, config) for one, limit in zip(asked.results, asked.limits, strict=True)]
            scores = self._score(asked.sources, found)
            if scores:
                rest.append((asked.numbers, found, scores))
            else:
                yield asked.numbers, found
        for numbers, found, scores in rest:
            logs = iter(scores)
            yield numbers, [_rescored(one, next(logs).result().log_probs, config) if self._is_scored(one) else one for one in found]

    def _source(self, row: np.ndarray) -> list[str]:
        names = [self.source_names[number] for number in row.tolist()] + [self.source_end]
        return names[::-1] if self.options.reverse_source else names

    def _ask(self, batch: list[int], read: Readings, config: SearchConfig, *, ceiling: int) -> _Asked:
        """Give a batch to the threads."""
        sources = [self._source(read.first(number).data) for number in batch]
        limits = length_limits(config, np.array([read.lengths[number] - 1 for number in batch]), ceiling=ceiling - 1).maximum
        greedy = config.beam_size == 1
        results = self.translator.translate_batch(
            sources,
            asynchronous=True,
            max_batch_size=len(batch),
            max_input_length=0,
            max_decoding_length=int(limits.max() if greedy else limits.min()) + 1,
            min_decoding_length=0,
            suppress_sequences=None if greedy else [[self.target_names[number]] for number in sorted(self._forbidden(config))],
            return_end_token=True,
            return_scores=True,
            use_vmap=self._shortlisted(config),
            **search_arguments(config),
        )
        return _Asked(batch, sources, limits.tolist(), results)

    def _forbidden(self, config: SearchConfig) -> set[int]:
        return {self.special.pad_id, self.special.bos_id} | (set() if config.allow_unknown else {self.special.unk_id})

    def _best(self, result: Any, limit: int, config: SearchConfig) -> Hypothesis | None:
        """The best hypothesis by our score, at most `limit` tokens; None where torch might find another one."""
        rows = [[self.target_ids[name] for name in names] for names in result.hypotheses]
        if config.beam_size == 1:
            return self._greedy(rows[0], result.scores[0], limit=limit, config=config)
        if any(not row or row[-1] != self.special.eos_id for row in rows):
            return None
        exponent = search_arguments(config).get("length_penalty", 0.0)
        totals = [score * len(row) ** exponent for score, row in zip(result.scores, rows, strict=True)]
        scores = [total / length_divisor(config, len(row)) for total, row in zip(totals, rows, strict=True)]
        best = max(range(len(rows)), key=lambda place: scores[place])
        if len(rows) > 1 and scores[best] < _highest_dropped(totals, rows, config):
            return None
        return Hypothesis(tuple(rows[best][:-1]), scores[best], totals[best], (), truncated=False)

    def _greedy(self, row: list[int], total: float, *, limit: int, config: SearchConfig) -> Hypothesis | None:
        """What greedy search took, cut at the limit (then without its score); None where it took what is forbidden, or nothing."""
        cut = len(row) > limit + 1 or row[-1:] != [self.special.eos_id]
        tokens = tuple(row[:limit] if cut else row[:-1])
        if not self._forbidden(config).isdisjoint(tokens) or (cut and len(row) <= limit):
            return None
        return Hypothesis(tokens, total / length_divisor(config, len(row)), total, (), truncated=cut)

    def _is_scored(self, found: Hypothesis | None) -> TypeGuard[Hypothesis]:
        """Whether a hypothesis needs the log-probability of each token."""
        return found is not None and (found.truncated or self.options.probabilities)

    def _score(self, sources: list[list[str]], found: list[Hypothesis | None]) -> list[Any]:
        """Forced scoring of what was found where it is needed, without anything forbidden, as torch scores."""
        pairs = [(source, one.tokens) for source, one in zip(sources, found, strict=True) if self._is_scored(one)]
        if not pairs:
            return []
        targets = [[self.target_names[token] for token in tokens] for _, tokens in pairs]
        return list(
            self.translator.score_batch(
                [source for source, _ in pairs], targets, asynchronous=True, max_batch_size=BATCH, max_input_length=0
            )
        )


def batches_of(read: Readings) -> list[list[int]]:
    """The numbers of the sources that can be searched, those of like length together, longest first."""
    numbers = read.searchable()
    order = [numbers[place] for place in longest_first([read.lengths[number] for number in numbers])]
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


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
    """The same tokens with the log-probability of each, the end included unless it was cut, and scores made of these."""
    values = [float(value) for value in (logs[:-1] if found.truncated else logs)]
    return make_hypothesis(list(found.tokens), values, total=sum(values), truncated=found.truncated, config=config)
