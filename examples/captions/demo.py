"""The demo of pictures: from nothing to a model that says what is drawn, in less than four minutes on two processor cores.

    python examples/captions/demo.py

In: nothing. Out: scenes in work/captions, the run in runs/captions, scores on combinations that were never drawn for training (beside the
same model, shown other pictures), and a picture of where the model looked for each word. Exit code 1 when exact match stays below 95 %.

Decision to question: the five scenes that are shown stand at equal distances in the test file; nobody chose them.
"""

import json
import sys
from pathlib import Path

import numpy as np
from generate import generate
from PIL import Image

from transduce.data.sources import read_examples
from transduce.data.values import shown
from transduce.pictures import Look, looks_png
from transduce.predict import Predictor

sys.path.append(str(Path(__file__).resolve().parent.parent))
from demonstrate import Demo, demonstrate, transduce

SHOWN = 5


def looks(path: Path) -> list[Look]:
    """Some scenes of a file: what was drawn, what is said, and where the model looked for each word."""
    predictor = Predictor.load(DEMO.run)
    assert predictor.data is not None
    records = read_examples(path, predictor.data)
    chosen = records[:: max(len(records) // SHOWN, 1)][:SHOWN]
    found = []
    for record, prediction in zip(chosen, predictor.predict([record.source for record in chosen], with_attention=True), strict=True):
        assert prediction.attention is not None
        print(f"{Path(shown(record.source)).name}: {prediction.text}")
        pixels = np.asarray(Image.open(shown(record.source)).convert("RGB"))
        found.append(Look(pixels, prediction.tokens, prediction.attention))
    return found


def show(test: Path, picture: Path) -> float:
    """Scores, and some scenes with where the model looked. -> exact match in %."""
    scores = DEMO.work / "scores.json"
    transduce("evaluate", str(DEMO.run), "--data", str(test), "--metrics", "exact_match,cider,coco_bleu4", "--json", str(scores))
    looks_png(picture, looks(test))
    return float(json.loads(scores.read_text(encoding="utf-8"))["scores"]["exact_match"]["value"])


DEMO = Demo(
    "captions",
    "Train a model that says what is drawn, and look at it.",
    generate,
    examples="scenes",
    sizes={"train": 12000, "valid": 200, "test": 500},
    intro="Drawing scenes to work/captions: {count} to learn from, 200 to watch, 500 of combinations that training never sees.",
    show=show,
    outcome="exact match: {value:.1f} % of 500 scenes (asked for: at least {need:g} %)",
    need=95.0,
    picture="looks.png",
    next=(
        "transduce predict runs/captions --input work/captions/test/00000.png",
        "transduce evaluate runs/captions --data work/captions/test.jsonl --report work/captions/report",
        "transduce config examples/captions/config.yaml",
    ),
)

if __name__ == "__main__":
    demonstrate(DEMO)
