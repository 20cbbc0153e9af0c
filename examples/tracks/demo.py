"""The demo of tracks: from nothing to a model that foresees where vehicles leave a roundabout, in about two minutes.

    python examples/tracks/demo.py

In: nothing. Out: the data in work/tracks, the run in runs/tracks, scores beside constant velocity and a Kalman filter, a picture of
past, truth and twenty guesses. Exit code 1 when the best guess is not twice as near as constant velocity.

Decision to question: the figure that counts is a share of constant velocity's error: metres say little to who does not know the road.
"""

import json
import sys
from pathlib import Path

from generate import generate

from transduce.data.sources import read_examples
from transduce.forecast import Forecaster
from transduce.pictures import Fan, fan_png

sys.path.append(str(Path(__file__).resolve().parent.parent))
from demonstrate import Demo, demonstrate, transduce

SHOWN = 6


def fans(path: Path) -> list[Fan]:
    """Some vehicles just before the island: what was seen, what came, what was expected."""
    forecaster = Forecaster.load(DEMO.run)
    assert forecaster.data is not None
    records = read_examples(path, forecaster.data)
    chosen = records[:: max(len(records) // SHOWN, 1)][:SHOWN]
    found = forecaster.predict([record.source for record in chosen])
    return [
        Fan(record.source.values, record.targets[0].values, forecast.values, forecast.samples)  # type: ignore[union-attr]
        for record, forecast in zip(chosen, found, strict=True)
    ]


def show(test: Path, picture: Path) -> float:
    """Scores, and some vehicles with what was expected of them. -> error of the best guess as a share of constant velocity's."""
    scores = DEMO.work / "scores.json"
    transduce("evaluate", str(DEMO.run), "--data", str(test), "--json", str(scores))
    fan_png(picture, fans(test))
    systems = json.loads(scores.read_text(encoding="utf-8"))["systems"]
    return float(systems["model"]["min_ade"] / systems["constant velocity"]["min_ade"])


DEMO = Demo(
    "tracks",
    "Train a model that foresees tracks, and look at it.",
    generate,
    examples="vehicles",
    sizes={"train": 1500, "valid": 50, "test": 100},
    intro="Writing vehicles at a roundabout to work/tracks: {count} to learn from, 50 to watch, 100 held out.",
    show=show,
    outcome="best of 20 guesses: {value:.2f} of constant velocity's error (asked for: at most {need:g})",
    need=0.5,
    at_most=True,
    picture="fan.png",
    next=(
        "transduce predict runs/tracks --input work/tracks/test.csv      # what each vehicle does next, as JSON lines",
        "transduce info runs/tracks",
        "transduce config examples/tracks/config.yaml",
    ),
)

if __name__ == "__main__":
    demonstrate(DEMO)
