"""Tables of tracks: layouts, windows, gaps, bad rows; and the windows of real data."""

import gzip
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from transduce.baselines import constant_velocity
from transduce.data.examples import CorpusConfig, Reading, read_pairs
from transduce.data.report import DataReport
from transduce.data.tables import newest_observed
from transduce.data.windows import WindowsConfig
from transduce.errors import ConfigError, DataError
from transduce.metrics.tracks import track_scores

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SHORT = {"observed": 2, "predicted": 2}


def read(path: Path, windows: WindowsConfig, *, errors: str = "strict", report: DataReport | None = None):
    corpus = CorpusConfig(path=path, format="tracks")
    reading = Reading("frames", "frames", windows)
    return list(read_pairs(corpus, errors=errors, report=report or DataReport(), reading=reading))


def table(folder: Path, *rows: str, name: str = "t.tsv") -> Path:
    path = folder / name
    path.write_text("".join(row + "\n" for row in rows))
    return path


def line(track: str, frames: range, *, start: float = 0.0) -> list[str]:
    return [f"{frame}\t{track}\t{start + frame}\t{2 * frame}" for frame in frames]


def test_windows_slide_over_each_track(tmp_path):
    path = table(tmp_path, *line("a", range(5)), *line("b", range(3)), *line("c", range(4), start=100))
    report = DataReport()
    records = read(path, WindowsConfig(**SHORT), report=report)
    assert [record.source.values.tolist() for record in records] == [[[0, 0], [1, 2]], [[1, 2], [2, 4]], [[100, 0], [101, 2]]]
    assert records[0].targets[0].values.tolist() == [[2, 4], [3, 6]]
    assert records[0].targets[0].anchor.tolist() == [[0, 0], [1, 2]]
    assert report.corpora[0].read == 3
    (note,) = report.corpora[0].noted.values()
    assert (note.count, note.places) == (1, [f"{path}:6"])


def test_a_stride_leaves_windows_out(tmp_path):
    path = table(tmp_path, *line("a", range(8)))
    assert len(read(path, WindowsConfig(**SHORT))) == 5
    assert len(read(path, WindowsConfig(**SHORT, stride=2))) == 3


def test_gaps_are_cut_or_filled_and_counted(tmp_path):
    path = table(tmp_path, *line("a", range(2)), *line("a", range(3, 6)))
    report = DataReport()
    assert read(path, WindowsConfig(**SHORT), report=report) == []
    assert "gaps of a track, where it is cut" in report.corpora[0].noted
    report = DataReport()
    records = read(path, WindowsConfig(**SHORT, gaps="interpolate"), report=report)
    assert [record.source.values[0].tolist() for record in records] == [[0, 0], [1, 2], [2, 4]]
    assert report.corpora[0].noted["gaps of a track, filled in a straight line"].count == 1
    long = table(tmp_path, *line("a", range(2)), *line("a", range(5, 9)))
    assert len(read(long, WindowsConfig(**SHORT, gaps="interpolate", max_gap=2))) == 1


def test_named_columns_sequences_and_classes(tmp_path):
    rows = [f"{scene},{kind},{frame},1,{frame},0" for scene, kind in (("s", "car"), ("t", "cat")) for frame in range(4)]
    path = table(tmp_path, "scene,kind,frame,id,x,y", *rows, name="t.csv")
    named = {"frame": "frame", "track": "id", "values": ("x", "y"), "sequence": "scene"}
    assert len(read(path, WindowsConfig(**SHORT, **named))) == 2
    report = DataReport()
    assert len(read(path, WindowsConfig(**SHORT, **named, class_column="kind", classes=("car",)), report=report)) == 1
    assert report.corpora[0].noted["rows of other classes, not used"].count == 4
    with pytest.raises(DataError, match="no column called 'z'; the header has 'scene'"):
        read(path, WindowsConfig(**SHORT, **(named | {"values": ("x", "z")})))
    with pytest.raises(ConfigError, match="name all columns"):
        WindowsConfig(frame="frame", track=1)


def test_mot_and_kitti_layouts(tmp_path):
    mot = table(tmp_path, *(f"{frame},7,{frame},2,30,40,1,-1,-1,-1" for frame in range(1, 5)), name="det.txt")
    assert read(mot, WindowsConfig(**SHORT, layout="mot"))[0].source.values.tolist() == [[1, 2, 30, 40], [2, 2, 30, 40]]
    kitti = table(tmp_path, *(f"{frame} 7 Car 0 0 -1.5 {frame} 2 31 42 1 1 1 0 0 0 0" for frame in range(4)), name="0001.txt")
    assert read(kitti, WindowsConfig(**SHORT, layout="kitti"))[0].source.values.tolist() == [[0, 2, 31, 40], [1, 2, 30, 40]]


