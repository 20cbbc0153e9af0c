"""The results script: prepared files, commands, records, tables and the plot, with the training replaced by a stand-in."""

import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def script(results_run: ModuleType) -> ModuleType:  # noqa: ARG001 - makes the scripts importable
    """scripts/results_text.py."""
    import results_text

    return results_text


def write(place: Path, *lines: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return place


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tiny files with the names and forms of the real data sets."""
    folder = tmp_path / "data"
    for split in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de", "fr"):
            write(folder / "multi30k" / f"{split}.{language}", *(f"a {split} line number {n} in {language} ." for n in range(8)))
    for split in ("train", "val", "test"):
        write(folder / "cmudict" / f"{split}.tsv", "tomato\tT AH M EY T OW", "tomato\tT AH M AA T OW", "cat\tK AE T")
    for split in ("simple", "length", "addprim_jump"):
        write(folder / "scan" / f"{split}.train.tsv", *(f"jump {n}\tJUMP {n}" for n in range(20)))
        write(folder / "scan" / f"{split}.test.tsv", "run\tRUN")
    for split in ("train", "dev", "test"):
        write(folder / "g2p_sigmorphon2021_eng_us" / f"{split}.tsv", "abb\tæ b")
    return folder


def test_links_never_replace_the_data_itself(script: ModuleType, data: Path, tmp_path: Path) -> None:
    origin = data / "multi30k" / "val.en"
    before = origin.read_text()
    (tmp_path / "work").symlink_to(data / "multi30k")
    script.results_data.link(origin, tmp_path / "work" / "val.en")
    assert origin.read_text() == before and not origin.is_symlink()
    script.results_data.link(origin, tmp_path / "else" / "val.en")
    script.results_data.link(origin, tmp_path / "else" / "val.en")
    assert (tmp_path / "else" / "val.en").read_text() == before


def test_preparation_groups_pronunciations_and_splits_scan(script: ModuleType, data: Path, tmp_path: Path) -> None:
    prepared = script.results_data
    prepared.prepare_cmudict(data, tmp_path)
    assert prepared.read_lines(tmp_path / "cmudict" / "train.source") == ["tomato", "tomato", "cat"]
    assert prepared.read_lines(tmp_path / "cmudict" / "test.source") == ["tomato", "cat"]
    found = prepared.references_of(["cat", "tomato"], tmp_path / "cmudict" / "references.tsv")
    assert found == [["K AE T"], ["T AH M EY T OW", "T AH M AA T OW"]]
    prepared.prepare_scan(data, tmp_path)
    train, valid = (prepared.read_lines(tmp_path / "scan-simple" / f"{split}.source") for split in ("train", "valid"))
    assert (len(train), len(valid)) == (18, 2) and not set(train) & set(valid)
    prepared.prepare_scan(data, tmp_path)
    assert prepared.read_lines(tmp_path / "scan-simple" / "valid.source") == valid
    prepared.prepare_multi30k(data, tmp_path)
    assert (tmp_path / "multi30k" / "train.de").read_text(encoding="utf-8") == (data / "multi30k" / "train.de").read_text(encoding="utf-8")


def test_every_configuration_is_short_and_points_into_the_work_folder(script: ModuleType) -> None:
    from transduce.config import load_config

    for experiment in script.EXPERIMENTS:
        path, *words = experiment.train
        assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 30
        config = load_config(ROOT / path, words)
        for corpus in (config.data.train, config.data.valid):
            corpora = corpus if type(corpus) in (list, tuple) else [corpus]
            assert all(str(file).startswith("work/") for one in corpora for file in one.files)


def test_names_are_unique_and_every_row_of_the_table_has_an_experiment(script: ModuleType) -> None:
    names = [experiment.name for experiment in script.EXPERIMENTS]
    assert len(names) == len(set(names))
    assert {row.name for row in script.results_page.ROWS} == set(names)


def stand_in(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Replace the commands: training writes a configuration, prediction copies the target file of the same split."""
    commands: list[tuple[str, ...]] = []

    def transduce(*words: str) -> None:
        commands.append(words)
        if words[0] == "train":
            run_dir = Path(next(word for word in words if word.startswith("run_dir=")).partition("=")[2])
            write(run_dir / "config.yaml", "seed: 1")
            write(run_dir / "model" / "config.yaml", "seed: 1")
            write(run_dir / "log.jsonl", json.dumps({"kind": "finish", "minutes": 0.25}))
        elif words[0] == "predict":
            source, output = Path(words[words.index("--input") + 1]), Path(words[words.index("--output") + 1])
            answers = source.with_suffix(".de" if source.suffix == ".en" else ".target")
            output.write_text(answers.read_text(encoding="utf-8"), encoding="utf-8")

    monkeypatch.setattr(script.results_run, "transduce", transduce)
    return commands


def experiment_named(script: ModuleType, name: str) -> Any:
    (found,) = script.results_run.chosen(script.EXPERIMENTS, [name])
    return found


def test_a_run_writes_a_record_from_which_the_pages_are_made(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = stand_in(script, monkeypatch)
    experiment, out = experiment_named(script, "multi30k-en-de-transformer"), tmp_path / "runs" / "results"
    place = script.results_run.run(experiment, data=data, out=out, minutes=0.5)
    record = json.loads(place.read_text(encoding="utf-8"))
    assert record["test"]["bleu"]["value"] == pytest.approx(100)
    assert "tok:13a" in record["test"]["bleu"]["details"]["signature"]
    assert record["test"]["by_length"]
    assert {"command", "seed", "train_minutes", "processor", "bf16", "threads"} <= record.keys()
    assert "train.max_minutes=0.5" in commands[0] and [words[0] for words in commands] == ["train", "predict", "predict"]

    assert record["train_minutes"] == 0.25 and record["minutes_allowed"] == 0.5
    script.results_run.run(experiment, data=data, out=out)
    assert [words[0] for words in commands[3:]] == ["predict", "predict"], "a finished run is not trained again"
    (out / experiment.name / "run" / "model" / "config.yaml").unlink()
    (out / experiment.name / "run" / "model").rmdir()
    script.results_run.run(experiment, data=data, out=out)
    assert [words[0] for words in commands[5:]] == ["resume", "predict", "predict"], "an interrupted run goes on"

    write(place.parent / "tracks-eth.json", '{"test": {"systems": {}, "count": 4}}')
    write(tmp_path / "README.md", "before", script.results_page.START, "old", script.results_page.END, "after")
    written = script.results_page.write_pages(script.results_run.read_records(script.EXPERIMENTS), tmp_path)
    assert [path.name for path in written] == ["results.md", "README.md", "bleu-by-length.png"]
    assert all(path.stat().st_size > 0 for path in written)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("before") and readme.rstrip().endswith("after") and "old" not in readme
    page = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    assert "tracks-eth" not in page, "the records of the other pages stand beside these"
    assert page.count("100.0") >= 2 and "not measured yet" in page and record["processor"] in page


def test_models_of_several_seeds_predict_together(script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = stand_in(script, monkeypatch)
    place = script.results_run.run(experiment_named(script, "g2p-eng-us"), data=data, out=tmp_path / "out", seed=4)
    assert [word for words in commands[:3] for word in words if word.startswith("seed=")] == ["seed=4", "seed=5", "seed=6"]
    assert [words.count("--ensemble") for words in commands[3:]] == [2, 2]
    record = json.loads(place.read_text(encoding="utf-8"))
    assert (record["seed"], record["train_minutes"]) == ("4 to 6", 0.75)


def test_cmudict_is_scored_against_the_closest_pronunciation(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(script, monkeypatch)
    experiment = experiment_named(script, "cmudict")
    experiment.prepare(data, tmp_path / "work")
    write(tmp_path / "work" / "cmudict" / "test.target", "T AH M AA T OW", "K AE D")
    found = experiment.score([tmp_path / "run"], "test")
    assert found["exact_match"]["value"] == pytest.approx(50)
    assert found["per"]["value"] == pytest.approx(100 / 9)


def test_the_table_counts_an_unmeasured_row_as_unmeasured(script: ModuleType) -> None:
    page = script.results_page.results_markdown({})
    assert page.count("not measured yet") >= 2 * len(script.EXPERIMENTS)


def test_an_unknown_experiment_is_named_with_what_is_allowed(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="scan-simple"):
        experiment_named(script, "skan")


def test_the_command_line_lists_runs_and_says_which_experiment_failed(
    script: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["results_text.py", *words])
        script.results_run.main(script.EXPERIMENTS, lambda records, _: [Path(f"{len(records)} in the page")])
        return capsys.readouterr().out

    stand_in(script, monkeypatch)
    assert "0 in the page" in main("table")
    assert "1 in the page" in main("run", "scan-simple", "--data", str(data))
    listed = dict(line.split(maxsplit=1) for line in main("list").splitlines())
    assert (listed["scan-simple"], listed["scan-length"]) == ("measured", "not measured yet")

    def failing(*words: str) -> None:
        raise subprocess.CalledProcessError(76, words)

    monkeypatch.setattr(script.results_run, "transduce", failing)
    with pytest.raises(SystemExit, match=r"scan-length: .*76"):
        main("run", "scan-length", "--data", str(data))


@pytest.mark.skipif(not (DATA / "multi30k").exists(), reason="the real data sets are not in ../shared/data")
def test_the_real_files_have_the_expected_sizes(script: ModuleType, tmp_path: Path) -> None:
    prepared = script.results_data
    for prepare in (prepared.prepare_multi30k, prepared.prepare_g2p, prepared.prepare_cmudict, prepared.prepare_scan):
        prepare(DATA, tmp_path)
    sizes = {name: len(prepared.read_lines(tmp_path / name)) for name in ("multi30k/train.en", "g2p/test.source", "cmudict/test.source")}
    assert sizes == {"multi30k/train.en": 29_000, "g2p/test.source": 2_084, "cmudict/test.source": 6_000}
