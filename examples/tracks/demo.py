"""The demo of tracks: from nothing to a model that foresees where vehicles leave a roundabout, in about two minutes.

    python examples/tracks/demo.py

In: nothing. Out: the data in work/tracks, the run in runs/tracks, scores beside constant velocity and a Kalman filter, a picture of
past, truth and twenty guesses. Exit code 1 when the best guess is not twice as near as constant velocity.

Decision to question: training and scoring run as the commands that a reader would type; only the picture uses the Python API.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from generate import generate

from transduce.data.sources import read_examples
from transduce.forecast import Forecaster
from transduce.pictures import Fan, fan_png

CONFIG, RUN = Path("examples/tracks/config.yaml"), Path("runs/tracks")
SCORES = Path("work/tracks/scores.json")
SHOWN = 6


def transduce(*words: str) -> None:
    """Run a command, printed first. Exits with its exit code when it fails."""
    print(f"\n$ transduce {' '.join(words)}\n", flush=True)
    code = subprocess.run([str(Path(sys.executable).with_name("transduce")), *words], check=False).returncode
    if code != 0:
        sys.exit(code)


def fans(path: Path) -> list[Fan]:
    """Some vehicles just before the island: what was seen, what came, what was expected."""
    forecaster = Forecaster.load(RUN)
    assert forecaster.data is not None
    records = read_examples(path, forecaster.data)
    chosen = records[:: max(len(records) // SHOWN, 1)][:SHOWN]
    found = forecaster.predict([record.source for record in chosen])
    return [
        Fan(record.source.values, record.targets[0].values, forecast.values, forecast.samples)  # type: ignore[union-attr]
        for record, forecast in zip(chosen, found, strict=True)
    ]


def main() -> None:
    """Generate, train, score, show."""
    parser = argparse.ArgumentParser(description="Train a model that foresees tracks, and look at it.")
    parser.add_argument("settings", nargs="*", metavar="A.B=C", help="settings on top of examples/tracks/config.yaml")
    parser.add_argument("--vehicles", type=int, default=1500, help="vehicles to learn from")
    parser.add_argument("--need", type=float, default=0.5, help="largest error of the best guess, as a share of constant velocity's")
    parser.add_argument("--picture", type=Path, default=RUN / "fan.png")
    words = parser.parse_args()

    print(f"Writing vehicles at a roundabout to work/tracks: {words.vehicles:,} to learn from, 50 to watch, 100 held out.")
    paths = generate(Path("work/tracks"), seed=1, sizes={"train": words.vehicles, "valid": 50, "test": 100})
    if RUN.exists():
        print(f"{RUN} holds an earlier run of this demo; it is removed.")
        shutil.rmtree(RUN)
    started = time.monotonic()
    transduce("train", str(CONFIG), *words.settings)
    minutes = (time.monotonic() - started) / 60
    transduce("evaluate", str(RUN), "--data", str(paths["test"]), "--json", str(SCORES))
    fan_png(words.picture, fans(paths["test"]))
    systems = json.loads(SCORES.read_text(encoding="utf-8"))["systems"]
    share = systems["model"]["min_ade"] / systems["constant velocity"]["min_ade"]
    print(f"\npicture: {words.picture}")
    print(f"best of 20 guesses: {share:.2f} of constant velocity's error (asked for: at most {words.need:g}), training: {minutes:.1f} min")
    if share > words.need:
        sys.exit(1)
    print(
        "\nTry next:\n"
        "  transduce predict runs/tracks --input work/tracks/test.csv      # what each vehicle does next, as JSON lines\n"
        "  transduce info runs/tracks\n"
        "  transduce config examples/tracks/config.yaml"
    )


if __name__ == "__main__":
    main()
