"""The demo of sound: from nothing to a model that reads Morse code by ear, in about four minutes on two processor cores.

    python examples/morse/demo.py

In: nothing. Out: recordings in work/morse, the run in runs/morse, the error rate on texts that training never heard, some predictions,
a picture of waveform, features and alignment. Exit code 1 when more than a tenth of the letters are wrong.

Decision to question: training and scoring run as the commands that a reader would type; only the predictions that are shown use the
Python API.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from generate import generate
from rich.console import Console
from rich.table import Table

from transduce.data.values import Media
from transduce.model.features import Features
from transduce.pictures import Heard, sound_png
from transduce.predict import Prediction, Predictor
from transduce.timing import as_audio_codec, token_times

CONFIG, RUN = Path("examples/morse/config.yaml"), Path("runs/morse")
SCORES = Path("work/morse/scores.json")
SHOWN, HOP_SECONDS = 8, 0.01


def transduce(*words: str) -> None:
    """Run a command, printed first. Exits with its exit code when it fails."""
    print(f"\n$ transduce {' '.join(words)}\n", flush=True)
    code = subprocess.run([str(Path(sys.executable).with_name("transduce")), *words], check=False).returncode
    if code != 0:
        sys.exit(code)


def draw(place: Path, predictor: Predictor, media: Media, *, prediction: Prediction) -> None:
    """One recording: how it sounds, what the model computes of it, and when each letter was sent (the best path of its CTC layer)."""
    codec = as_audio_codec(predictor.source_codec)
    samples, rate = codec.samples(media), codec.config.sample_rate_hz
    features, _ = Features(codec.config.features, rate)(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    (times,) = token_times(predictor, [media], [prediction.text])
    alignment = np.zeros((len(prediction.tokens), features.shape[1]))
    for row, (start, end) in zip(alignment, times.spans if times else (), strict=False):
        row[round(start / HOP_SECONDS) : round(end / HOP_SECONDS)] = 1
    sound_png(place, Heard(samples, features[0].numpy(), alignment, prediction.tokens, len(samples) / rate), title=prediction.text)


def show(path: Path, place: Path) -> None:
    """Some recordings with what was sent and what was read; the longest of them is drawn."""
    predictor = Predictor.load(RUN)
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:SHOWN]]
    sources = [Media(path.with_suffix(".tar").absolute(), record["audio"]) for record in records]
    predictions = predictor.predict(sources)
    table = Table("sent", "read", "words per minute", "SNR (dB)", title="Recordings that it never heard", title_justify="left")
    for record, found in zip(records, predictions, strict=True):
        table.add_row(record["text"], found.text, str(record["speed"]), str(record["snr_db"]))
    Console().print(table)
    longest = max(range(len(records)), key=lambda number: len(records[number]["text"]))
    draw(place, predictor, sources[longest], prediction=predictions[longest])


def main() -> None:
    """Generate, train, score, show."""
    parser = argparse.ArgumentParser(description="Train a model that reads Morse code by ear, and look at it.")
    parser.add_argument("settings", nargs="*", metavar="A.B=C", help="settings on top of examples/morse/config.yaml")
    parser.add_argument("--recordings", type=int, default=4000, help="recordings to learn from")
    parser.add_argument("--need", type=float, default=10.0, help="largest character error rate in percent")
    parser.add_argument("--picture", type=Path, default=RUN / "heard.png")
    words = parser.parse_args()

    print(f"Keying Morse code into work/morse: {words.recordings:,} recordings to learn from, 100 to watch, 300 held out.")
    paths = generate(Path("work/morse"), seed=1, sizes={"train": words.recordings, "valid": 100, "test": 300})
    if RUN.exists():
        print(f"{RUN} holds an earlier run of this demo; it is removed.")
        shutil.rmtree(RUN)
    started = time.monotonic()
    transduce("train", str(CONFIG), *words.settings)
    minutes = (time.monotonic() - started) / 60
    test = paths["test"]
    media = str(test.with_suffix(".tar"))
    transduce("evaluate", str(RUN), "--data", str(test), "--media", media, "--metrics", "cer,exact_match", "--json", str(SCORES))
    show(test, words.picture)
    error = json.loads(SCORES.read_text(encoding="utf-8"))["scores"]["cer"]["value"]
    print(f"\npicture: {words.picture}")
    print(f"wrong letters on 300 held-out recordings: {error:.2f} % (asked for: at most {words.need:g} %), training: {minutes:.1f} min")
    if error > words.need:
        sys.exit(1)
    print(
        "\nTry next:\n"
        "  transduce predict runs/morse --input a-recording.wav\n"
        "  transduce info runs/morse\n"
        "  transduce config examples/morse/config.yaml"
    )


if __name__ == "__main__":
    main()
