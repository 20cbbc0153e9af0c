"""The demo of pictures: from nothing to a model that says what is drawn, in about four minutes on two processor cores.

    python examples/captions/demo.py

In: nothing. Out: scenes in work/captions, the run in runs/captions, scores on combinations that were never drawn for training (beside the
same model, shown other pictures), and a picture of where the model looked for each word. Exit code 1 when exact match stays below 95 %.

Decision to question: training and scoring run as the commands that a reader would type; only the picture uses the Python API.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from generate import generate
from PIL import Image

from transduce.data.sources import read_examples
from transduce.data.values import shown
from transduce.pictures import Look, looks_png
from transduce.predict import Predictor

CONFIG, RUN = Path("examples/captions/config.yaml"), Path("runs/captions")
SCORES = Path("work/captions/scores.json")
SHOWN = 5


def transduce(*words: str) -> None:
    """Run a command, printed first. Exits with its exit code when it fails."""
    print(f"\n$ transduce {' '.join(words)}\n", flush=True)
    code = subprocess.run([str(Path(sys.executable).with_name("transduce")), *words], check=False).returncode
    if code != 0:
        sys.exit(code)


def looks(path: Path) -> list[Look]:
    """Some scenes of a file: what was drawn, what is said, and where the model looked for each word."""
    predictor = Predictor.load(RUN)
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


def main() -> None:
    """Draw, train, score, show."""
    parser = argparse.ArgumentParser(description="Train a model that says what is drawn, and look at it.")
    parser.add_argument("settings", nargs="*", metavar="A.B=C", help="settings on top of examples/captions/config.yaml")
    parser.add_argument("--scenes", type=int, default=12000, help="scenes to learn from")
    parser.add_argument("--need", type=float, default=95.0, help="exact match that is asked for, in %%")
    parser.add_argument("--picture", type=Path, default=RUN / "looks.png")
    words = parser.parse_args()

    print(f"Drawing scenes to work/captions: {words.scenes:,} to learn from, 200 to watch, 500 of combinations that training never sees.")
    paths = generate(Path("work/captions"), seed=1, sizes={"train": words.scenes, "valid": 200, "test": 500})
    if RUN.exists():
        print(f"{RUN} holds an earlier run of this demo; it is removed.")
        shutil.rmtree(RUN)
    started = time.monotonic()
    transduce("train", str(CONFIG), *words.settings)
    minutes = (time.monotonic() - started) / 60
    transduce("evaluate", str(RUN), "--data", str(paths["test"]), "--metrics", "exact_match,cider,coco_bleu4", "--json", str(SCORES))
    looks_png(words.picture, looks(paths["test"]))
    exact = json.loads(SCORES.read_text(encoding="utf-8"))["scores"]["exact_match"]["value"]
    print(f"\npicture: {words.picture}")
    print(f"exact match: {exact:.1f} % of 500 scenes (asked for: at least {words.need:g} %), training: {minutes:.1f} min")
    if exact < words.need:
        sys.exit(1)
    print(
        "\nTry next:\n"
        "  transduce predict runs/captions --input work/captions/test/00000.png\n"
        "  transduce evaluate runs/captions --data work/captions/test.jsonl --report work/captions/report\n"
        "  transduce config examples/captions/config.yaml"
    )


if __name__ == "__main__":
    main()