def test_npy_tables(tmp_path):
    path = tmp_path / "t.npy"
    np.save(path, np.array([[frame, 1, frame, -frame] for frame in range(4)], dtype=np.float64))
    assert len(read(path, WindowsConfig(**SHORT))) == 1
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not an NPY file of numbers"):
        read(path, WindowsConfig(**SHORT))
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 4), }".ljust(128) + b"\n")
    with pytest.raises(DataError, match="not an NPY file of numbers"):
        read(path, WindowsConfig(**SHORT))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("2\ta\tnan\t1", "number is not finite"),
        ("2\ta\tinf\t1", "number is not finite"),
        ("2\ta\t1e60\t1", "number is not finite"),
        ("2\ta\tx\t1", "not a number"),
        ("2\ta\t1", "wrong number of columns"),
        ("1\ta\t1\t1", "duplicate frame of a track"),
        ("0\ta\t1\t1", "time goes back in a track"),
        ("1.5\ta\t1\t1", "frame is not a whole number"),
    ],
)
def test_bad_rows_are_named_or_counted(tmp_path, bad, reason):
    path = table(tmp_path, *line("a", range(2)), bad, *line("b", range(4)))
    with pytest.raises(DataError, match=reason) as caught:
        read(path, WindowsConfig(**SHORT))
    assert "t.tsv:3" in str(caught.value) and caught.value.exit_code == 65
    report = DataReport()
    assert len(read(path, WindowsConfig(**SHORT), errors="tolerant", report=report)) == 1
    assert report.corpora[0].skipped[f"row: {reason}"].places == [f"{path}:3"]


def test_empty_and_wrong_files(tmp_path):
    empty = table(tmp_path)
    assert read(empty, WindowsConfig(**SHORT)) == []
    with pytest.raises(DataError, match="is empty"):
        read(empty, WindowsConfig(**SHORT, frame="f", track="t", values=("x", "y")))
    fake = tmp_path / "t.npy"
    fake.write_text("frame,id\n1,2\n")
    with pytest.raises(DataError, match="not an NPY file"):
        read(fake, WindowsConfig(**SHORT))
    with pytest.raises(ConfigError, match=r"data\.windows must tell"):
        list(read_pairs(CorpusConfig(path=empty, format="tracks"), errors="strict", report=DataReport()))


def test_noise_is_for_what_was_observed(tmp_path):
    path = table(tmp_path, *line("a", range(40)))
    plain = read(path, WindowsConfig(**SHORT))
    noisy, again = (
        list(read_pairs(corpus, errors="strict", report=DataReport(), reading=Reading("frames", "frames", WindowsConfig(**SHORT))))
        for corpus in [CorpusConfig(path=path, format="tracks", noise=0.5)] * 2
    )
    moved = np.array([(other.source.values - record.source.values) for record, other in zip(plain, noisy, strict=True)])
    assert 0.1 < moved.std() < 0.5 and np.abs(moved).min() > 0
    deviations = moved.reshape(len(moved), -1).std(1)
    assert deviations.min() < 0.15 < 0.3 < deviations.max()  # each window has a strength of its own
    for record, other, same in zip(plain, noisy, again, strict=True):
        np.testing.assert_array_equal(other.source.values, same.source.values)
        np.testing.assert_array_equal(other.targets[0].values, record.targets[0].values)
        np.testing.assert_array_equal(other.targets[0].anchor, other.source.values[-2:])
    with pytest.raises(ConfigError, match=r"noise = 0\.5 is for tables of tracks"):
        CorpusConfig(source="a.en", target="a.de", noise=0.5)


def test_truncated_files(tmp_path):
    path = table(tmp_path, *line("a", range(6)))
    path.write_bytes(path.read_bytes()[:-3])  # the last row lost a column and a half
    report = DataReport()
    with pytest.raises(DataError, match=r"wrong number of columns|not a number"):
        read(path, WindowsConfig(**SHORT))
    assert len(read(path, WindowsConfig(**SHORT), errors="tolerant", report=report)) == 2
    assert sum(skipped.count for skipped in report.corpora[0].skipped.values()) == 1
    packed = tmp_path / "t.tsv.gz"
    packed.write_bytes(gzip.compress("\n".join(line("a", range(500))).encode())[:-20])
    with pytest.raises(DataError, match="damaged gzip file"):
        read(packed, WindowsConfig(**SHORT))
    array = tmp_path / "t.npy"
    np.save(array, np.zeros((100, 4)))
    array.write_bytes(array.read_bytes()[:-100])
    with pytest.raises(DataError, match="not an NPY file of numbers"):
        read(array, WindowsConfig(**SHORT))
    array.write_bytes(b"")
    with pytest.raises(DataError, match="not an NPY file of numbers"):
        read(array, WindowsConfig(**SHORT))


