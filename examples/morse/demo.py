"""The demo of sound: from nothing to a model that reads Morse code by ear, in about four minutes on two processor cores.

    python examples/morse/demo.py

In: nothing. Out: recordings in work/morse, the run in runs/morse, the error rate on texts that training never heard, some predictions,
a picture of waveform, features and alignment. Exit code 1 when more than a tenth of the letters are wrong.

Decision to question: the picture shows the best path of the CTC layer, which is when each letter was sent, not where the decoder looked.
"""

import json
import sys
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

sys.path.append(str(Path(__file__).resolve().parent.parent))
from demonstrate import Demo, demonstrate, transduce

SHOWN, HOP_SECONDS = 8, 0.01


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


def show(test: Path, picture: Path) -> float:
    """Some recordings with what was sent and what was read; the longest of them is drawn. -> character error rate in %."""
    archive, scores = test.with_suffix(".tar"), DEMO.work / "scores.json"
    words = ("--data", str(test), "--media", str(archive), "--metrics", "cer,exact_match", "--json", str(scores))
    transduce("evaluate", str(DEMO.run), *words)
    predictor = Predictor.load(DEMO.run)
    records = [json.loads(line) for line in test.read_text(encoding="utf-8").splitlines()[:SHOWN]]
    sources = [Media(archive.absolute(), record["audio"]) for record in records]
    predictions = predictor.predict(sources)
    table = Table("sent", "read", "words per minute", "SNR (dB)", title="Recordings that it never heard", title_justify="left")
    for record, found in zip(records, predictions, strict=True):
        table.add_row(record["text"], found.text, str(record["speed"]), str(record["snr_db"]))
    Console().print(table)
    longest = max(range(len(records)), key=lambda number: len(records[number]["text"]))
    draw(picture, predictor, sources[longest], prediction=predictions[longest])
    return float(json.loads(scores.read_text(encoding="utf-8"))["scores"]["cer"]["value"])


DEMO = Demo(
    "morse",
    "Train a model that reads Morse code by ear, and look at it.",
    generate,
    examples="recordings",
    sizes={"train": 4000, "valid": 100, "test": 300},
    intro="Keying Morse code into work/morse: {count} recordings to learn from, 100 to watch, 300 held out.",
    show=show,
    outcome="wrong letters on 300 held-out recordings: {value:.2f} % (asked for: at most {need:g} %)",
    need=10.0,
    at_most=True,
    picture="heard.png",
    next=(
        "transduce predict runs/morse --input a-recording.wav",
        "transduce info runs/morse",
        "transduce config examples/morse/config.yaml",
    ),
)

if __name__ == "__main__":
    demonstrate(DEMO)
