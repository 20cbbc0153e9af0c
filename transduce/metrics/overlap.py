"""BLEU, chrF and TER through sacreBLEU (Post 2018): one implementation for everybody, with its signature.

In: texts as people write them, cased, not tokenized. Out: `Score`, `Comparison`. BLEU is Papineni 2002 with 13a
tokenization, chrF is Popović 2015 (chrF2), TER is Snover 2006. sacreBLEU is imported at the first use: it costs time.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from transduce.metrics.score import Better, Comparison, Score, check_texts

# sacreBLEU asks the same question at this many lines: text that ends in " ." has probably been tokenized already.
NUM_TOKENIZED_LINES = 100
MAX_RESAMPLED_SENTENCES = 10_000_000


@dataclass(frozen=True)
class SacreMetric:
    """A metric that sacreBLEU computes."""

    name: str
    better: Better
    kind: Literal["BLEU", "CHRF", "TER"]

    def __call__(self, predictions: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int = 0) -> Score:
        """The corpus score; `resamples` > 1 adds a 95 % bootstrap interval (sacreBLEU's: mean of resamples +- half a width)."""
        check_texts(predictions, references)
        metric = self._build()
        resamples = _affordable(resamples, len(predictions))
        result = metric.corpus_score(list(predictions), _columns(references), n_bootstrap=resamples)
        details: dict[str, object] = {"signature": str(metric.get_signature())}
        value = float(result.score)
        if resamples > 1:
            told = json.loads(result.format(width=6, signature=details["signature"], is_json=True))
            # sacreBLEU says nothing when every resample scores zero.
            mean, half = told.get("confidence_mean", value), told.get("confidence_var", 0.0)
            details["interval"] = [max(mean - half, 0.0), mean + half]
        if self.kind == "BLEU":
            details.update(precisions=[float(part) for part in result.precisions], brevity_penalty=float(result.bp))
            details.update(prediction_length=int(result.sys_len), reference_length=int(result.ref_len))
            tokenized = sum(text.endswith(" .") for text in predictions)
            if tokenized >= NUM_TOKENIZED_LINES:
                details["note"] = f"{tokenized} predictions end in ' .': BLEU expects text that is not tokenized"
        return Score(self.name, value, self.better, details)

    def compare(self, system: Sequence[str], baseline: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int) -> Comparison:
        """sacreBLEU's paired bootstrap test."""
        from sacrebleu.significance import PairedTest

        systems: list[tuple[str, Sequence[str]]] = [("baseline", list(baseline)), ("system", list(system))]
        resamples = _affordable(resamples, len(systems[0][1]))
        test = PairedTest(systems, {self.name: self._build()}, _columns(references), test_type="bs", n_samples=resamples)
        signatures, results = test()
        key = next(iter(signatures))
        other, value = cast(list[Any], results[key])
        # For equal scores sacreBLEU's formula gives its smallest p value, which people would read as "significant".
        p_value = 1.0 if value.score == other.score else float(value.p_value)
        return Comparison(self.name, self.better, float(value.score), float(other.score), p_value, str(signatures[key]))

    def _build(self) -> Any:
        from sacrebleu.metrics import bleu, chrf, ter

        match self.kind:
            case "BLEU":
                return _with_plain_scores(bleu.BLEU(force=True))
            case "CHRF":
                return _with_plain_scores(chrf.CHRF())
            case "TER":
                return _with_plain_scores(ter.TER())


def _with_plain_scores(metric: Any) -> Any:
    """The metric, whose resampled scores are Python numbers. sacreBLEU 2.6 mixes them with numpy's where some resamples match
    nothing at all, and then fails on the mean of the two kinds."""
    compute = metric._compute_score_from_stats

    def computed(counts: Any) -> Any:
        result = compute(counts)
        result.score = float(result.score)
        return result

    metric._compute_score_from_stats = computed
    return metric


BLEU = SacreMetric("bleu", "higher", "BLEU")
CHRF = SacreMetric("chrf", "higher", "CHRF")
TER = SacreMetric("ter", "lower", "TER")


def sentence_chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """chrF of each sentence alone, percent: to rank examples, not to report."""
    from sacrebleu.metrics import chrf

    metric = chrf.CHRF()
    return [float(metric.sentence_score(text, list(texts)).score) for text, texts in zip(predictions, references, strict=True)]


def _affordable(resamples: int, num_sentences: int) -> int:
    """sacreBLEU holds (resamples, sentences, counts) at once: fewer resamples (said in the signature) keep it below a gibibyte."""
    return min(resamples, max(100, MAX_RESAMPLED_SENTENCES // num_sentences))


def _columns(references: Sequence[Sequence[str]]) -> Any:
    """One list for each sentence -> sacreBLEU's one list for each reference, with None where a sentence has fewer."""
    width = max(len(texts) for texts in references)
    return [[texts[column] if column < len(texts) else None for texts in references] for column in range(width)]
