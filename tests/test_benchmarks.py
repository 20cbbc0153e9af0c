"""The benchmarks run from end to end in tiny sizes and without peers, and count what they say they count. No test looks at a speed."""

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from transduce.processor import cpu_flags

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """A module of benchmarks/ by name; its neighbours are imported by plain name, as when it runs."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))

    def load_module(name: str) -> ModuleType:
        return __import__(name, fromlist=["main"])

    yield load_module
    own = {path.stem for path in FOLDER.rglob("*.py")} | {"runners"}
    for name in set(sys.modules) - before:
        if name.split(".")[0] in own:
            sys.modules.pop(name)
    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Aligned files with the names of Multi30k."""
    draw, folder = random.Random(1), tmp_path / "data"
    folder.mkdir()
    for split, count in (("train", 60), ("val", 4), ("test_2016_flickr", 6)):
        lines = [" ".join("".join(draw.choices("abcdefgh", k=4)) for _ in range(draw.randint(3, 8))) for _ in range(count)]
        (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (folder / f"{split}.de").write_text("".join(f"{line[::-1]}\n" for line in lines), encoding="utf-8")
    return folder


def run_main(module: ModuleType, words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    code: int = module.main()
    return code


def say(text: str) -> tuple[str, ...]:
    """A command that prints a line."""
    return (sys.executable, "-c", f"import sys; print({text!r}); sys.exit({int(text == 'bad')})")


def test_sides_take_turns_and_one_that_fails_is_left_out_and_named(load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    alternate = load("alternate")
    note = "import json, os, sys; open(sys.argv[1], 'a').write(sys.argv[2]); print(json.dumps({'rate': len(sys.argv[2]) * 10.0}))"
    order = tmp_path / "order"
    sides = [alternate.Side(name, (sys.executable, "-c", note, str(order), name)) for name in ("a", "bb")]
    found = alternate.alternate([*sides, alternate.Side("broken", say("bad"))], rounds=2, threads=1, logs=tmp_path / "logs")
    assert order.read_text() == "abbabb"
    assert list(found.turns) == ["a", "bb"] and [len(turns) for turns in found.turns.values()] == [2, 2]
    assert "exit code 1" in found.failed["broken"] and "exit code 1" in capfd.readouterr().err
    assert found.median("bb", "rate") == 20 and math.isnan(found.median("a", "nothing"))
    assert found.peak_mib("a") > 1 and found.turns["a"][0].cpu_seconds > 0


def test_every_side_gets_the_same_threads_and_nothing_of_the_callers_allocator(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    alternate = load("alternate")
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    monkeypatch.setenv("LD_PRELOAD", "")
    plain = alternate.environment_of(alternate.Side("a", ()), 3)
    assert plain["OMP_NUM_THREADS"] == plain["MKL_NUM_THREADS"] == "3"
    assert "MALLOC_MMAP_MAX_" not in plain and "LD_PRELOAD" not in plain
    tuned = alternate.environment_of(alternate.Side("a", (), environment=alternate.TUNED_ALLOCATOR), 3)
    assert tuned["MALLOC_MMAP_MAX_"] == "0"


def test_what_a_measurement_waits_for_is_no_disturbance(load: Load) -> None:
    """The processor time of processes that it starts is its own."""
    own_seconds = load("alternate").own_seconds
    before, alone = own_seconds(), time.process_time()
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < 0.1: pass"], check=True)
    assert own_seconds() - before > time.process_time() - alone + 0.05


def test_records_are_chosen_by_what_they_say(load: Load) -> None:
    alternate = load("alternate")
    records = [{"rate": 1.0, "beam": 1}, {"rate": 4.0, "beam": 5}, {"rate": 6.0, "beam": 5}, {"other": 1}]
    found = alternate.Comparison({"a": [alternate.Turn(records, 1.0, 1.0, 0.25, 10.0)]})
    assert found.median("a", "rate", beam=5) == 5 and found.median("a", "rate") == 4
    assert found.disturbance() == 0.25
    assert alternate.json_record("Step 3") is None and alternate.json_record('{"a": 1}') == {"a": 1}


def test_the_cost_of_a_token_is_the_one_that_the_goals_were_set_with(load: Load) -> None:
    """3 + 3 layers of width 256 on Multi30k: 443,037 source and 457,331 target tokens in 29,000 pairs, 45.2 MFLOP a target token."""
    shape = load("shape")
    flop = shape.Shape().training_flop(443_037 / 457_331, source=443_037 / 29_000, target=457_331 / 29_000)
    assert round(flop / 1e6, 1) == 45.2
    assert shape.read_shape(shape.TINY.word()) == shape.TINY


def test_everybody_reads_the_same_ids(load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = load("pairs")
    made = pairs.prepare_pairs(data, tmp_path / "pairs", vocabulary=400, limit=50)
    assert made == pairs.prepare_pairs(data, tmp_path / "pairs", vocabulary=400) and made.sentences == 50
    codec = pairs.load_codec_of(made)
    rows = [[int(word) for word in line.split()] for line in pairs.read_lines(made.ids("test", "de"))]
    assert [codec.decode(row) for row in rows] == pairs.read_lines(made.text("test", "de"))
    monkeypatch.syspath_prepend(str(FOLDER / "runners"))
    ids = load("ids")
    assert ids.read_rows(made.folder, "test", "de") == [[*row, codec.vocabulary.eos_id] for row in rows]
    batches = list(ids.epoch(ids.read_pairs(made.folder, "train"), budget=64, draw=random.Random(1)))
    assert sum(len(source) for source, _ in batches) == 50
    assert all(max(source.shape[1], target.shape[1]) * len(source) <= 64 or len(source) == 1 for source, target in batches)
    words = load("toolkits").write_vocabulary("joeynmt", made, tmp_path / "words").read_text().splitlines()
    assert len(words) == made.vocabulary and {str(number) for row in rows for number in row} <= set(words)


@pytest.mark.parametrize("name", ["joeynmt", "opennmt", "eole"])
def test_toolkits_are_told_the_shape_and_when_to_end(load: Load, data: Path, tmp_path: Path, name: str) -> None:
    toolkits, pairs, shape = load("toolkits"), load("pairs"), load("shape").TINY
    made = pairs.prepare_pairs(data, tmp_path / "pairs", vocabulary=400)
    side = toolkits.toolkit_side(name, Path("/peers/bin/python"), pairs=made, shape=shape, steps=7, every=2)
    written = next((tmp_path / "pairs" / name).glob("*.yaml"))
    assert str(written) in side.command
    tree: dict[str, Any] = json.loads(written.read_text())
    text = json.dumps(tree)
    assert f'"layers": {shape.layers}' in text or f'"num_layers": {shape.layers}' in text
    assert '"updates": 7' in text or '"train_steps": 7' in text
    assert str(made.folder) in text


def test_progress_lines_of_toolkits_are_understood(load: Load) -> None:
    toolkits = load("toolkits")
    line = "Epoch   1, Step:       20, Batch Loss:     6.514361, Batch Acc: 0.082714, Tokens per Sec:      690, Lr: 0.001000"
    assert toolkits.read_joeynmt(line) == {"step": 20, "tokens_per_second": 690.0}
    line = "Step 15/   40; acc: 3.1; ppl: 4009.1; xent: 8.3; lr: 0.00001; sents:     1105; bsz: 3313/3478/221; 1501/1576 tok/s;     11 sec;"
    assert toolkits.read_opennmt(line) == {"step": 15, "tokens_per_second": 1576.0}
    assert toolkits.read_joeynmt("hello") is None and toolkits.read_opennmt("Starting training on CPU") is None


def test_ceiling(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(load("ceiling"), ["--quick", "--threads", "1", "--json", str(tmp_path / "c.json")], monkeypatch) == 0
    report = json.loads((tmp_path / "c.json").read_text())
    assert all(rates["fp32"] > 0 for rates in report["by_threads"][0]["gflops"].values())
    assert "| 1 x 32 x 64 " in capsys.readouterr().out


def test_every_product_gives_the_right_answer_and_one_that_does_not_is_not_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call that computes nothing would look a hundred times as fast as the processor."""
    ceiling = load("ceiling")
    errors = {kind: ceiling.relative_error(make(64, 256, 128)) for kind, make in ceiling.kinds_of(1).items()}
    assert all(error < 0.03 for error in errors.values()), errors
    idle = ceiling.Candidate(lambda: torch.full((8, 8), math.nan), torch.ones(8, 8))
    for candidate in (idle, ceiling.Candidate(lambda: torch.zeros(8, 8), torch.ones(8, 8))):
        monkeypatch.setitem(ceiling.KINDS, "idle", lambda *_, found=candidate: found)
        assert ceiling.gflops("idle", (8, 8, 8), seconds=0.0) is None
        assert "no idle product of 8 x 8 x 8 here: its answer is wrong" in capsys.readouterr().err


def test_load_counts_the_others_only(load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    alternate = load("alternate")
    clock = {"wall": 0.0, "busy": 0.0, "own": 0.0}
    monkeypatch.setattr(alternate.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(alternate, "own_seconds", lambda: clock["own"])
    monkeypatch.setattr(alternate, "busy_seconds", lambda: clock["busy"])
    monkeypatch.setattr(alternate.os, "cpu_count", lambda: 2)
    watched = alternate.Load()
    clock.update(wall=10.0, busy=15.0, own=10.0)
    assert watched.warn() == 0.25 and "disturbed" in capsys.readouterr().out
    clock.update(busy=10.1)
    assert math.isclose(watched.warn(), 0.005, rel_tol=1e-6) and capsys.readouterr().out == ""


SMALL = {
    "transformer-tiny": [],
    "tracks-transformer": [],
    "lm-transformer": ["data.target_codec.vocabulary_size=400"],
    "rnn-fixed": [f"data.{end}_codec.vocabulary_size=400" for end in ("source", "target")],
    "speech-conformer": ["model.encoder.layers=1", "model.frontend.channels=4", "data.source_codec.sample_rate_hz=8000"],
    "caption-attend": ["model.frontend.widths=[8, 8, 8]", "data.source_codec.size=32", "data.max_tokens_per_batch=256"],
}


@pytest.mark.parametrize("preset", SMALL)
def test_step_profile(load: Load, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every phase that there is takes time, and together they are the step; products are counted."""
    words = [preset, "--quick", "--threads", "1", "--json", str(tmp_path / "s.json"), "--set", *SMALL[preset]]
    assert run_main(load("step_profile"), words, monkeypatch) == 0
    found = json.loads((tmp_path / "s.json").read_text())["configurations"][preset]
    phases = found["phases_ms"]
    assert math.isclose(sum(phases.values()), found["ms_per_step"], rel_tol=1e-6)
    assert all(phases[name] > 0 for name in ("data", "front-end", "encoder", "decoder", "loss", "optimiser"))
    assert found["gflop_per_step"] > 0 and len(found["operations"]) > 5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_counted_operations_are_those_of_the_formula(load: Load, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch without padding: the products that torch counts are those that the shape predicts, give or take the attention scores."""
    step_profile, shapes = load("step_profile"), load("shape")
    monkeypatch.syspath_prepend(str(FOLDER / "runners"))
    run_tree = load("ours_train").run_tree
    shape = shapes.Shape(layers=2, width=64, heads=2, feed_forward=128, vocabulary=12, batch_tokens=64)
    line = " ".join("a" * 15)
    for split in ("train", "val"):
        for language in ("en", "de"):
            (tmp_path / f"{split}.{language}").write_text(f"{line}\n" * 8)
    tree = run_tree(tmp_path, vars(shape), run_dir=tmp_path / "run", train_settings={"precision": precision, "max_steps": 1, "threads": 1})
    tree["data"]["source_codec"] = {"kind": "words"}
    parts = step_profile.prepare_run(step_profile.parse_config(tree), step_profile.RunFolder(tmp_path / "run"), say=str)
    batches = step_profile.Feed(parts.loader, 0, 0).take(1, max_epochs=None)
    tokens, size = int(batches[0].target.lengths.sum()), parts.trainer.model.head.weight.shape[0]
    expected = shapes.Shape(**{**vars(shape), "vocabulary": size}).training_flop(1.0, source=16, target=16) * tokens
    assert tokens == 64 and math.isclose(step_profile.count_flop(parts, [batches]), expected, rel_tol=0.05)


def test_train_speed(load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--threads", "1", "--data", str(data), "--folder", str(tmp_path), "--peers", str(tmp_path / "none")]
    assert run_main(load("train_speed"), [*words, "--json", str(tmp_path / "t.json")], monkeypatch) == 0
    report = json.loads((tmp_path / "t.json").read_text())
    assert {row[0] for row in report["rows"]} == {"transduce", "transduce fp32"}
    steps = [record["step"] for record in report["turns"]["transduce"][0]["records"] if "step" in record]
    assert steps == [2, 4]
    assert "left out: joeynmt" in capsys.readouterr().err


def test_ablation(load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--quick", "--threads", "1", "--data", str(data), "--folder", str(tmp_path), "--json", str(tmp_path / "a.json")]
    assert run_main(load("ablation"), [*words, "--parts", "processes"], monkeypatch) == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row[0] for row in rows] == ["transduce", "one process, all threads"] and all(row[1] > 0 for row in rows)


def test_plain_parts_learn_the_same(load: Load, data: Path, tmp_path: Path) -> None:
    """Without dropout the losses of the first steps are those of our own parts, in bfloat16 and with two processes."""
    shape = replace(load("shape").TINY, dropout=0.0)
    pairs = load("pairs").prepare_pairs(data, tmp_path / "pairs", vocabulary=shape.vocabulary)
    shape = replace(shape, vocabulary=pairs.vocabulary)
    words = ("--pairs", str(pairs.folder), "--shape", shape.word(), "--steps", "4", "--every", "2", "--precision", "bf16")
    parts = ("loops", "dropout", "attention", "loss", "sizes", "allocator", "adam")
    found = []
    for more in (("--processes", "1"), ("--processes", "2", "--without", *parts)):
        command = [sys.executable, str(FOLDER / "runners" / "ours_train.py"), *words, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert records[0]["processes"].startswith(more[1]) and records[-1]["peak_mib"] > 50
        found.append([record["loss"] for record in records[1:]])
    assert len(found[0]) == 2 and found[0] == pytest.approx(found[1], rel=0.02)


def test_gpu(load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In small on the processor; the compiled sides are left to machines with a GPU."""
    gpu = load("gpu")
    plain = gpu.training_sides
    monkeypatch.setattr(gpu, "training_sides", lambda *words, **more: plain(*words, **more)[:1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["--threads", "1", "--data", str(data), "--folder", str(tmp_path), "--peers", str(tmp_path / "none")]
    assert run_main(gpu, words, monkeypatch) == 2 and "sees no GPU" in capfd.readouterr().err
    assert run_main(gpu, [*words, "--quick", "--json", str(tmp_path / "g.json")], monkeypatch) == 0
    found = json.loads((tmp_path / "g.json").read_text())["tiny"]
    assert [row[0] for row in found["training"]] == ["transduce bf16"] and found["training"][0][1] > 0
    assert [row[:2] for row in found["search"]] == [["transduce", "1"], ["transduce", "5"]] and not found["failed"]


def test_search_speed(load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--quick", "--threads", "1", "--data", str(data), "--folder", str(tmp_path), "--peers", str(tmp_path / "none")]
    module = load("search_speed")
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    assert run_main(module, [*words, "--json", str(tmp_path / "q.json")], monkeypatch) == 0
    report = json.loads((tmp_path / "q.json").read_text())
    same, exact, single = (table["rows"] for table in list(report.values())[3:])
    sources = (tmp_path / "outputs" / "sources.ids").read_text().splitlines()
    assert sources == (tmp_path / "pairs-400" / "test.ids.en").read_text().splitlines()
    assert [row[1] for row in same] == ["1"] * 4 + ["5"] * 4 and same[0][0] == "transduce"
    assert {row[0].split()[-1] for row in same} == {"transduce", "fp32", "int8", "bf16"}
    assert all(row[-2] >= 0 for row in same) and len(exact) == 4 and len(single) == 4
    assert set(report["peaks_gflops"]) == {"fp32", "bf16", "int8"} and all(row[-1].endswith("%") for row in (*same, *exact))
    lengths = (tmp_path / "outputs" / "transduce-fp32.5.lengths").read_text().split()
    assert len(lengths) == len(sources) and all(int(length) >= 1 for length in lengths)


def test_the_floor_of_a_search_is_its_products_at_the_peak_of_its_precision(load: Load) -> None:
    search_speed, shape = load("search_speed"), load("shape").Shape(layers=1, width=2, feed_forward=3, vocabulary=10)
    source = 6 * 4 + 2 * 2 * 3 + 2 * 5 * 2  # multiply-adds of a token of 5
    target = 6 * 4 + 2 * 2 * 3 + 3 * 2 + 2 * 5 * 2 + 10 * 2
    flop = shape.search_flop(4, source=5, target=3)
    assert flop == 2 * (5 * source + 4 * 3 * target)
    floor = search_speed.Floor({"fp32": 10.0, "int8": 40.0}, "int8", shape, 5)
    for name, peak in (("transduce", 40), ("transduce torch fp32", 10), ("ctranslate2 float32", 10), ("huggingface tuned", 10)):
        assert floor.share([name, "4", "x", peak * 1e9 / flop / 2, peak * 1e9 / flop, 1.0]) == "50%"
    assert floor.share([search_speed.STUDENT, "4", "x", 1.0, 2.0, 1.0]) is None


def test_the_best_setting_is_chosen_for_each_beam(load: Load) -> None:
    search_speed, alternate = load("search_speed"), load("alternate")
    engine = search_speed.Engine("x", (), {"1": ["a", "b"], "5": ["a", "b"]}, {})
    rates = {("a", 1): 3.0, ("b", 1): 2.0, ("a", 5): 1.0, ("b", 5): 2.0}
    records = [{"setting": setting, "beam": beam, "sentences_per_second": rate} for (setting, beam), rate in rates.items()]
    tried = alternate.Comparison({"x": [alternate.Turn(records, 1.0, 1.0, 0.0, 1.0)]})
    assert search_speed.best_plan(tried, engine) == {"1": ["a"], "5": ["b"]}


def test_an_unknown_peer_is_refused_and_a_missing_one_tells_its_command(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = load("peers")
    with pytest.raises(SystemExit) as stop:
        run_main(peers, ["nobody"], monkeypatch)
    assert stop.value.code == 2
    with pytest.raises(FileNotFoundError, match=r"python benchmarks/peers\.py --folder .* eole"):
        peers.python_of(tmp_path, "eole")


def test_a_command_sees_a_processor_with_avx2_alone(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    if "avx2" not in cpu_flags():
        pytest.skip("this processor has no AVX2")
    as_avx2, told = load("as_avx2"), tmp_path / "told"
    seen = "torch.backends.cpu.get_cpu_capability(), vectors.LANES, any(name.startswith('avx512') for name in cpu_flags())"
    imports = "import pathlib, torch; from transduce.model import vectors; from transduce.processor import cpu_flags"
    program = f"{imports}; pathlib.Path({str(told)!r}).write_text(str(({seen})))"
    assert run_main(as_avx2, [], monkeypatch) == 2
    code = run_main(as_avx2, [sys.executable, "-c", program], monkeypatch)
    if code == 2:
        pytest.skip("nothing can be hidden here: that needs Linux and root")
    assert code == 0 and told.read_text() == "('AVX2', 8, False)"
    assert run_main(as_avx2, [sys.executable, "-c", "raise SystemExit(5)"], monkeypatch) == 5


def test_time_to_quality(load: Load, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--quick", "--data", str(data), "--folder", str(tmp_path / "work"), "--peers", str(tmp_path / "none")]
    assert run_main(load("time_to_quality"), [*words, "--json", str(tmp_path / "t.json")], monkeypatch) == 0
    told = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert list(told["sides"]) == ["transduce"] and told["failed"] == {}
    ours = told["sides"]["transduce"]
    assert len(ours["looks"]) == 2 and ours["reached"] is None  # both limits were tried
    share = ours["speed"] * told["cost"]["mflop_per_target_token"] / 1e3 / told["cost"]["peaks_gflops"][ours["precision"]]
    assert share > 0 and told["rows"][0][-2:] == [ours["speed"], f"{share:.0%}"]


def test_ours_trains_with_longer_limits_until_a_run_is_good_enough(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, alternate = load("time_to_quality"), load("alternate")
    seconds, scores = iter((301.0, 602.0, 903.0)), iter((20.0, 35.5, 36.0))
    monkeypatch.setattr(module, "take_turn", lambda *_, **__: alternate.Turn([], next(seconds), 1.0, 0.0, 5.0))
    monkeypatch.setattr(module, "our_bleu", lambda *_: next(scores))
    for minutes, speed in ((5, 10.0), (10, 30.0)):
        (tmp_path / f"transduce-{minutes}").mkdir()
        log = (json.dumps({"kind": "step", "tokens_per_second": rate}) for rate in (speed, speed + 2, speed + 40))
        (tmp_path / f"transduce-{minutes}" / "log.jsonl").write_text("\n".join([*log, '{"kind": "end"}\n']), encoding="utf-8")
    pairs = load("pairs").Pairs(tmp_path, 8000, 100, 12.0, 12.0)
    side = module.measure_ours(pairs, [5.0, 10.0, 15.0], goal=35.0, place=tmp_path, model={}, threads=1)
    assert side.reached == 602 / 60 and [score for _, score in side.looks] == [20.0, 35.5]
    assert side.speed == 31.0  # the median of all reports of both runs
    assert json.loads((tmp_path / "transduce-10.yaml").read_text(encoding="utf-8"))["train"]["max_minutes"] == 10.0


def test_the_time_to_a_score_lies_on_the_line_between_two_looks(load: Load) -> None:
    module = load("time_to_quality")
    assert module.minutes_to([(5.0, 10.0), (10.0, 30.0), (15.0, 40.0)], 35.0) == 12.5
    assert module.minutes_to([(5.0, 40.0)], 35.0) == 5.0 * 35 / 40
    assert module.minutes_to([(5.0, 10.0), (10.0, 30.0)], 35.0) is None
    sides = {
        "transduce": module.Measured([(5.0, 35.0)], 5.0, "bf16", 60.0, 0.0, 1.0),
        "other": module.Measured([(5.0, 20.0), (10.0, 35.0)], 10.0, "bf16", 30.0, 0.0, 1.0),
        "never": module.Measured([(5.0, 20.0)], None, "fp32", 20.0, 0.0, 1.0),
    }
    rows = module.table(sides, floors={"bf16": 100.0, "fp32": 50.0})
    assert [row[2:] for row in rows] == [[5.0, 1.0, 60.0, "60%"], [10.0, 0.5, 30.0, "30%"], ["not reached", None, 20.0, "40%"]]


def test_what_a_toolkit_saved_is_looked_at_after_its_own_minutes(load: Load, tmp_path: Path) -> None:
    for step, seconds in ((20, 60), (40, 120), (60, 301)):
        config = tmp_path / f"step_{step}" / "config.json"
        config.parent.mkdir()
        config.touch()
        os.utime(config, (1000 + seconds, 1000 + seconds))
    (tmp_path / "step_30").mkdir()  # stopped while it was saved
    found = load("time_to_quality").saved_by(tmp_path, 1000.0, [0.5, 1.5, 3.0, 4.0])
    assert [(minutes, folder.name) for minutes, folder in found] == [(1.0, "step_20"), (2.0, "step_40")]


def test_a_program_that_is_stopped_may_end_with_the_code_of_that(load: Load, tmp_path: Path) -> None:
    alternate = load("alternate")
    words = ("timeout", "0.2", sys.executable, "-c", "print('x', flush=True); import time; time.sleep(60)")
    side = alternate.Side("x", words, read=lambda line: {"line": line} if line else None, exit_codes=(124,))
    assert alternate.take_turn(side, threads=1, log=tmp_path / "log").records == [{"line": "x"}]
    with pytest.raises(alternate.SideFailed, match="exit code 124"):
        alternate.take_turn(replace(side, exit_codes=(0,)), threads=1, log=tmp_path / "log")


def test_scaling(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = load("scaling")
    monkeypatch.setattr(scaling, "QUICK_LENGTHS", (6,))
    words = ["--quick", "--threads", "1", "--folder", str(tmp_path / "work"), "--json", str(tmp_path / "s.json")]
    assert run_main(scaling, words, monkeypatch) == 0
    told = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    (length,), (pairs,) = told["lengths"], told["pairs"]
    assert length["length"] == 6 and length["target_tokens"] >= 6 and length["train"]["tokens_per_second"] > 0
    assert {beam: figures["tokens"] / 7 for beam, figures in length["search"]["beams"].items()} == {
        "1": 17,
        "5": 17,
    }  # 6 and the end, 17 times
    assert set(length["of_floor"]) == {"train", "1", "5"} and all(0 < share < 1 for share in length["of_floor"].values())
    assert pairs["pairs"] == 200 and pairs["train"]["steps"] == 4


@pytest.mark.parametrize("length", [3, 40])
def test_sentences_have_the_length_that_is_measured(load: Load, tmp_path: Path, length: int) -> None:
    load("scaling").write_sentences(tmp_path, length, count=20)
    lines = {path.name: path.read_text(encoding="utf-8").splitlines() for path in tmp_path.iterdir()}
    assert {len(line.split()) for texts in lines.values() for line in texts} == {length}
    assert len(lines["train.en"]) == len(lines["train.de"]) == 20 and len(lines["test_2016_flickr.en"]) == 8
