"""Exports as a user meets them: written and checked, found and chosen by `predict`, refused with the reason."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ctranslate2", reason="the extra `export` is not installed")

from exported_models import LONGEST, SOURCE, TARGET, TEXTS, named_config, random_model, save

from transduce import cli
from transduce.commands.export import agreement_line
from transduce.data.text import CharactersConfig, fit_text_codec
from transduce.decode.options import SearchConfig
from transduce.decode.shortlist import Shortlist
from transduce.engines import EngineChoice
from transduce.errors import ConfigError, DataError, ExportError
from transduce.export import choice
from transduce.export.choice import export_folder
from transduce.export.ctranslate2 import shortlist_lines
from transduce.export.parity import compare_engines, generated_examples, validation_examples
from transduce.export.record import KINDS, PARITY, SHORTLISTED, ParityRecord, read_record
from transduce.export.write import Exported, export_model
from transduce.model.ssru import SSRUDecoderConfig
from transduce.predict import Predictor
from transduce.train.checkpoint import load_model, save_model
from transduce.train.storage import MANIFEST, verify_folder, write_json

Call = Callable[..., tuple[int, str, str]]
LINES = [text for text in TEXTS if text]
INPUT = "".join(f"{text}\n" for text in TEXTS).encode()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    """A model directory with an export, checked on texts of random tokens because its validation data is not there."""
    directory = save(tmp_path_factory.mktemp("export") / "model", named_config("multi-query rope"))
    return directory, export_model(directory, threads=1)


@pytest.fixture
def model(original: tuple[Path, Exported], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original[0], tmp_path / "model"))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command inside this process: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def start(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["transduce", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return start


def rewritten(folder: Path, **changes: object) -> None:
    """The record of an export with some fields changed, and a manifest that fits."""
    record = read_record(folder)
    write_json(folder / PARITY, {**record.model_dump(mode="json"), **changes})
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"][PARITY]
    write_json(folder / MANIFEST, manifest)


def failed(record: ParityRecord, *kinds: str) -> list[dict[str, object]]:
    """The agreements of a record, these kinds of search failed."""
    return [{**one.model_dump(mode="json"), "passed": one.passed and one.kind not in kinds} for one in record.agreements]


def test_an_export_is_checked_and_recorded(original: tuple[Path, Exported]) -> None:
    directory, exported = original
    assert exported.folder == directory / "export" / "ctranslate2"
    record = read_record(exported.folder)
    assert record == exported.record and record.sources == "200 texts of random tokens"
    assert record.model_sha256 == json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]["model.safetensors"]["sha256"]
    assert {(one.kind, one.compute_type) for one in record.agreements} == {(kind, name) for kind in KINDS for name in ("int8", "float32")}
    assert record.passed("float32") == {"greedy", "beam"}
    for one in record.agreements:
        assert one.sentences + one.left_to_torch == 200 and one.sentences > 20 and one.metric is None
        if one.compute_type == "float32":
            assert one.same == 1 and one.likeness == pytest.approx(100) and one.score_error < 1e-3
    verify_folder(exported.folder)
    assert load_model(directory).config.search.early_stop == "full", "the model directory is still whole"


def test_validation_data_is_used_where_it_is_there(tmp_path: Path) -> None:
    directory = save(tmp_path / "model", named_config("rope"))
    data = load_model(directory).config.data
    assert validation_examples(data) is None
    Path(str(data.valid.path)).write_text("".join(f"{line}\tst\n" for line in LINES), encoding="utf-8")
    record = export_model(directory, threads=1).record
    assert record.sources == f"{len(LINES)} of the validation data"
    assert all(one.metric is not None and one.metric_torch is not None for one in record.agreements)
    given = export_model(directory, output=tmp_path / "given", sources=LINES, references=[["st"]] * len(LINES), threads=1)
    assert given.folder == tmp_path / "given" and given.record.sources == f"{len(LINES)} sources that were given"


def test_texts_of_random_tokens_are_always_the_same() -> None:
    first = generated_examples(SOURCE, LONGEST)
    assert first == generated_examples(SOURCE, LONGEST) and first.references is None
    assert len(set(first.sources)) > 100 and max(len(text) for text in first.sources) <= 30
    assert all(len(text) == 1 for text in generated_examples(SOURCE, 2).sources)


def test_an_engine_that_answers_otherwise_does_not_pass(original: tuple[Path, Exported], tmp_path: Path) -> None:
    """Another model's engine is compared with this model."""
    directory, exported = original
    other = export_model(save(tmp_path / "other", named_config("rope")), threads=1).folder
    predictor = Predictor.load(directory, engine="torch", probabilities=False)

    def load(compute_type: str) -> EngineChoice:
        request = choice.EngineRequest("ctranslate2", probabilities=False)
        engine = choice.load_engine(other, load_model(directory), request, compute_type=compute_type, kinds=(frozenset(KINDS), frozenset()))
        return EngineChoice(engine, "", forced=True)

    agreements = compare_engines(predictor, load, generated_examples(SOURCE, LONGEST))
    assert not any(one.passed for one in agreements) and all(one.same < 0.9 for one in agreements)
    assert all(one.passed for one in exported.record.agreements if one.compute_type == "float32")


