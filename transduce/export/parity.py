"""Does an exported model answer as the model does? Both engines search the same sources, and their outputs are compared.

In: a predictor on torch, the same model on another engine, sources. Out: an `Agreement` for each kind of search and of numbers.
The decision to question: float32 must give the same outputs and scores up to rounding. 8-bit weights cannot; they pass where their
outputs are nearly the same texts and, where references are known, as good. With a shortlist texts may differ more: what probability the
tokens left out have (that of label smoothing, say) goes to the others, so longer outputs gain a little.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transduce.data.examples import read_pairs
from transduce.data.loader import DataConfig
from transduce.data.report import DataReport
from transduce.data.tokens import TextCodec
from transduce.data.values import shown
from transduce.decode.options import SearchConfig
from transduce.engines import EngineChoice
from transduce.errors import DataError, StorageError
from transduce.export.record import COMPUTE_TYPES, KINDS, SHORTLISTED, Agreement
from transduce.metrics import compute_metrics
from transduce.predict import Prediction, Predictor

METRIC = "chrf"  # defined for one word as for a paragraph, so it judges every kind of text
BEAM = 5
SENTENCES = 200
LONGEST_GENERATED = 30  # tokens


@dataclass(frozen=True)
class Bounds:
    """What an engine must keep to pass; fields as in `Agreement`. loss: of chrF against references, in points."""

    same: float
    likeness: float
    loss: float
    score_error: float


BOUNDS = {
    "float32": Bounds(same=0.99, likeness=99.0, loss=0.1, score_error=1e-3),
    SHORTLISTED: Bounds(same=0.0, likeness=90.0, loss=0.5, score_error=float("inf")),
    "int8": Bounds(same=0.0, likeness=95.0, loss=0.5, score_error=float("inf")),
}


@dataclass(frozen=True)
class Examples:
    """Sources to compare on, their references where they are known, and where they come from, for people."""

    sources: list[str]
    references: list[list[str]] | None
    origin: str


def validation_examples(data: DataConfig) -> Examples | None:
    """Up to `SENTENCES` pairs spread over the validation data of a model; None where its files are not on this machine."""
    try:
        records = list(read_pairs(data.valid, errors=data.errors, report=DataReport(), reading=data.reading))
    except (DataError, StorageError):
        return None
    chosen = records[:: -(-len(records) // SENTENCES)] if records else []
    references = [[shown(target) for target in record.targets] for record in chosen]
    return Examples([shown(record.source) for record in chosen], references, f"{len(chosen)} of the validation data") if chosen else None


def generated_examples(codec: TextCodec, longest: int, seed: int = 1) -> Examples:
    """Texts of random tokens. longest: of a source, in tokens with the end."""
    draw, vocabulary = random.Random(seed), codec.vocabulary
    lengths = [draw.randint(1, min(LONGEST_GENERATED, max(longest - 1, 1))) for _ in range(SENTENCES)]
    rows = [[draw.randrange(vocabulary.unk_id + 1, vocabulary.size) for _ in range(length)] for length in lengths]
    return Examples([codec.decode(row) for row in rows], None, f"{SENTENCES} texts of random tokens")


def compare_engines(
    predictor: Predictor, load: Callable[[str], EngineChoice], examples: Examples, *, numbers: Sequence[str] = COMPUTE_TYPES
) -> tuple[Agreement, ...]:
    """Every kind of search with every kind of `numbers`. load: the engine to compare with torch, for a compute type."""
    searches = {kind: checked_search(predictor.search, kind) for kind in KINDS}
    wanted = {kind: predictor.predict(examples.sources, search=search) for kind, search in searches.items()}
    found = []
    for compute_type in numbers:
        other = predictor.with_engine(load(compute_type))
        for kind, search in searches.items():
            before = other.left_to_torch
            outputs = other.predict(examples.sources, search=search.model_copy(update={"shortlist": compute_type == SHORTLISTED}))
            left = other.left_to_torch - before
            found.append(compare(wanted[kind], outputs, what=(kind, compute_type), left=left, references=examples.references))
    return tuple(found)


def checked_search(own: SearchConfig, kind: str) -> SearchConfig:
    """The model's length penalty and limits, in a search that both engines know."""
    kept = own.model_dump(include={"length_penalty", "alpha", "max_length", "max_length_ratio", "max_length_margin", "allow_unknown"})
    return SearchConfig.model_validate({**kept, "beam_size": 1 if kind == "greedy" else BEAM, "early_stop": "full"})


def compare(
    wanted: Sequence[Prediction],
    outputs: Sequence[Prediction],
    *,
    what: tuple[str, str],
    left: int,
    references: Sequence[Sequence[str]] | None,
) -> Agreement:
    """The figures of one comparison. what: kind of search and compute type. left: outputs that are torch's own."""
    pairs = list(zip(wanted, outputs, strict=True))
    alike = [(one, other) for one, other in pairs if one.tokens == other.tokens]
    errors = [abs(one.log_probability - other.log_probability) / (len(one.tokens) + 1) for one, other in alike]
    same = (len(alike) - left) / max(len(pairs) - left, 1)
    likeness, error = chrf(outputs, [[one.text] for one in wanted]), max(errors, default=0.0)
    scores = [None, None] if references is None else [chrf(predictions, references) for predictions in (wanted, outputs)]
    passed = len(pairs) > left and keeps(BOUNDS[what[1]], same=same, likeness=likeness, error=error, scores=scores)
    figures = {
        "kind": what[0],
        "compute_type": what[1],
        "passed": passed,
        "sentences": len(pairs) - left,
        "left_to_torch": left,
        "same": same,
        "likeness": likeness,
        "score_error": error,
        "metric_torch": scores[0],
        "metric": scores[1],
    }
    return Agreement.model_validate(figures)


def keeps(bounds: Bounds, *, same: float, likeness: float, error: float, scores: Sequence[float | None]) -> bool:
    """Whether figures are within their bounds. scores: chrF of torch and of the engine against references, None without."""
    first, second = scores
    lost = 0.0 if first is None or second is None else first - second
    return same >= bounds.same and likeness >= bounds.likeness and error <= bounds.score_error and lost <= bounds.loss


def chrf(predictions: Sequence[Prediction], references: Sequence[Sequence[str]]) -> float:
    """Of a whole list of outputs, percent."""
    return compute_metrics([METRIC], [prediction.text for prediction in predictions], references)[METRIC].value
