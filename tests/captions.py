"""A tiny world of captions for tests: pictures of one square in one of four corners, with two sentences each."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (230, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}
CORNERS = {"top left": (0, 0), "top right": (0, 8), "bottom left": (8, 0), "bottom right": (8, 8)}


def write_corpus(folder: Path, name: str, count: int, *, seed: int) -> Path:
    """name.jsonl and the pictures that it names."""
    generator = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True)
    lines = []
    for number in range(count):
        colour, corner = (list(choices)[generator.integers(len(choices))] for choices in (COLOURS, CORNERS))
        row, column = CORNERS[corner]
        pixels = generator.integers(0, 30, (16, 16, 3), dtype=np.uint8)
        pixels[row : row + 8, column : column + 8] = COLOURS[colour]
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
        captions = [f"a {colour} square at the {corner}", f"the {corner} is {colour}"]
        lines.append(json.dumps({"image": f"{name}/{number}.png", "captions": captions}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / f"{name}.jsonl"


def config_tree(folder: Path, **train: object) -> dict[str, object]:
    """A run over `write_corpus(folder, "train" | "valid")` in plain values: a tiny CNN and an attending GRU."""
    corpus = {"source": "image", "target": "captions"}
    return {
        "run_dir": str(folder / "run"),
        "seed": 1,
        "data": {
            "train": {"path": str(folder / "train.jsonl"), **corpus},
            "valid": {"path": str(folder / "valid.jsonl"), **corpus},
            "source_codec": {"kind": "image", "size": 16, "patch": 8, "jitter": 0.1, "normalise": "fitted"},
            "target_codec": {"kind": "words"},
            "max_source_tokens": 4,
            "max_target_tokens": 16,
            "max_tokens_per_batch": 160,
            "cache_dir": str(folder / "cache"),
        },
        "model": {
            "frontend": {"kind": "cnn", "widths": [8, 16]},
            "encoder": {"kind": "none"},
            "decoder": {"kind": "gru", "width": 24, "attention": "additive", "attention_size": 16, "dropout": 0},
            "embedding_size": 16,
            "embedding_dropout": 0.0,
        },
        "search": {"max_length": 12},
        "train": {
            "max_steps": 12,
            "save_every_steps": 6,
            "threads": 1,
            "precision": "fp32",
            "optimizer": {"learning_rate": 1e-2},
            "schedule": {"warmup_steps": 10},
            "loss": {"label_smoothing": 0, "doubly_stochastic": 0.1},
            "validation": {"metrics": ["cider", "coco_bleu4"], "samples": 2, "source_check_after": 100000},
            **train,
        },
    }
