"""The example of sound: what it keys is reproducible and can be read back, its configuration loads, its picture is drawn."""

import importlib.util
import io
import json
import sys
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from transduce.config import load_config
from transduce.data.loader import prepare
from transduce.pictures import Heard, sound_png

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "examples" / "morse"


@pytest.fixture(scope="module")
def morse() -> Iterator[ModuleType]:
    """examples/morse/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("morse_generate", PLACE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["morse_generate"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["morse_generate"]


def read_back(samples: np.ndarray, rate: int, dot: float, codes: dict[str, str]) -> str:
    """What a simple ear reads of a clean recording: loud stretches and pauses, measured in dots."""
    power = np.convolve(np.square(samples), np.ones(rate // 100), mode="same")
    loud = (power > power.max() / 8).astype(int)
    ends = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    lengths = np.diff(ends) / rate / dot
    letters, signs = [], ""
    for number, length in enumerate(lengths):
        if number % 2 == 0:
            signs += "." if length < 2 else "-"
        elif length > 2:
            letters.append(signs)
            signs = ""
    names = {code: letter for letter, code in codes.items()}
    return "".join(names[code] for code in [*letters, signs])


@pytest.mark.parametrize("word", ["PARIS", "DL3KX", "Q", "0159"])
def test_what_is_keyed_can_be_read_back(morse: ModuleType, word: str) -> None:
    samples = morse.sound(word, np.random.default_rng(1), speed=20.0, snr_db=60.0)
    assert read_back(samples, morse.RATE_HZ, 1.2 / 20, morse.CODE) == word


def test_noise_is_as_strong_as_asked(morse: ModuleType) -> None:
    levels = []
    for snr_db in (0.0, 20.0):
        samples = morse.sound("T", np.random.default_rng(2), speed=20.0, snr_db=snr_db)
        quiet = samples[: morse.RATE_HZ // 25]
        levels.append(np.square(quiet / np.abs(samples).max()).mean())
    assert levels[0] > 8 * levels[1]


def test_archives_are_reproducible_and_splits_share_no_text(morse: ModuleType, tmp_path: Path) -> None:
    sizes = {"train": 40, "valid": 20, "test": 20}
    first, again = (morse.generate(tmp_path / name, seed=3, sizes=sizes) for name in ("a", "b"))
    texts = {}
    for split, path in first.items():
        assert path.read_text() == again[split].read_text()
        assert path.with_suffix(".tar").read_bytes() == again[split].with_suffix(".tar").read_bytes()
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(records) == sizes[split] and {"audio", "text", "seconds", "speed", "snr_db"} == set(records[0])
        texts[split] = {record["text"] for record in records}
        with tarfile.open(path.with_suffix(".tar")) as archive:
            for record in records[:3]:
                with wave.open(io.BytesIO(archive.extractfile(record["audio"]).read())) as file:
                    assert file.getnframes() / file.getframerate() == pytest.approx(record["seconds"], abs=1e-3)
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["valid"]


def test_the_configuration_loads_and_reads_the_archives(morse: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    morse.generate(Path("work/morse"), seed=1, sizes={"train": 6, "valid": 3})
    config = load_config(PLACE / "config.yaml", ["data.cache_dir=cache"])
    assert len((PLACE / "config.yaml").read_text().splitlines()) <= 30
    data = prepare(config.data, seed=1)
    assert len(data.train) == 6 and len(data.valid) == 3
    assert sum(len(batch.ids) for batch in data.train.batches(0)) == 6


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    samples, features, target = draw.normal(size=8000).astype(np.float32), draw.random((98, 20), np.float32), ("A", "B", "C", "end")
    sound_png(tmp_path / "heard.png", Heard(samples, features, draw.random((4, 25)), target, 1.0), title="ABC")
    assert (tmp_path / "heard.png").stat().st_size > 5000
