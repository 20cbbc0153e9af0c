"""The example of tracks: what it generates is reproducible and drives where it should; its configuration loads; its picture is drawn."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from transduce.config import load_config
from transduce.pictures import Fan, fan_png

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "examples" / "tracks"


@pytest.fixture(scope="module")
def traffic() -> Iterator[ModuleType]:
    """examples/tracks/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("tracks_generate", PLACE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tracks_generate"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["tracks_generate"]


@pytest.mark.parametrize("entry", range(4))
@pytest.mark.parametrize("leaving", range(4))
def test_every_route_goes_round_the_island(traffic: ModuleType, entry: int, leaving: int) -> None:
    points = traffic.route(entry, leaving)
    radius = np.hypot(*points.T)
    assert radius.min() > traffic.ISLAND_RADIUS - 2, "nobody crosses the island"
    assert radius[0] > 40 and radius[-1] > 40
    for end, number in ((0, entry), (-1, leaving)):
        angle = np.arctan2(*points[end][::-1])
        assert abs((angle - number * np.pi / 2 + np.pi) % (2 * np.pi) - np.pi) < 0.1
    steps = np.diff(points, axis=0)
    crosses = points[:-1, 0] * steps[:, 1] - points[:-1, 1] * steps[:, 0]
    near = radius[:-1] < traffic.ISLAND_RADIUS + 0.5
    assert (crosses[near] > 0).all(), "counter-clockwise, as where people drive on the right"


def test_tables_are_reproducible_and_splits_differ(traffic: ModuleType, tmp_path: Path) -> None:
    first, again = (traffic.generate(tmp_path / name, seed=3, sizes={"train": 4, "valid": 4}) for name in ("a", "b"))
    assert first["train"].read_text() == again["train"].read_text() != first["valid"].read_text()
    header, *rows = first["train"].read_text().splitlines()
    assert header == "frame,id,x,y" and {row.split(",")[1] for row in rows} == set("0123")


def test_the_configuration_loads() -> None:
    config = load_config(PLACE / "config.yaml")
    assert config.data.windows is not None and config.rollout.num_samples == 20
    assert len((PLACE / "config.yaml").read_text().splitlines()) <= 30


def test_the_fan_is_drawn(tmp_path: Path) -> None:
    line = np.stack([np.arange(5), np.arange(5)], axis=1).astype(np.float32)
    fan_png(tmp_path / "fan.png", [Fan(line, line + 5, line + 6, (line + 7, line + 4))] * 4)
    assert (tmp_path / "fan.png").stat().st_size > 5000
