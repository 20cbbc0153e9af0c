"""`transduce init` of manifests: recordings and pictures are told apart and found, and what is written can be trained on."""

import io
import json
import random
import tarfile
import wave
from pathlib import Path

import pytest

pytest.importorskip("soundfile")
pytest.importorskip("PIL")

from transduce.commands.initialise import initialise
from transduce.config import RunConfig, load_config
from transduce.data.examples import read_pairs
from transduce.data.report import DataReport
from transduce.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sound(seconds: float = 1.5) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(random.Random(1).randbytes(2 * round(8000 * seconds)))
    return file.getvalue()


def picture() -> bytes:
    file = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (20, 30), (200, 30, 40)).save(file, "PNG")
    return file.getvalue()


def manifest(name: str, content: bytes, *, fields: tuple[str, str], archive: bool) -> Path:
    """Four records of one file, which stands in an archive called as the manifest is, or beside it."""
    stem, member = Path(name).stem, "clips/1.bin"
    if archive:
        with tarfile.open(f"{stem}.tar", "w") as writer:
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            writer.addfile(entry, io.BytesIO(content))
    else:
        Path("clips").mkdir(exist_ok=True)
        Path(member).write_bytes(content)
    text = "hello there" if fields[1] == "text" else ["a red wall", "a wall"]
    if name.endswith(".tsv"):
        Path(name).write_text("\t".join(fields) + "\n" + f"{member}\thello there\n" * 4)
    else:
        Path(name).write_text("".join(json.dumps({fields[0]: member, fields[1]: text}) + "\n" for _ in range(4)))
    return Path(name)


def run(*files: Path) -> RunConfig:
    initialise(files, output=Path("c.yaml"), run_dir=Path("runs/x"), force=False)
    text = Path("c.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30 and text.count("#") >= 3
    config = load_config("c.yaml")
    records = list(read_pairs(config.data.train[0], errors="strict", report=DataReport(), reading=config.data.reading))
    rows = len(records)
    assert rows == 4
    return config


@pytest.mark.parametrize("ending", ["jsonl", "tsv"])
@pytest.mark.parametrize("archive", [True, False])
def test_recordings_are_found(ending: str, archive: bool, capsys: pytest.CaptureFixture[str]) -> None:
    files = [manifest(f"{name}.{ending}", sound(), fields=("audio", "text"), archive=archive) for name in ("train", "val")]
    config = run(*files)
    assert (config.preset, config.data.source_codec.kind) == ("speech-conformer", "audio")
    assert config.data.train[0].media == (Path("train.tar") if archive else None)
    assert "4 recordings, about 0.1 minutes" in capsys.readouterr().out


def test_pictures_and_their_captions_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    files = [manifest(f"{name}.jsonl", picture(), fields=("image", "captions"), archive=True) for name in ("train", "val", "test")]
    config = run(*files)
    assert (config.preset, config.data.source_codec.kind) == ("caption-attend", "image")
    assert config.data.valid.media == Path("val.tar")
    assert "--data test.jsonl" in capsys.readouterr().out


def test_what_cannot_be_used_is_refused() -> None:
    train = manifest("train.jsonl", b"neither of them, only words", fields=("audio", "text"), archive=True)
    valid = manifest("val.jsonl", sound(), fields=("audio", "text"), archive=True)
    with pytest.raises(DataError, match="neither a recording nor a picture"):
        run(train, valid)
    with pytest.raises(ConfigError, match="second manifest"):
        run(manifest("mine.jsonl", sound(), fields=("audio", "text"), archive=True))
    Path("train.tar").unlink()
    with pytest.raises(DataError, match=r"clips/1.bin.*which is not in"):
        run(train, valid)


def test_a_field_called_path_of_plain_texts_needs_a_target_to_be_a_manifest() -> None:
    Path("train.jsonl").write_text('{"source": "a b", "target": "c"}\n' * 30)
    Path("val.jsonl").write_text('{"source": "a b", "target": "c"}\n' * 3)
    initialise([Path("train.jsonl"), Path("val.jsonl")], output=Path("c.yaml"), run_dir=Path("runs/x"), force=False)
    assert load_config("c.yaml").data.source_codec.kind != "audio"
