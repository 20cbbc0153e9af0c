"""Models as this version stores them, and what they answer: the other half of tests/invariants/test_released.py.

    python scripts/store_released_models.py

In: nothing but the version of the package. Out: tests/invariants/released/VERSION/NAME/ (tiny models with random weights) and
answers.json. Run once per release, before the tag; folders of earlier versions are never touched again.
"""

import json
import random
import shutil
import tempfile
from pathlib import Path

import torch

from transduce import __version__
from transduce.config import parse_config
from transduce.data.codec import fit_codec
from transduce.model.seq2seq import build_model
from transduce.predict import Predictor
from transduce.train.checkpoint import save_model

ROOT = Path(__file__).resolve().parent.parent / "tests" / "invariants" / "released"
TINY = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 12}
MODELS: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "lstm-additive": (
        {"kind": "lstm", "width": 6, "bidirectional": True},
        {"kind": "lstm", "width": 8, "attention": "additive", "attention_size": 6},
        "characters",
    ),
    "gru-fixed": ({"kind": "gru", "width": 8}, {"kind": "gru", "width": 8, "attention": "none"}, "words"),
    "transformer-rope": (
        {"kind": "transformer", "positions": "rope", **TINY},
        {"kind": "transformer", "positions": "rope", "key_value_heads": 1, **TINY},
        "sentencepiece",
    ),
    "transformer-ssru": ({"kind": "transformer", "norm_place": "post", **TINY}, {"kind": "ssru", **TINY}, "bytes"),
}
SOURCES = ["ab cab", "c", "bacca abc ab"]


def store(name: str, directory: Path) -> list[dict[str, object]]:
    """Write one model and return what it answers to SOURCES."""
    encoder, decoder, codec = MODELS[name]
    settings = {"kind": codec, "vocabulary_size": 280, "model_type": "bpe"} if codec == "sentencepiece" else {"kind": codec}
    config = parse_config(
        {
            "run_dir": "unused",
            "data": {
                "train": {"source": "train.src", "target": "train.tgt"},
                "valid": {"source": "valid.src", "target": "valid.tgt"},
                "source_codec": settings,
                "target_codec": settings,
            },
            "model": {"encoder": encoder, "decoder": decoder, "embedding_size": 8},
            "train": {"max_steps": 1},
            "search": {"beam_size": 3, "max_length": 8},
        }
    )
    draw = random.Random(0)
    texts = [" ".join("".join(draw.choices("abc", k=draw.randint(1, 5))) for _ in range(3)) for _ in range(200)]
    codecs = (fit_codec(config.data.source_codec, texts, 1), fit_codec(config.data.target_codec, texts, 1))
    torch.manual_seed(7)
    model = build_model(config.model, codecs[0].shape, codecs[1].shape).eval()
    save_model(directory, model=model, config=config, codecs=codecs, metrics={})
    predictions = Predictor.load(directory).predict(SOURCES)
    return [{"source": source, "text": found.text, "score": found.score} for source, found in zip(SOURCES, predictions, strict=True)]


def main() -> None:
    """Store every model of MODELS for this version."""
    folder = ROOT / __version__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        answers = {}
        for name in MODELS:
            answers[name] = store(name, Path(place) / name)
            shutil.copytree(Path(place) / name, folder / name)
    (folder / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(folder)


if __name__ == "__main__":
    main()
