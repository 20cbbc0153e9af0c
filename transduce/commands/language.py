"""`transduce predict` and `evaluate` of a language model: beginnings in, texts out; texts in, perplexity out.

In: files of lines, or for `evaluate` also examples like the training data. Out: see each function. The decision to question: what
other models read as sources, a language model reads as beginnings of its outputs; an empty line is no beginning.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from transduce.data.lines import read_lines
from transduce.data.sources import read_examples
from transduce.data.values import NOTHING, Value, shown
from transduce.errors import ConfigError, DataError
from transduce.evaluate_language import TextFit, evaluate_language_model
from transduce.predict import Predictor


def beginnings(path: Path | None) -> Iterator[tuple[Value, str]]:
    """A source that is none and a beginning for each line of a file (None = standard input)."""
    return ((NOTHING, line) for line in read_lines(path))


def fit_texts(predictor: Predictor, targets: Sequence[Path], data: Path | None, *, name: str) -> TextFit:
    """Score the lines of files, or the targets of a file of examples like the training data. Raises ConfigError, DataError."""
    if bool(targets) == (data is not None):
        raise ConfigError("name what to evaluate a language model on: either --target FILE, which has a text a line, or --data FILE")
    if data is None:
        texts = [line for path in targets for line in read_lines(path)]
    elif predictor.data is None:
        raise ConfigError("this model does not tell how its data was read: use --target")
    else:
        texts = [shown(target) for record in read_examples(data, predictor.data) for target in record.targets]
    if not texts:
        raise DataError("is empty: there is nothing to evaluate", (data or targets[0]))
    return evaluate_language_model(predictor, texts, name=name)


def show_fit(fit: TextFit) -> None:
    """A line for each figure; on standard error what it does not count, or counts too kindly."""
    for name, value in fit.figures.items():
        print(f"{name:20} {value:10.3f}")
    print(f"{fit.texts} texts, {fit.words} words, {fit.tokens} tokens, {fit.characters} characters, the end of each text counted as one")
    if fit.too_long:
        print(f"warning: {fit.too_long} texts are longer than the model allows and left out", file=sys.stderr)
    if fit.num_unknown:
        print(f"warning: {fit.num_unknown} of {fit.tokens} tokens are unknown to the vocabulary, which makes them easy", file=sys.stderr)