def test_what_passed_is_chosen_and_answers_as_torch_does(original: tuple[Path, Exported]) -> None:
    own, found = (Predictor.load(original[0], threads=1, engine=engine) for engine in ("torch", "auto"))
    assert own.choice.describe(own.search) == ("torch", "asked for")
    assert found.choice.describe(found.search)[0].startswith("ctranslate2 ") and "passed the parity check" in found.choice.reason
    wanted = [one.text for one in own.predict(TEXTS)]
    assert [one.text for one in found.predict(TEXTS)] == wanted and "float32" in found.choice.describe(found.search)[0]
    assert found.predict(TEXTS, search=SearchConfig()) == own.predict(TEXTS, search=SearchConfig())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_sha256": "0" * 64}, "is of other weights"),
        ({"engine_version": "3.0.0"}, "was checked with ctranslate2 3.0.0"),
        ({"agreements": []}, "failed its parity check"),
        ({"format": "onnx"}, "cannot be read"),
    ],
)
def test_what_was_not_checked_is_left_to_torch(model: Path, change: dict[str, object], reason: str) -> None:
    rewritten(choice.export_folder(model), **change)
    predictor = Predictor.load(model, threads=1)
    name, why = predictor.choice.describe(predictor.search)
    assert name == "torch" and reason in why
    if change == {"agreements": []}:
        forced = Predictor.load(model, threads=1, engine="ctranslate2")
        assert "FAILED" in forced.choice.describe(forced.search)[1]
        return
    with pytest.raises(ExportError, match=f"--engine ctranslate2: .*{reason}"):
        Predictor.load(model, engine="ctranslate2")