def test_parquet_tables(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    draw = np.random.default_rng(1)
    frames = np.arange(400)
    parquet.write_table(pyarrow.table({"frame": frames, "id": frames * 0, "x": draw.normal(size=400), "y": draw.normal(size=400)}), path)
    named = WindowsConfig(**SHORT, frame="frame", track="id", values=("x", "y"))
    assert len(read(path, named)) == 397
    whole = path.read_bytes()
    half = len(whole) // 2
    for damaged in (b"", whole[:-50], whole[:half], b"frame,id\n1,2\n", whole[:4] + bytes(half) + whole[half + 4 :]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not a Parquet file|damaged Parquet file"):
            read(path, named)


def test_files_that_claim_to_be_huge_are_refused_at_once(tmp_path):
    """A few kilobytes that unpack to gigabytes cost neither time nor memory."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, same = tmp_path / "t.parquet", pyarrow.array(np.zeros(2_000_000))
    parquet.write_table(pyarrow.table({"frame": same, "id": same, "x": same, "y": same}), path)
    array = tmp_path / "t.npy"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 4), }"
    array.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.ljust(117) + b"\n" + bytes(1000))
    tracemalloc.start()
    before, used = time.perf_counter(), pyarrow.default_memory_pool().max_memory()
    with pytest.raises(DataError, match=r"claims 2,000,000 rows in"):
        read(path, WindowsConfig(**SHORT, frame="frame", track="id", values=("x", "y")))
    with pytest.raises(DataError, match="not an NPY file of numbers"):
        read(array, WindowsConfig(**SHORT))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - before < 2 and peak < 200 << 20 and pyarrow.default_memory_pool().max_memory() - used < 200 << 20


def test_the_newest_steps_are_what_a_forecast_starts_from(tmp_path):
    path = table(tmp_path, *line("a", range(5)), *line("b", range(3)))
    assert [track.values[-1].tolist() for track in newest_observed(path, WindowsConfig(**SHORT))] == [[4, 8], [2, 4]]
    with pytest.raises(DataError, match="track b ends with fewer than 4 steps"):
        list(newest_observed(path, WindowsConfig(observed=4, predicted=2)))


@pytest.mark.skipif(not (DATA / "eth_ucy").exists(), reason="the real data sets are not in ../shared/data")
def test_windows_and_constant_velocity_of_eth_are_as_published(tmp_path):
    """The counts and the plain baseline that the data set's README gives for the scene biwi_eth and for zara1."""
    for scene, count, ade, fde in (("biwi_eth", 364, 1.08, 2.28), ("crowds_zara01", 2356, 0.43, 0.95)):
        parts = [(DATA / "eth_ucy" / f"{scene}_{part}.tsv").read_text() for part in ("train", "val")]
        path = tmp_path / f"{scene}.tsv"
        path.write_text("".join(parts))
        records = read(path, WindowsConfig(frame_step=10))
        guesses = [constant_velocity(record.source.values, 12) for record in records]
        scores = track_scores(["ade", "fde"], guesses, [record.targets[0].values for record in records])
        assert len(records) == count
        assert (scores["ade"], scores["fde"]) == (pytest.approx(ade, abs=0.005), pytest.approx(fde, abs=0.005))


@pytest.mark.skipif(not (DATA / "kitti_tracking").exists(), reason="the real data sets are not in ../shared/data")
def test_windows_and_constant_velocity_of_kitti_are_as_published():
    named = {"frame": "frame", "track": "track_id", "sequence": "seq", "values": ("x", "y", "w", "h")}
    records = read(DATA / "kitti_tracking" / "test.csv", WindowsConfig(**named))
    guesses = [constant_velocity(record.source.values, 12, over=3) for record in records]
    scores = track_scores(["ade", "fde", "iou", "final_iou"], guesses, [record.targets[0].values for record in records])
    assert len(records) == 4497
    published = {"ade": (21.30, 0.05), "fde": (50.89, 0.15), "iou": (0.601, 0.001), "final_iou": (0.364, 0.001)}
    assert scores == {name: pytest.approx(value, abs=near) for name, (value, near) in published.items()}
