"""The demo: from nothing to a trained model that reads dates, in about three minutes on two processor cores.

    python examples/dates/demo.py

In: nothing. Out: the data in work/dates, the run in runs/dates, exact match on dates of days that training never saw, ten
predictions, an attention picture. Exit code 1 when exact match stays below 98 %.

Decision to question: training runs as the command that a reader would type, in its own process; the rest is the Python API.
"""

import argparse
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

from generate import generate
from rich.console import Console
from rich.table import Table

from transduce.metrics import compute_metrics
from transduce.pictures import attention_png
from transduce.predict import Prediction, Predictor

CONFIG, RUN = Path("examples/dates/config.yaml"), Path("runs/dates")
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


def train(words: list[str]) -> float:
    """Run `transduce train` with its live display. -> minutes. Exits with its exit code when it fails."""
    if RUN.exists():
        print(f"{RUN} holds an earlier run of this demo; it is removed.")
        shutil.rmtree(RUN)
    command = ["transduce", "train", str(CONFIG), *words]
    print(f"\n$ {' '.join(command)}\n", flush=True)
    started = time.monotonic()
    code = subprocess.run([str(Path(sys.executable).with_name("transduce")), *command[1:]], check=False).returncode
    if code != 0:
        sys.exit(code)
    return (time.monotonic() - started) / 60


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


def show(title: str, rows: list[tuple[str, ...]], heads: tuple[str, ...]) -> None:
    """A table on the terminal."""
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def draw(place: Path, prediction: Prediction) -> None:
    """Where the model looked: a row for each character that it wrote, a column for each that it read."""
    assert prediction.attention is not None
    source, target = (*prediction.source_tokens, "end"), (*prediction.tokens, "end")
    attention_png(place, prediction.attention, source=source, target=target)


def main() -> None:
    """Generate, train, score, show."""
    parser = argparse.ArgumentParser(description="Train a model that reads dates, and look at it.")
    parser.add_argument("settings", nargs="*", metavar="A.B=C", help="settings on top of examples/dates/config.yaml")
    parser.add_argument("--pairs", type=int, default=60_000, help="training pairs to generate")
    parser.add_argument("--need", type=float, default=98.0, help="exact match in percent below which the demo fails")
    parser.add_argument("--picture", type=Path, default=RUN / "attention.png")
    words = parser.parse_args()

    print(f"Writing dates in 18 locales to work/dates: {words.pairs:,} pairs to learn from, 500 to watch, 2,000 held out.")
    paths = generate(Path("work/dates"), seed=1, sizes={"train": words.pairs, "valid": 500, "test": 2_000})
    minutes = train(words.settings)

    predictor = Predictor.load(RUN)
    value, wrong = exact_match(predictor, paths["test"])
    predictions = predictor.predict(SHOWN)
    rows = [(source, found.text, f"{math.exp(found.log_probability):.3f}") for source, found in zip(SHOWN, predictions, strict=True)]
    show("Ten dates", rows, ("written", "ISO 8601", "p"))
    if wrong:
        show(f"Some of the {len(wrong)} wrong ones", wrong[:5], ("written", "expected", "predicted"))
    pictured = predictor.predict([PICTURED], with_attention=True)[0]
    draw(words.picture, pictured)
    print(f"attention picture: {words.picture}")
    print(f"exact match on 2,000 held-out dates: {value:.2f} % (asked for: {words.need:g} %), training: {minutes:.1f} min")
    if value < words.need:
        sys.exit(1)
    print(
        "\nTry next:\n"
        "  echo 'am 24. dezember 1999' | transduce predict runs/dates\n"
        "  transduce info runs/dates\n"
        "  transduce config examples/dates/config.yaml\n"
        "  transduce init train.en train.de val.en val.de      # your own files: writes a configuration"
    )


if __name__ == "__main__":
    main()
