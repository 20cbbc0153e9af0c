"""Frames of numbers: what goes in comes back, training statistics, random changes, what is refused."""

import json
import threading

import numpy as np
import pytest

from transduce.data.codec import load_codec
from transduce.data.frames import FramesCodec, FramesConfig, row_keys
from transduce.data.loader import DataConfig, Loader, prepare
from transduce.data.values import BadValueError, Track
from transduce.errors import ConfigError, DataError

SETTINGS = [
    {"relative": "absolute"},
    {"relative": "last"},
    {"relative": "last", "rotate": True},
    {"relative": "velocity"},
    {"relative": "velocity", "rotate": True},
    {"relative": "residual"},
    {"relative": "residual", "rotate": True},
]


def tracks(count: int = 20, *, size: int = 2, seed: int = 0) -> list[Track]:
    draw = np.random.default_rng(seed)
    walks = draw.normal(0.5, 1.0, (count, 9, size)).cumsum(1).astype(np.float32)
    return [Track(walk[3:], walk[1:3]) for walk in walks]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [2, 4])
def test_5_what_goes_in_comes_back(settings, size, tmp_path):
    codec = FramesCodec.fit(FramesConfig(**settings), tracks(size=size))
    codec.save(tmp_path)
    loaded = load_codec(tmp_path)
    assert loaded.digest == codec.digest
    for track in tracks(size=size, seed=1):
        row = loaded.row(track)
        np.testing.assert_allclose(loaded.decode(row.data.reshape(-1, size), track.anchor), track.values, atol=1e-4)
        assert row.width == 6
        several = np.stack([row.data.reshape(-1, size), 2 * row.data.reshape(-1, size)])
        one_by_one = np.stack([loaded.decode(frames, track.anchor) for frames in several])
        np.testing.assert_allclose(loaded.decode(several, track.anchor), one_by_one, atol=1e-5)
    assert codec.check(tracks(size=size)).lossy == 0


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_training_frames_have_unit_size(settings):
    codec = FramesCodec.fit(FramesConfig(**settings), tracks(200))
    values = np.concatenate([codec.encode(track) for track in tracks(200)])
    assert np.sqrt((values**2).mean()) == pytest.approx(1, abs=0.05)


def test_a_heading_makes_turned_tracks_alike():
    codec = FramesCodec(FramesConfig(relative="velocity", rotate=True), [1, 1], [0, 0])
    track = tracks(1)[0]
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]], dtype=np.float32)
    other = Track(track.values @ turn + 5, track.anchor @ turn + 5)
    np.testing.assert_allclose(codec.encode(other), codec.encode(track), atol=1e-5)
    straight = Track(np.array([[0, 0], [0, 1], [0, 2]], dtype=np.float32))
    np.testing.assert_allclose(codec.encode(straight), [[1, 0], [1, 0]], atol=1e-6)


def test_zeros_go_on_with_constant_velocity():
    codec = FramesCodec(FramesConfig(relative="residual"), [1, 1], [0, 0])
    anchor = np.array([[0, 0], [1, 2]], dtype=np.float32)
    assert codec.decode(np.zeros((3, 2), dtype=np.float32), anchor).tolist() == [[2, 4], [3, 6], [4, 8]]


def test_both_ends_of_an_example_change_alike():
    config = FramesConfig(relative="velocity", random_rotation=True, random_mirror=True, random_scale=0.3)
    codec = FramesCodec(config, [1, 1], [0, 0])
    rows = [codec.row(track).data for track in tracks(30)]
    keys = np.arange(30, dtype=np.uint64) * np.uint64(77777)
    changed = codec.collate(rows, keys).data.numpy()
    plain = codec.collate(rows, None).data.numpy()
    again = codec.collate(rows[10:20], keys[10:20]).data.numpy()
    np.testing.assert_array_equal(again, changed[10:20])
    ratio = np.linalg.norm(changed[:, 0], axis=-1) / np.linalg.norm(plain[:, 0], axis=-1)
    assert 0.7 <= ratio.min() < 0.85 < 1.15 < ratio.max() <= 1.3
    inner, inner_plain = (changed[:, 0] * changed[:, 1]).sum(-1), (plain[:, 0] * plain[:, 1]).sum(-1)
    np.testing.assert_allclose(inner, inner_plain * ratio**2, rtol=1e-3, atol=1e-4)
    assert not np.allclose(changed, plain)


