"""The documentation tells the truth: its commands run, its configurations load, its Python works, its links lead somewhere.

Shell blocks (```sh) of README.md and docs/*.md run in one folder with small generated data, page by page, each command once.
Configurations shown there train for minutes; so `en-de.yaml` is a tiny one here, and what `transduce init` writes is only loaded.
Blocks without a language are not commands.
"""

import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    *("quickstart", "data", "language", "tracks", "speech", "captions", "architectures", "search", "training"),
    *("performance", "benchmarks", "export", "students", "api"),
)
PAGES = ("README.md", *(f"docs/{name}.md" for name in NAMES))
NOT_RUN = {
    "make demo-speech": "trains for minutes; tests/test_morse_example.py covers its data and its configuration",
    "make demo-tracks": "trains for minutes; tests/test_tracks_example.py covers its data and its configuration",
    "make demo-caption": "trains for minutes; tests/test_captions_example.py covers its data and its configuration",
    "make demo": "trains for minutes; CI runs it as its own step, and tests/test_dates.py covers its data",
    "make test": "is this test suite",
    "make check": "CI runs it as its own step",
    'pip install -e ".[metrics,plot,fast]"': "needs the network; CI installs the package through the same pyproject.toml",
    "make results-text": "trains for hours on data that is not in this repository; tests/test_results_script.py covers the script",
    **dict.fromkeys(
        (
            "python benchmarks/peers.py huggingface ctranslate2",
            "python benchmarks/peers.py joeynmt eole opennmt",
        ),
        "needs the network; installs other toolkits",
    ),
    **dict.fromkeys(
        (
            "python benchmarks/ceiling.py --json ceiling.json",
            "python benchmarks/train_speed.py --json train_speed.json",
            "python benchmarks/train_speed.py --model lstm --json train_speed_lstm.json",
            "python benchmarks/ablation.py --json ablation.json",
            "python benchmarks/search_speed.py --json search_speed.json",
            "python benchmarks/time_to_quality.py --json time_to_quality.json",
            "python benchmarks/scaling.py --json scaling.json",
            "python benchmarks/gpu.py --json gpu.json",
            "python benchmarks/step_profile.py --json step_profile.json",
            "python benchmarks/step_profile.py transformer-small rnn-luong --set data.max_tokens_per_batch=4096",
            "python benchmarks/step_profile.py en-de.yaml",
        ),
        "measures for minutes, from a checkout; tests/test_benchmarks.py runs every script in small",
    ),
}
TRACKS = """
preset: tracks-lstm
run_dir: runs/tracks
data:
  train: {path: train.csv}
  valid: {path: val.csv}
  windows: {frame: frame, track: id, values: [x, y], observed: 3, predicted: 3}
model:
  encoder: {width: 8}
  decoder: {width: 8}
  head: {hidden_size: 8}
train: {max_steps: 4, save_every_steps: 2}
"""
SPEECH = """
preset: speech-las
run_dir: runs/speech
data:
  train: {path: train.audio.jsonl, source: audio, target: text, media: clips.tar}
  valid: {path: test.audio.jsonl, source: audio, target: text, media: clips.tar}
model:
  frontend: {channels: 2}
  encoder: {width: 8, layers: 2}
  decoder: {width: 8}
  embedding_size: 8
train: {max_steps: 4, save_every_steps: 2}
"""
LANGUAGE = """
preset: lm-lstm
run_dir: runs/language
data:
  train: {target: train.de}
  valid: {target: val.de}
  target_codec: {kind: stored, path: runs/en-de}
model: {decoder: {width: 16}, embedding_size: 16}
train: {max_steps: 4, save_every_steps: 2}
"""
SPEECH_LANGUAGE = """
preset: lm-lstm
run_dir: runs/speech-lm
data:
  train: {path: train.audio.jsonl, target: text}
  valid: {path: test.audio.jsonl, target: text}
  target_codec: {kind: stored, path: runs/speech}
model: {decoder: {width: 16}, embedding_size: 16}
train: {max_steps: 4, save_every_steps: 2}
"""
CAPTIONS = """
preset: caption-attend
run_dir: runs/captions
data:
  train: {path: captions.jsonl, source: image, target: captions}
  valid: {path: captions.jsonl, source: image, target: captions}
  source_codec: {size: 16, patch: 8}
  target_codec: {min_count: 1}
model:
  frontend: {widths: [8, 8]}
  decoder: {width: 8, attention_size: 8}
  embedding_size: 8
train: {max_steps: 4, save_every_steps: 2}
"""
TRANSFORMER = """
preset: transformer-tiny
run_dir: runs/transformer
data:
  train: {source: train.en, target: train.de}
  valid: {source: val.en, target: val.de}
model:
  embedding_size: 16
  encoder: {layers: 1, width: 16, heads: 2, feed_forward: 16}
  decoder: {layers: 1, width: 16, heads: 2, feed_forward: 16}
train: {max_steps: 4, save_every_steps: 2}
search: {max_length: 9}
"""
STUDENT = """
preset: student-tiny
run_dir: runs/student
data:
  train: {path: distilled.jsonl}
  valid: {source: val.en, target: val.de}
  target_codec: {kind: stored, path: runs/en-de}
model:
  embedding_size: 16
  encoder: {layers: 1, width: 16, heads: 2, feed_forward: 16}
  decoder: {width: 16, heads: 2, feed_forward: 16}
train: {max_steps: 4, save_every_steps: 2}
"""
WORDS = {"a": "Ein", "red": "roter", "dog": "Hund", "man": "Mann", "runs": "rennt"}
TINY = """
run_dir: runs/en-de
seed: 1
data:
  train: {source: train.en, target: train.de}
  valid: {source: val.en, target: val.de}
  source_codec: {kind: characters}
  target_codec: {kind: characters}
  joint_vocabulary: true
  max_source_tokens: 60
  max_target_tokens: 60
  max_tokens_per_batch: 400
model:
  embedding_size: 16
  encoder: {kind: gru, width: 16}
  decoder: {kind: gru, width: 16, attention: additive}
train:
  max_steps: 4
  save_every_steps: 2
  keep_last: 2
"""


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a page, comments taken off."""
    lines = (line for block in blocks(page, "sh") for line in block.splitlines())
    return [command for command in (re.sub(r"\s+# .*$", "", line).strip() for line in lines) if command and not command.startswith("#")]


def write_lines(place: Path, lines: list[str]) -> None:
    place.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_recordings(place: Path) -> None:
    """Noise in an archive, two manifests that name it, and one recording beside them."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(random.Random(1).randbytes(6000))
    (place / "hello.wav").write_bytes(file.getvalue())
    with tarfile.open(place / "clips.tar", "w") as archive:
        archive.add(place / "hello.wav", "clips/0.wav")
    for split, size in (("train", 8), ("test", 2)):
        records = [json.dumps({"audio": "clips/0.wav", "text": "good day"}) for _ in range(size)]
        write_lines(place / f"{split}.audio.jsonl", records)


