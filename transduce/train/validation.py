"""What a model is worth on the validation pairs: loss with true previous tokens, scores of generated text, and whether
the decoder looks at the source at all.

In: a model and the prepared data. Out: figures by name and a few sample texts; of everything generated only strings are
kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from transduce.config import RunConfig
from transduce.data.batch import Batch, Padded
from transduce.data.codec import TEXT_KINDS
from transduce.data.examples import Record
from transduce.data.loader import PreparedData
from transduce.data.values import shown
from transduce.model.seq2seq import Seq2Seq
from transduce.train.judges import Better, make_judge
from transduce.train.objective import evaluation_loss, source_error
from transduce.train.precision import Precision

CHECKED_BATCHES = 8  # batches whose sources are exchanged; a difference of 2 % shows in a few hundred tokens
SMALLEST_GAIN = 0.02


@dataclass(frozen=True)
class Measured:
    """One validation. metrics: by name, `loss` always there. samples: (source, reference, output)."""

    metrics: dict[str, float]
    samples: list[tuple[str, str, str]]


class Validator:
    """Measures models on the same pairs again and again."""

    def __init__(self, config: RunConfig, data: PreparedData, precision: Precision) -> None:
        self.config = config.train.validation
        self.loss = config.train.loss
        self.precision = precision
        self.data = data
        self.is_text = data.target_codec.kind in TEXT_KINDS
        self.checked_batches = 0 if data.source_codec.kind == "none" else CHECKED_BATCHES
        wanted = [*self.config.metrics, config.train.metric]
        self.names = [name for name in dict.fromkeys(wanted) if name != "loss"]
        self.judge = make_judge(config, data, self.names)
        self.better: Better = "lower" if config.train.metric == "loss" else self.judge.better(config.train.metric)
        records = data.valid_records
        self.records = _spread(records, self.config.sentences) if self.names else records[: self.config.samples]

    def measure(self, model: Seq2Seq) -> Measured:
        """All figures of a model, which is left in evaluation mode."""
        model.eval()
        metrics = self.losses(model)
        if not self.records:
            return Measured(metrics, [])
        scores, outputs = self.judge.outputs(model, self.records)
        shown_records = self.records[: self.config.samples]
        samples = [(shown(record.source), shown(record.targets[0]), output) for record, output in zip(shown_records, outputs, strict=False)]
        return Measured(metrics | scores, samples)

    @torch.no_grad()
    def losses(self, model: Seq2Seq) -> dict[str, float]:
        """loss (nats a token, no smoothing; of numbers per frame), accuracy (share of tokens, or of frames within the tolerance), of
        text perplexity, source_gain: by how much of itself the error rises when the sources of a batch are exchanged (not of a
        language model). With CTC also
        ctc_loss (nats a token), its part of the loss, and ctc_unaligned, the pairs that are too short for it; the other figures are
        the decoder's."""
        total = correct = count = ctc = unaligned = 0.0
        true_loss = wrong_loss = 0.0
        checked = _even(self.data.valid.num_batches(0), self.checked_batches)
        for index, batch in enumerate(self.data.valid.batches(0)):
            batch = batch.to(self.precision.device)
            with self.precision.autocast():
                sums = evaluation_loss(model, batch, loss=self.loss)
                total, correct, count = total + float(sums.nll), correct + float(sums.correct), count + sums.count
                if sums.ctc is not None:
                    ctc, unaligned = ctc + float(sums.ctc), unaligned + sums.unaligned
                if index in checked and len(batch.ids) > 1:
                    true_loss += source_error(model, batch)
                    wrong_loss += source_error(model, with_wrong_sources(batch))
        loss = total / count
        perplexity = {"perplexity": math.exp(min(loss, 700.0))} if self.is_text else {}
        metrics = {"loss": loss, **perplexity, "accuracy": correct / count}
        if self.loss.ctc_weight:
            joint = (1 - self.loss.ctc_weight) * loss + self.loss.ctc_weight * ctc / count
            metrics |= {"loss": joint, "ctc_loss": ctc / count, "ctc_unaligned": unaligned}
        return metrics | ({"source_gain": wrong_loss / true_loss - 1} if true_loss else {})

    def alarms(self, metrics: dict[str, float], step: int) -> Iterator[str]:
        """Warnings when wrong sources hardly hurt, and when pairs are too short for CTC."""
        if metrics.get("ctc_unaligned"):
            yield (
                f"warning: {metrics['ctc_unaligned']:,.0f} validation pairs are too short for CTC and left out of ctc_loss: the encoder "
                "gives them fewer positions than they have labels. Shorten less (pyramid, front-end), or use longer target tokens"
            )
        gain = metrics.get("source_gain")
        if gain is None or step < self.config.source_check_after or gain >= SMALLEST_GAIN:
            return
        yield (
            f"warning: the decoder ignores the source: with wrong sources the validation loss rises by {gain:.1%} only. "
            "Check that source and target lines belong together; else train longer, or lower the learning rate"
        )


def with_wrong_sources(batch: Batch) -> Batch:
    """Every target with the source of the row before it."""
    return replace(batch, source=Padded(batch.source.data.roll(1, 0), batch.source.lengths.roll(1, 0)))


def _spread(records: list[Record], limit: int) -> list[Record]:
    """At most `limit` records from all over the file, the same ones every time; 0 = all."""
    return [records[index] for index in sorted(_even(len(records), limit))] if limit else records


def _even(count: int, limit: int) -> set[int]:
    return {int(index) for index in np.linspace(0, count - 1, min(limit, count))} if count else set()
