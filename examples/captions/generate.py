"""Scenes of one or two shapes, drawn, with sentences that say what is to be seen.

In: a seed and how many scenes. Out: train.jsonl, valid.jsonl and test.jsonl with the folders of PNG files that they name, the same for the
same seed. A scene of two has two sentences, one from each side: "a small red circle above a large blue square" and "a large blue square
below a small red circle".

Decision to question: the splits share no combination. A scene of two is its two shapes with colours, sizes and the relation; what the test
holds was never drawn for training, so that a model must see parts and cannot remember wholes.
"""

import argparse
import json
import math
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64  # pixels
FINER = 4  # drawn that much larger and made smaller, for smooth edges
COLOURS = {
    "red": (222, 45, 38),
    "green": (49, 163, 84),
    "blue": (43, 90, 214),
    "yellow": (246, 211, 45),
    "purple": (130, 60, 170),
    "white": (245, 245, 245),
}
CORNERS = {"circle": 0, "square": 4, "triangle": 3, "star": 10}
RADII = {"small": (7.0, 8.2), "large": (11.5, 13.5)}
RELATIONS = {"above": "below", "left of": "right of"}
PLACES = {
    "at the top": (0.5, 0.22),
    "at the bottom": (0.5, 0.78),
    "on the left": (0.22, 0.5),
    "on the right": (0.78, 0.5),
    "in the middle": (0.5, 0.5),
}
SPLITS = ("train", "valid", "test")
SHARE_ALONE = 0.25  # of the scenes have one shape
TRAINED = 0.8  # of all combinations are for training


class Thing(NamedTuple):
    """A shape as it is spoken of."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


class Scene(NamedTuple):
    """One or two things, and where: a place of one, a relation of the first to the second."""

    things: tuple[Thing, ...]
    where: str

    def sentences(self) -> list[str]:
        """All that is said of the scene."""
        if len(self.things) == 1:
            return [f"{self.things[0]} {self.where}"]
        first, second = self.things
        return [f"{first} {self.where} {second}", f"{second} {RELATIONS[self.where]} {first}"]


def split_of(pair: Scene, seed: int) -> str:
    """The split that a combination of two things belongs to."""
    draw = random.Random(f"{seed}/{pair.sentences()[0]}").random()
    return "train" if draw < TRAINED else "valid" if draw < (1 + TRAINED) / 2 else "test"


def random_thing(rng: random.Random) -> Thing:
    """Any shape of any colour and size."""
    return Thing(rng.choice(list(RADII)), rng.choice(list(COLOURS)), rng.choice(list(CORNERS)))


def random_scene(rng: random.Random, split: str, seed: int) -> Scene:
    """One shape at a place (such scenes are few and in all splits), or two that differ, in a combination of the split."""
    if rng.random() < SHARE_ALONE:
        return Scene((random_thing(rng),), rng.choice(list(PLACES)))
    while True:
        pair = Scene((random_thing(rng), random_thing(rng)), rng.choice(list(RELATIONS)))
        if pair.things[0] != pair.things[1] and split_of(pair, seed) == split:
            return pair


def drawn(scene: Scene, rng: random.Random) -> Image.Image:
    """The scene on a dark ground with some noise; where things stand, how large they are and how they are turned varies."""
    ground = tuple(rng.randint(20, 70) for _ in range(3))
    large = Image.new("RGB", (SIDE * FINER, SIDE * FINER), ground)
    pen = ImageDraw.Draw(large)
    for thing, (across, down) in zip(scene.things, positions(scene, rng), strict=True):
        radius = rng.uniform(*RADII[thing.size])
        colour = tuple(max(0, min(255, value + rng.randint(-18, 18))) for value in COLOURS[thing.colour])
        pen.polygon([(FINER * x, FINER * y) for x, y in outline(thing.shape, (across * SIDE, down * SIDE), radius, rng)], fill=colour)
    pixels = np.asarray(large.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.int16)
    noise = np.random.default_rng(rng.getrandbits(32)).integers(-10, 11, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def positions(scene: Scene, rng: random.Random) -> list[tuple[float, float]]:
    """The middle of each thing, as shares of width and height."""
    if len(scene.things) == 1:
        across, down = PLACES[scene.where]
        return [(across + rng.uniform(-0.05, 0.05), down + rng.uniform(-0.05, 0.05))]
    near, far = rng.uniform(0.22, 0.3), rng.uniform(0.7, 0.78)
    sideways = [rng.uniform(0.35, 0.65) for _ in range(2)]
    if scene.where == "above":
        return [(sideways[0], near), (sideways[1], far)]
    return [(near, sideways[0]), (far, sideways[1])]


def outline(shape: str, middle: tuple[float, float], radius: float, rng: random.Random) -> list[tuple[float, float]]:
    """The corners of a shape whose area is about that of a square of the same name and size."""
    corners = CORNERS[shape] or 48
    turn = rng.uniform(-0.2, 0.2) + (math.pi / 4 if shape == "square" else -math.pi / 2)
    reach = {"circle": 0.85, "square": 1.1, "triangle": 1.2, "star": 1.25}[shape] * radius
    angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
    reaches = [reach * (0.45 if shape == "star" and corner % 2 else 1.0) for corner in range(corners)]
    return [(middle[0] + far * math.cos(angle), middle[1] + far * math.sin(angle)) for angle, far in zip(angles, reaches, strict=True)]


def write_scene(number: int, *, folder: Path, seed: int, split: str) -> str:
    """Draw a scene of a split into its file, reproducible from seed, split and number. -> its line of the split's JSONL."""
    rng = random.Random(f"{seed}/{split}/{number}")
    scene = random_scene(rng, split, seed)
    name = f"{split}/{number:05}.png"
    drawn(scene, rng).save(folder / name, compress_level=1)  # it is half noise, which more effort makes no smaller
    return json.dumps({"image": name, "captions": scene.sentences()}) + "\n"


def generate(folder: Path, *, seed: int, sizes: dict[str, int]) -> dict[str, Path]:
    """Write a JSONL file and a folder of pictures per split into `folder`, on all cores; returns the paths of the files."""
    paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
    with ProcessPoolExecutor() as pool:
        for split, path in paths.items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            lines = pool.map(partial(write_scene, folder=folder, seed=seed, split=split), range(sizes[split]), chunksize=100)
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return paths


def main() -> None:
    """Command line: `python examples/captions/generate.py work/captions --seed 1`."""
    parser = argparse.ArgumentParser(description="Write scenes of shapes with sentences about them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=6_000)
    parser.add_argument("--valid", type=int, default=200)
    parser.add_argument("--test", type=int, default=500)
    words = parser.parse_args()
    sizes = {"train": words.train, "valid": words.valid, "test": words.test}
    for split, path in generate(words.folder, seed=words.seed, sizes=sizes).items():
        print(f"{path}: {sizes[split]:,} scenes")


if __name__ == "__main__":
    main()