def write_pictures(place: Path) -> None:
    """Plain pictures with captions, and their configuration."""
    colours = ("red", "green", "blue")
    (place / "pictures").mkdir()
    for number in range(9):
        Image.new("RGB", (16, 16), colours[number % 3]).save(place / "pictures" / f"{number}.png")
    lines = [{"image": f"pictures/{number}.png", "captions": [f"all {colours[number % 3]}"] * 2} for number in range(9)]
    write_lines(place / "captions.jsonl", [json.dumps(line) for line in lines])
    (place / "captions.yaml").write_text(CAPTIONS, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files with the names that the documentation uses."""
    place = tmp_path_factory.mktemp("docs")
    rng = random.Random(1)
    for split, size in (("train", 120), ("val", 10), ("test", 6)):
        sources = [" ".join(rng.choice(list(WORDS)) for _ in range(rng.randint(2, 6))) for _ in range(size)]
        targets = [" ".join(WORDS[word] for word in source.split()) for source in sources]
        write_lines(place / f"{split}.en", sources)
        write_lines(place / f"{split}.de", targets)
        write_lines(place / f"{split}.tsv", [f"{source}\t{target}" for source, target in zip(sources, targets, strict=True)])
        records = [json.dumps({"source": source, "target": target}) for source, target in zip(sources, targets, strict=True)]
        write_lines(place / f"{split}.jsonl", records)
        steps = [f"{frame},{name},{name + frame},{rng.random():.3f}" for name in range(size // 3) for frame in range(8)]
        write_lines(place / f"{split}.csv", ["frame,id,x,y", *steps])
        with gzip.open(place / f"{split}.en.gz", "wt", encoding="utf-8") as file:
            file.writelines(f"{source}\n" for source in sources)
    shutil.copy(place / "test.en", place / "more.en")
    (place / "en-de.yaml").write_text(TINY, encoding="utf-8")
    (place / "tracks.yaml").write_text(TRACKS, encoding="utf-8")
    (place / "transformer.yaml").write_text(TRANSFORMER, encoding="utf-8")
    (place / "speech.yaml").write_text(SPEECH, encoding="utf-8")
    (place / "language.yaml").write_text(LANGUAGE, encoding="utf-8")
    (place / "student.yaml").write_text(STUDENT, encoding="utf-8")
    (place / "speech-lm.yaml").write_text(SPEECH_LANGUAGE, encoding="utf-8")
    write_recordings(place)
    write_pictures(place)
    return place


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """`transduce` first on the path, one thread, a cache of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}


