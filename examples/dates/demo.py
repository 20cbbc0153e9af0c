"""The demo: from nothing to a trained model that reads dates, in about three minutes on two processor cores.

    python examples/dates/demo.py

In: nothing. Out: the data in work/dates, the run in runs/dates, exact match on dates of days that training never saw, ten
predictions, an attention picture. Exit code 1 when exact match stays below 98 %.

Decision to question: after training everything is the Python API.
"""

import math
import sys
from pathlib import Path

from generate import generate
from rich.console import Console
from rich.table import Table

from transduce.metrics import compute_metrics
from transduce.pictures import attention_png
from transduce.predict import Prediction, Predictor

sys.path.append(str(Path(__file__).resolve().parent.parent))
from demonstrate import Demo, demonstrate

SHOWN = (
    "3. März 2021",
    "le 5 mai 1999",
    "2021年5月3日",
    "Tue, 5th of June '08",
    "the 1st of arpil 1987",
    "23DE SEPTIEMBRE DE 1964",
    "onsdag den 14. juli 2032",
    "пятница, 13 октября 2045 г.",
    "2007년 11월 30일 금요일",
    "28 agusotos 1955 pazar",
)
PICTURED = "Tue, 5th of June '08"


def read_pairs(path: Path) -> tuple[list[str], list[str]]:
    """Sources and targets of a TSV file."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]
    return [row[0] for row in rows], [row[1] for row in rows]


def exact_match(predictor: Predictor, path: Path) -> tuple[float, list[tuple[str, str, str]]]:
    """Share of dates that come out right, in %, and the others as (source, expected, predicted)."""
    sources, targets = read_pairs(path)
    texts = [prediction.text for prediction in predictor.predict(sources)]
    wrong = [row for row in zip(sources, targets, texts, strict=True) if row[1] != row[2]]
    return compute_metrics(["exact_match"], texts, [[target] for target in targets])["exact_match"].value, wrong


def table(title: str, rows: list[tuple[str, ...]], heads: tuple[str, ...]) -> None:
    """A table on the terminal."""
    made = Table(*heads, title=title, title_justify="left")
    for row in rows:
        made.add_row(*row)
    Console().print(made)


def draw(place: Path, prediction: Prediction) -> None:
    """Where the model looked: a row for each character that it wrote, a column for each that it read."""
    assert prediction.attention is not None
    source, target = (*prediction.source_tokens, "end"), (*prediction.tokens, "end")
    attention_png(place, prediction.attention, source=source, target=target)


def show(test: Path, picture: Path) -> float:
    """Ten dates, some of the wrong ones, where the model looked. -> exact match in %."""
    predictor = Predictor.load(DEMO.run)
    value, wrong = exact_match(predictor, test)
    predictions = predictor.predict(SHOWN)
    rows = [(source, found.text, f"{math.exp(found.log_probability):.3f}") for source, found in zip(SHOWN, predictions, strict=True)]
    table("Ten dates", rows, ("written", "ISO 8601", "p"))
    if wrong:
        table(f"Some of the {len(wrong)} wrong ones", wrong[:5], ("written", "expected", "predicted"))
    draw(picture, predictor.predict([PICTURED], with_attention=True)[0])
    return value


DEMO = Demo(
    "dates",
    "Train a model that reads dates, and look at it.",
    generate,
    examples="pairs",
    sizes={"train": 60_000, "valid": 500, "test": 2_000},
    intro="Writing dates in 18 locales to work/dates: {count} pairs to learn from, 500 to watch, 2,000 held out.",
    show=show,
    outcome="exact match on 2,000 held-out dates: {value:.2f} % (asked for: {need:g} %)",
    need=98.0,
    picture="attention.png",
    next=(
        "echo 'am 24. dezember 1999' | transduce predict runs/dates",
        "transduce info runs/dates",
        "transduce config examples/dates/config.yaml",
        "transduce init train.en train.de val.en val.de      # your own files: writes a configuration",
    ),
)

if __name__ == "__main__":
    demonstrate(DEMO)