def test_torch_keeps_its_threads_for_what_is_left_to_it(original: tuple[Path, Exported]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert Predictor.load(original[0]).choice.engine is not None and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_each_kind_of_search_needs_its_own_check(model: Path) -> None:
    folder = choice.export_folder(model)
    rewritten(folder, agreements=failed(read_record(folder), "beam"))
    predictor = Predictor.load(model, threads=1)
    assert predictor.choice.describe(SearchConfig(beam_size=1))[0].startswith("ctranslate2 ")
    assert predictor.choice.describe(predictor.search) == ("torch", "its beam search failed the parity check")


def test_damage_other_models_and_a_missing_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Predictor.load([model, model]).choice.describe(SearchConfig())[1] == "an ensemble is searched with torch only"
    with pytest.raises(ConfigError, match=r"--engine ctranslate is not allowed: .*did you mean 'ctranslate2'"):
        Predictor.load(model, engine="ctranslate")  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(choice.importlib.util, "find_spec", lambda _: None)
        assert "pip install 'transduce[export]'" in Predictor.load(model).choice.reason
        with pytest.raises(ExportError, match="is not installed"):
            export_model(model)
    weights = choice.export_folder(model) / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "is damaged" in Predictor.load(model).choice.reason
    with pytest.raises(ExportError, match="is damaged"):
        Predictor.load(model, engine="ctranslate2")
    shutil.rmtree(choice.export_folder(model))
    assert Predictor.load(model).choice.describe(SearchConfig()) == ("torch", "")
    with pytest.raises(ExportError, match=r"is not there: transduce export .* makes it"):
        Predictor.load(model, engine="ctranslate2")


def test_numbers_follow_the_processor_and_the_check(original: tuple[Path, Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    record = original[1].record
    every = record.model_copy(update={"agreements": tuple(one.model_copy(update={"passed": True}) for one in record.agreements)})
    monkeypatch.setattr(choice, "cpu_flags", lambda: frozenset({"avx2"}))
    assert choice.choose_numbers(every, "auto") == ("int8", {"greedy", "beam"})
    worse = tuple(one.model_copy(update={"passed": one.compute_type == "float32" or one.kind == "greedy"}) for one in record.agreements)
    assert choice.choose_numbers(record.model_copy(update={"agreements": worse}), "auto") == ("float32", {"greedy", "beam"})
    monkeypatch.setattr(choice, "cpu_flags", lambda: frozenset({"sse4_1"}))
    assert choice.choose_numbers(every, "auto")[0] == "float32"


def test_the_command_exports_and_predict_says_what_it_uses(model: Path, call: Call) -> None:
    (model.parent / "in.txt").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    (model.parent / "ref.txt").write_text("st\n" * len(LINES), encoding="utf-8")
    code, output, _ = call("export", "model", "--source", "in.txt", "--target", "ref.txt", "--threads", "1")
    assert code == 0 and f"compared on {len(LINES)} sources that were given" in output
    assert "greedy float32        passed  100.0 % the same" in output and "to references (torch" in output
    assert "`transduce predict` uses it from now on for beam and greedy search" in output
    assert "export:     ctranslate2 " in call("info", "model")[1] and "greedy float32" in call("info", "model")[1]
    torch_code, wanted, message = call("predict", "model", "--engine", "torch", "--threads", "1", stdin=INPUT)
    assert torch_code == 0 and "engine: torch (asked for)" in message
    code, found, message = call("predict", "model", "--engine", "ctranslate2", "--threads", "1", stdin=INPUT)
    assert code == 0 and "engine: ctranslate2 " in message and "1 x 1 threads (asked for; " in message
    assert found.count("\n") == wanted.count("\n") == len(TEXTS)
    code, _, message = call("predict", "model", "--beam", "5", "search.early_stop=likely", stdin=INPUT)
    assert code == 0 and "engine: torch (search.early_stop = likely: " in message
    code, output, message = call("predict", "model", "--engine", "ctranslate2", "search.early_stop=likely", stdin=INPUT)
    assert (code, output) == (2, "") and "--engine ctranslate2: search.early_stop = likely" in message
    code, output, message = call("predict", "model", "--format", "jsonl", "--threads", "1", stdin=INPUT)
    records = [json.loads(line) for line in output.splitlines()]
    assert code == 0 and all(len(one["tokens"]) == len(one["token_probabilities"]) for one in records)
    code, output, message = call("evaluate", "model", "-s", "in.txt", "-t", "ref.txt", "--metrics", "chrf", "--engine", "ctranslate2")
    assert code == 0 and "chrf" in output and "engine: ctranslate2 " in message


def test_the_command_refuses_with_its_exit_code(model: Path, call: Call) -> None:
    code, _, message = call("export", "model", "--format", "onxn")
    assert code == 2 and "--format onxn is not allowed: ctranslate2" in message
    (model.parent / "in.txt").write_text("a\nb\n", encoding="utf-8")
    assert call("export", "model", "--target", "in.txt")[0] == 2
    (model.parent / "ref.txt").write_text("s\n", encoding="utf-8")
    code, _, message = call("export", "model", "--source", "in.txt", "--target", "ref.txt")
    assert code == 65 and "ref.txt: has 1 lines, but in.txt has 2" in message
    code, _, message = call("export", "model", "--output", ".")
    assert code == 2 and "--output . exists and is no export" in message
    assert call("export", "nowhere")[0] == 74
    save(model.parent / "ssru", named_config("plain").model_copy(update={"decoder": SSRUDecoderConfig(width=32)}))
    code, output, message = call("export", "ssru")
    assert (code, output) == (2, "") and "model.decoder.kind is ssru" in message and not (model.parent / "ssru" / "export").exists()
    with pytest.raises(DataError, match="no sources"):
        export_model(model, sources=[])
    with pytest.raises(DataError, match="1 sources and 2 references"):
        export_model(model, sources=["a"], references=[["s"], ["t"]])


def test_where_nothing_could_be_compared_it_says_so(original: tuple[Path, Exported]) -> None:
    one = original[1].record.agreements[0]
    empty = one.model_copy(update={"sentences": 0, "left_to_torch": 7, "passed": False})
    assert agreement_line(empty) == "  greedy int8           FAILED  nothing to compare: all of 7 sources were left to torch"


def test_an_export_outside_is_not_looked_for(model: Path, call: Call) -> None:
    shutil.rmtree(model / "export")
    code, output, _ = call("export", "model", "--output", "elsewhere", "--threads", "1")
    assert code == 0 and "inside the model directory only" in output and not (model / "export").exists()
    assert (model.parent / "elsewhere" / PARITY).is_file()
    assert call("export", "model", "--output", "elsewhere", "--threads", "1")[0] == 0, "an export may be replaced"


def test_nothing_imports_the_engine_without_an_export(tmp_path: Path) -> None:
    bare = save(tmp_path / "bare", named_config("rope"))
    program = "import sys; from transduce.predict import Predictor; Predictor.load(sys.argv[1]); sys.exit('ctranslate2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, str(bare)], check=False).returncode == 0


def test_a_shortlist_is_exported_checked_and_used(tmp_path: Path) -> None:
    source = fit_text_codec(CharactersConfig(), ["abcdefgh"], seed=0)
    config = named_config("plain")
    directory = save(tmp_path / "first", config)
    loaded = load_model(directory)
    special, letters = TARGET.vocabulary, TARGET.encode("stuvwxyz")
    ranking = np.array([special.pad_id, special.bos_id, special.eos_id, special.unk_id, *letters], dtype=np.int32)
    whole = Shortlist(np.tile(letters, (source.vocabulary.size, 1)), ranking)
    run = loaded.config.model_copy(update={"search": SearchConfig(early_stop="full", max_length=12, shortlist=True)})
    model = random_model(config, seed=3, end=0.6, source=source.vocabulary)
    short = tmp_path / "short"
    save_model(short, model=model, config=run, codecs=(source, TARGET), metrics={}, shortlist=whole)
    record = export_model(short, threads=1).record
    assert [one.compute_type for one in record.agreements] == [SHORTLISTED, SHORTLISTED, "int8", "int8", "float32", "float32"]
    predictor = Predictor.load(short, threads=1, precision="int8")
    assert predictor.choice.engine is not None
    assert "with a shortlist" in predictor.choice.engine.name
    exact = Predictor.load(short, threads=1, precision="fp32").choice
    assert exact.engine is not None
    assert "with a shortlist" not in exact.engine.name
    ours = Predictor.load(short, threads=1, precision="bf16").choice
    assert ours.engine is None and ours.reason == "bf16 products are torch's"
    with pytest.raises(ExportError, match="bf16 products are torch's; ctranslate2 has fp32 and int8"):
        Predictor.load(short, threads=1, precision="bf16", engine="ctranslate2")
    place = export_folder(short)
    few = "".join(f"{name}\ts t\n" for name in "abcdefgh")
    (place / "vmap.txt").write_text(f"\t{' '.join(TARGET.pieces([special.eos_id]))}\n{few}", encoding="utf-8")
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"]["vmap.txt"]
    write_json(place / MANIFEST, manifest)
    narrow = Predictor.load(short, threads=1, precision="int8").predict(list("abcdefgh"))
    free = run.search.model_copy(update={"shortlist": False})
    wide = Predictor.load(short, threads=1, precision="int8").predict(list("abcdefgh"), search=free)
    assert {letter for one in narrow for letter in one.text} <= {"s", "t"}
    assert any(set(one.text) - {"s", "t"} for one in wide)


def test_names_with_blanks_have_no_shortlist() -> None:
    short = Shortlist(np.zeros((2, 1), dtype=np.int32), np.arange(2, dtype=np.int32))
    assert list(shortlist_lines(short, ["a", " "], ["b", "c"])) == list(shortlist_lines(short, ["a", ""], ["b", "c"])) == []
    assert list(shortlist_lines(short, ["a", "\xa0"], ["b", "c"]))[2] == "\xa0\tb\n"
    assert list(shortlist_lines(short, ["a", "d"], ["b", "c"])) == ["\tb c\n", "a\tb\n", "d\tb\n"]