def make_way(command: str, folder: Path) -> None:
    """Remove what an earlier page left and this command would refuse to write over."""
    words = command.split()
    if words[:2] == ["transduce", "init"]:
        (folder / "en-de.yaml").unlink()
    if words[:2] == ["transduce", "train"]:
        named = [word.partition("=")[2] for word in words if word.startswith("run_dir=")]
        shutil.rmtree(folder / (named or [f"runs/{words[2].removesuffix('.yaml')}"])[0], ignore_errors=True)


def check_written(command: str, folder: Path) -> None:
    """A configuration that `init` wrote loads and is short; the tiny one takes its place."""
    from transduce.config import load_config

    if command.startswith("transduce init"):
        written = folder / "en-de.yaml"
        assert len(written.read_text(encoding="utf-8").splitlines()) <= 30
        assert load_config(written).run_dir == Path("runs/en-de")
        written.write_text(TINY, encoding="utf-8")


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[-1]}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_runs(folder: Path, environment: dict[str, str]) -> None:
    seen = set(NOT_RUN)
    for page in PAGES:
        for command in commands(page):
            if command not in seen:
                seen.add(command)
                make_way(command, folder)
                run(["bash", "-e", "-o", "pipefail", "-c", command], folder, environment)
                check_written(command, folder)
    assert len((folder / "test.out").read_text(encoding="utf-8").splitlines()) == 6
    assert {"bleu", "chrf"} <= set(re.findall(r"bleu|chrf", (folder / "scores.json").read_text(encoding="utf-8")))
    assert (folder / "runs" / "en-de" / "report" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_examples_run(page: str, folder: Path, environment: dict[str, str]) -> None:
    place = folder / Path(page).stem
    place.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, place)
    run([sys.executable, "-W", "error", "-c", "\n".join(blocks(page, "python"))], place, environment)


def test_every_configuration_shown_is_valid() -> None:
    from io import StringIO

    from ruamel.yaml import YAML

    from transduce.config import parse_config

    shown = [block for page in PAGES for block in blocks(page, "yaml")]
    assert len(shown) >= 4
    for block in shown:
        assert len(block.splitlines()) <= 30
        tree = YAML(typ="safe", pure=True).load(StringIO(block))
        parse_config({"run_dir": "runs/x", "train": {"max_steps": 1}, **tree})


def links() -> Iterator[tuple[str, str]]:
    for page in (*PAGES, "CONTRIBUTING.md", "docs/results.md"):
        for target in re.findall(r"\]\(([^)#]+)", read(page)):
            yield page, target


def test_every_link_leads_somewhere() -> None:
    found = list(links())
    assert len(found) > 15
    local = [(page, target) for page, target in found if not target.startswith("http")]
    assert not [(page, target) for page, target in local if not (ROOT / page).parent.joinpath(target).exists()]


def test_every_page_is_tested_or_generated() -> None:
    written = {"results", "results-media", "results-tracks", "configuration", "code"}
    generated = {f"docs/{name}.md" for name in written}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= generated | set(PAGES)


def test_what_is_not_run_is_still_shown() -> None:
    shown = {command for page in (*PAGES, "CONTRIBUTING.md") for command in commands(page)}
    assert set(NOT_RUN) - shown == set()


def test_the_readme_is_short_and_its_file_tree_is_that_of_the_package(environment: dict[str, str]) -> None:
    assert len(read("README.md").splitlines()) < 250
    run([sys.executable, str(ROOT / "scripts" / "readme_tree.py"), "--check"], ROOT, environment)


def test_the_results_of_the_readme_are_those_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import results_page

    text = read("README.md")
    table = text[text.index(results_page.START) : text.index(results_page.END)]
    page = read("docs/results.md")
    for row in results_page.ROWS:
        assert f"| {row.label} |" in table and f"| {row.label} |" in page