def test_padding_is_zero_and_lengths_are_true():
    codec = FramesCodec(FramesConfig(), [1, 1], [0, 0])
    padded = codec.collate([np.ones(6, dtype=np.float32), np.ones(2, dtype=np.float32)], None)
    assert padded.lengths.tolist() == [3, 1] and padded.data.shape == (2, 3, 2)
    assert padded.data[1, 1:].abs().sum() == 0 and padded.keys is None


def test_tracks_of_one_length_are_copied():
    """Random changes are made in the batch, never in what is stored."""
    codec = FramesCodec(FramesConfig(relative="last", random_scale=0.5), [1, 1], [0, 0])
    row = np.ones(6, dtype=np.float32)
    padded = codec.collate([row], np.array([7], dtype=np.uint64))
    assert padded.data.shape == (1, 3, 2) and padded.lengths.tolist() == [3]
    assert padded.data[0, 0, 0] != 1 and (row == 1).all()


def test_batches_are_put_together_ahead(tmp_path, monkeypatch):
    """In a thread of their own, as recordings are, and the same as without it."""
    file = tmp_path / "tracks.jsonl"
    lines = [{"source": track.anchor.tolist(), "target": track.values.tolist()} for track in tracks(12)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    corpus, frames = {"path": str(file)}, {"kind": "frames"}
    tree = {"train": corpus, "valid": corpus, "source_codec": frames, "target_codec": frames, "cache_dir": str(tmp_path / "cache")}
    tree |= {"max_source_tokens": 6, "max_target_tokens": 6, "max_tokens_per_batch": 24}
    gather, threads, sums = Loader.gather, [], []

    def watched(self, rows, epoch=0):
        threads.append(threading.current_thread())
        return gather(self, rows, epoch)

    monkeypatch.setattr(Loader, "gather", watched)
    for workers in (1, 0):
        loader = prepare(DataConfig.model_validate(tree | {"workers": workers}), seed=1).train
        sums.append([float(batch.source.data.sum() + batch.target.data.sum()) for batch in loader.batches(0)])
    own = [thread is threading.current_thread() for thread in threads]
    assert sums[0] == sums[1] and len(sums[0]) == 3
    assert own == [False] * 3 + [True] * 3


def test_what_cannot_be_encoded_is_named():
    codec = FramesCodec(FramesConfig(), [1, 1], [0, 0])
    with pytest.raises(BadValueError, match="3 instead of 2"):
        codec.row(Track(np.zeros((4, 3), dtype=np.float32)))
    with pytest.raises(BadValueError, match="not finite"):
        codec.row(Track(np.array([[np.nan, 1]], dtype=np.float32)))
    assert codec.rows([Track(np.zeros((4, 3), dtype=np.float32))])[0].problem is not None
    with pytest.raises(ConfigError, match="need a relative other than absolute"):
        FramesConfig(rotate=True)
    with pytest.raises(DataError, match="no track"):
        FramesCodec.fit(FramesConfig(), [])
    with pytest.raises(DataError, match="use absolute"):
        FramesCodec(FramesConfig(relative="last"), [1], [0]).decode(np.zeros((1, 1), dtype=np.float32), None)


def test_keys_depend_on_the_row_alone():
    rows = [np.arange(4, dtype=np.float32), np.zeros(4, dtype=np.float32), np.arange(4, dtype=np.float32)]
    first, second, third = row_keys(rows).tolist()
    assert first == third != second
