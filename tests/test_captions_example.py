"""The example of captions: what it draws is reproducible and is what its sentences say; its configurations load."""

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from transduce.config import load_config

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "examples" / "captions"


@pytest.fixture(scope="module")
def scenery() -> Iterator[ModuleType]:
    """examples/captions/generate.py as a module that other processes find as well."""
    sys.path.insert(0, str(PLACE))
    yield importlib.import_module("generate")
    sys.path.remove(str(PLACE))
    del sys.modules["generate"]


def middle_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float, int]:
    """Middle (across, down) of what has about that colour, and how many pixels do."""
    down, across = np.nonzero(np.abs(pixels.astype(int) - colour).max(2) < 40)
    return float(across.mean()), float(down.mean()), len(down)


def test_scenes_show_what_their_sentences_say(scenery: ModuleType) -> None:
    rng = random.Random(1)
    for shape in scenery.CORNERS:
        for where in scenery.RELATIONS:
            first, second = scenery.Thing("large", "red", shape), scenery.Thing("small", "yellow", shape)
            pixels = np.asarray(scenery.drawn(scenery.Scene((first, second), where), rng))
            red, yellow = (middle_of(pixels, scenery.COLOURS[thing.colour]) for thing in (first, second))
            axis = 1 if where == "above" else 0
            assert red[axis] < yellow[axis] - 15 and red[2] > 1.8 * yellow[2]
    for where, (across, down) in scenery.PLACES.items():
        thing = scenery.Thing("large", "blue", "square")
        found = middle_of(np.asarray(scenery.drawn(scenery.Scene((thing,), where), rng)), scenery.COLOURS["blue"])
        assert abs(found[0] / scenery.SIDE - across) < 0.1 and abs(found[1] / scenery.SIDE - down) < 0.1


def test_both_sides_of_a_scene_are_told(scenery: ModuleType) -> None:
    red, blue = scenery.Thing("small", "red", "circle"), scenery.Thing("large", "blue", "star")
    assert scenery.Scene((red, blue), "left of").sentences() == [
        "a small red circle left of a large blue star",
        "a large blue star right of a small red circle",
    ]
    assert scenery.Scene((red,), "in the middle").sentences() == ["a small red circle in the middle"]


def test_files_are_reproducible_and_splits_share_no_combination(scenery: ModuleType, tmp_path: Path) -> None:
    sizes = {"train": 60, "valid": 20, "test": 20}
    first, again = (scenery.generate(tmp_path / name, seed=3, sizes=sizes) for name in ("a", "b"))
    sentences = {}
    for split, size in sizes.items():
        assert first[split].read_text() == again[split].read_text()
        lines = [json.loads(line) for line in first[split].read_text().splitlines()]
        assert len(lines) == size == len(list((tmp_path / "a" / split).iterdir()))
        assert all((tmp_path / "a" / line["image"]).read_bytes() == (tmp_path / "b" / line["image"]).read_bytes() for line in lines[:3])
        assert 0.55 < sum(len(line["captions"]) == 2 for line in lines) / size < 0.95, "each split has its share of pairs"
        sentences[split] = {line["captions"][0] for line in lines if len(line["captions"]) == 2}
    assert not sentences["train"] & (sentences["valid"] | sentences["test"]) and not sentences["valid"] & sentences["test"]


@pytest.mark.parametrize("name", ["config.yaml", "flickr8k.yaml"])
def test_the_configurations_load(name: str) -> None:
    config = load_config(PLACE / name)
    assert config.data.source_codec.kind == "image" and config.model.frontend.kind == "cnn"
    assert len((PLACE / name).read_text().splitlines()) <= 30
