"""`transduce init` of tables of tracks: each kind of file is told apart, and what is written trains on it."""

from pathlib import Path

import numpy as np
import pytest

from transduce.commands.initialise import initialise
from transduce.config import RunConfig, load_config
from transduce.data.examples import read_pairs
from transduce.data.report import DataReport
from transduce.errors import ConfigError, DataError

TRACKS, STEPS = 20, 25


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(*, apart: int = 1, boxes: bool = False) -> list[list[float]]:
    """frame, track and 2 or 4 numbers."""
    sizes = [30.5, 60.5] if boxes else []
    return [[frame * apart, track, frame + track / 7, frame / 3, *sizes] for track in range(TRACKS) for frame in range(STEPS)]


def write(name: str, *, mark: str, header: str = "", filled: str = "{}", boxes: bool = False, apart: int = 1) -> Path:
    lines = [filled.format(mark.join(f"{number:g}" for number in row)) for row in rows(apart=apart, boxes=boxes)]
    Path(name).write_text("".join(line + "\n" for line in ([header] if header else []) + lines), encoding="utf-8")
    return Path(name)


def run(*files: Path) -> RunConfig:
    initialise(files, output=Path("c.yaml"), run_dir=Path("runs/x"), force=False)
    text = Path("c.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30 and text.count("#") >= 3
    return load_config("c.yaml")


def count(config: RunConfig, part: str) -> int:
    corpus = config.data.valid if part == "valid" else config.data.train[0]
    return len(list(read_pairs(corpus, errors="strict", report=DataReport(), reading=config.data.reading)))


def test_named_columns_and_a_split_by_tracks(capsys: pytest.CaptureFixture[str]) -> None:
    config = run(write("all.csv", mark=",", header="Frame,ID,x,y", apart=10))
    windows = config.data.windows
    assert config.preset == "tracks-lstm" and windows is not None
    assert (windows.frame, windows.track, windows.values, windows.frame_step) == ("Frame", "ID", ("x", "y"), 10)
    assert (windows.observed, windows.predicted) == (8, 12)
    assert (count(config, "train"), count(config, "valid")) == (18 * 6, 2 * 6)
    assert "tenth of the tracks" in capsys.readouterr().out and config.data.source_codec.kind == "frames"
    with pytest.raises(ConfigError, match="exists"):
        initialise([Path("all.csv")], output=Path("c.yaml"), run_dir=Path("r"), force=True)


def test_tab_and_blank_separated_numbers_and_named_parts() -> None:
    train, valid = write("train.tsv", mark="\t"), write("val.tsv", mark="\t")
    config = run(train, valid)
    assert (str(config.data.train[0].path), str(config.data.valid.path)) == ("train.tsv", "val.tsv")
    assert config.data.train[0].format == "tracks" and count(config, "train") == TRACKS * 6


def test_mot_and_kitti() -> None:
    mot = run(write("gt.txt", mark=",", filled="{},1,-1,-1,-1", boxes=True))
    assert mot.data.windows is not None and mot.data.windows.layout == "mot" and count(mot, "train") == 18 * 6
    assert mot.data.source_codec.kind == "frames" and not mot.data.source_codec.rotate
    Path("c.yaml").unlink()
    lines = [f"{frame} {track} Car 0 0 -1.5 {frame} 2 {frame + 31} 42 1 1 1 0 0 0 0" for track in range(TRACKS) for frame in range(STEPS)]
    Path("kitti").mkdir()
    Path("kitti/0001.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Path("c-data/train.txt").unlink()
    Path("c-data/valid.txt").unlink()
    kitti = run(Path("kitti/0001.txt"))
    assert kitti.data.windows is not None and kitti.data.windows.layout == "kitti" and count(kitti, "valid") == 2 * 6


def test_arrays_and_parquet() -> None:
    np.save("t.npy", np.array(rows()))
    config = run(Path("t.npy"))
    assert config.data.windows is not None and config.data.windows.values == (2, 3) and count(config, "valid") == 12
    Path("c.yaml").unlink()
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = np.random.default_rng(0).normal(size=4) + np.array(rows(boxes=True))[:, 2:]
    names = dict(zip(("left", "top", "width", "height"), columns.T, strict=True))
    parquet.write_table(pyarrow.table({"frame": [row[0] for row in rows()], "track_id": [row[1] for row in rows()], **names}), "t.parquet")
    config = run(Path("t.parquet"))
    assert config.data.windows is not None and config.data.windows.values == ("left", "top", "width", "height")
    assert (count(config, "train"), count(config, "valid")) == (18 * 6, 12)


def test_what_nobody_can_guess_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot tell data\.windows\.track, data\.windows\.values from the column names frame, a, b, c"):
        run(write("t.csv", mark=",", header="frame,a,b,c"))
    Path("short.csv").write_text("frame,id,x,y\n0,1,2,3\n1,1,2,3\n", encoding="utf-8")
    with pytest.raises(DataError, match="too short"):
        run(Path("short.csv"))
    Path("a.en").write_text("a house\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="give files of one sort"):
        run(Path("short.csv"), Path("a.en"))
