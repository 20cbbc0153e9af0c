"""The command line as a user meets it: exit codes, streams, messages. Processes are real where streams or signals matter."""

import gc
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import transduce
from transduce import cli
from transduce.errors import ConfigError, DivergedError, Interrupted, StorageError

COMMAND = [sys.executable, "-m", "transduce"]
CONFIG = """
preset: transformer-tiny
run_dir: run
data: {train: {path: train.tsv}, valid: {path: valid.tsv}, cache_dir: cache}
model:
  encoder: {kind: gru, layers: 1, width: 16}
  decoder: {kind: gru, layers: 1, width: 16}
  embedding_size: 16
train: {max_steps: 3, save_every_steps: 2, keep_last: 2, average_best: 0, log_every_steps: 1, precision: fp32}
"""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a configuration and a run of three steps, made by the command itself."""
    place = tmp_path_factory.mktemp("cli")
    draw = random.Random(1)
    words = ["".join(draw.choice("abcde") for _ in range(draw.randint(2, 6))) for _ in range(60)]
    for name, part in (("train", words[:50]), ("valid", words[50:])):
        (place / f"{name}.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in part), encoding="utf-8")
    (place / "valid.src").write_text("".join(f"{word}\n" for word in words[50:]), encoding="utf-8")
    (place / "valid.tgt").write_text("".join(f"{word[::-1]}\n" for word in words[50:]), encoding="utf-8")
    (place / "config.yaml").write_text(CONFIG, encoding="utf-8")
    done = subprocess.run([*COMMAND, "train", "config.yaml"], cwd=place, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == "run/model\n", "standard output holds nothing but the model's place"
    assert b"loss" in done.stderr
    return place


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command inside this process, which spares the start of torch: exit code, standard output, standard error."""
    monkeypatch.chdir(folder)

    def start(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["transduce", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return start


def started(folder: Path, *words: str, **environment: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *words], cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environment})


HELP = """
import resource, sys
from transduce.cli import main
sys.argv = ["transduce", "--help"]
try:
    main()
except SystemExit:
    used = resource.getrusage(resource.RUSAGE_SELF)
    heavy = {"torch", "numpy", "pydantic", "rich", "ruamel.yaml", "sacrebleu"} & set(sys.modules)
    print(used.ru_utime + used.ru_stime, sorted(heavy), file=sys.stderr)
"""


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    done = [subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True) for _ in range(3)]
    assert all(verb in done[0].stdout for verb in ("train", "resume", "predict", "evaluate", "average", "config", "info", "init", "check"))
    figures = [one.stderr.split(" ", 1) for one in done]
    assert {loaded.strip() for _, loaded in figures} == {"[]"}
    assert min(float(seconds) for seconds, _ in figures) < 0.3, "seconds of processor time, the best of three"


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, transduce; sys.exit(len({'torch', 'pydantic', 'numpy', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(vars(transduce).get(name) or transduce.__getattr__(name) for name in transduce.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        transduce.nonsense  # noqa: B018


def test_version_and_mistyped_verbs(call: Call) -> None:
    assert call("--version")[:2] == (0, f"transduce {transduce.__version__}\n")
    code, _, error = call("trian", "config.yaml")
    assert code == 2 and "train" in error.replace("trian", "")
    assert call("predict")[0] == 2
    assert call("predict", "run", "--beam", "0")[0] == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("what"), 2),
        (StorageError("what"), 74),
        (DivergedError("what"), 76),
        (Interrupted("what"), 75),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "file"), 74),
        (RuntimeError("what"), 70),
    ],
)
def test_each_error_has_its_exit_code(call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("transduce.commands.check.print_check", fail)
    got, output, message = call("check")
    assert (got, output) == (code, "")
    assert "Traceback" not in message
    assert ("TRANSDUCE_TRACEBACK=1" in message) == (code == 70)
    monkeypatch.setenv("TRANSDUCE_TRACEBACK", "1")
    assert ("Traceback" in call("check")[2]) == (code != 130)


def test_config_prints_the_documented_tree(call: Call) -> None:
    code, output, _ = call("config", "config.yaml", "train.max_steps=7")
    assert code == 0 and "max_steps: 7" in output and "# Limit in optimiser steps" in output
    code, output, message = call("config", "config.yaml", "train.max_stesp=7")
    assert (code, output) == (2, "") and "did you mean 'train.max_steps'?" in message


def test_as_many_lines_out_as_in_whatever_the_locale_says(folder: Path) -> None:
    child = started(folder, "predict", "run", "--format", "jsonl", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    output, message = child.communicate("abc\n\nzz\u2028é\nde\r\nlast".encode(), timeout=120)
    assert child.returncode == 0
    flags = [json.loads(line)["flags"] for line in output.decode().removesuffix("\n").split("\n")]
    assert len(flags) == 5 and flags[1] == ["empty_source"] and flags[2] == ["unknown_tokens"]
    assert b"empty_source" in message


def test_text_has_as_many_lines_too(call: Call) -> None:
    code, output, _ = call("predict", "run", stdin="abc\n\nzz\u2028é\nde\r\nlast".encode())
    assert code == 0 and output.count("\n") == 5 and output.split("\n")[1] == ""
    assert call("predict", "run", stdin=b"")[:2] == (0, "")


def test_what_was_loaded_is_not_looked_through_again_while_it_searches(call: Call) -> None:
    gc.unfreeze()
    assert call("predict", "run", "-i", "valid.src")[0] == 0
    assert gc.get_freeze_count() > 10_000
    gc.unfreeze()


def test_input_that_is_not_utf8_names_the_line(call: Call) -> None:
    code, _, message = call("predict", "run", stdin=b"abc\n\xff\n")
    assert code == 65 and ":2:" in message and "UTF-8" in message


def test_a_reader_that_closes_early_is_no_error(folder: Path) -> None:
    child = started(folder, "predict", "run", "--beam", "1", "--chunk-lines", "1")
    assert child.stdin and child.stdout and child.stderr
    child.stdin.write(b"abc\n" * 200)
    child.stdin.close()
    assert child.stdout.readline().endswith(b"\n")
    child.stdout.close()
    message = child.stderr.read()
    child.stderr.close()
    assert (child.wait(timeout=120), message) == (0, b"")


def test_lines_are_answered_while_input_is_open_and_ctrl_c_is_130(folder: Path) -> None:
    child = started(folder, "predict", "run", "--chunk-lines", "1")
    assert child.stdin and child.stdout
    child.stdin.write(b"abc\n")
    child.stdin.flush()
    assert child.stdout.readline().endswith(b"\n")
    child.send_signal(signal.SIGINT)
    _, message = child.communicate(timeout=120)
    assert child.returncode == 130 and b"Traceback" not in message


def test_json_lines_and_n_best(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    code, printed, _ = call("predict", "run", "-i", "valid.src", "-o", str(output), "--format", "jsonl", "--num-best", "3")
    assert (code, printed) == (0, "")
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 10 and all(len(line["alternatives"]) == 3 and line["alternatives"][0]["text"] == line["text"] for line in lines)
    code, printed, _ = call("predict", "run", "-i", "valid.src", "--num-best", "2")
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [row[0] for row in rows] == [str(number // 2) for number in range(20)] and all(len(row) == 3 for row in rows)


def test_prefixes(call: Call, tmp_path: Path) -> None:
    code, printed, _ = call("predict", "run", "-i", "valid.src", "--prefix", "ab")
    assert code == 0 and [line[:2] for line in printed.splitlines()] == ["ab"] * 10
    prefixes = tmp_path / "prefixes"
    prefixes.write_text("".join(f"{'abcde'[number % 5]}\n" for number in range(10)), encoding="utf-8")
    code, printed, _ = call("predict", "run", "-i", "valid.src", "--prefix-file", str(prefixes))
    assert [line[:1] for line in printed.splitlines()] == list("abcde") * 2
    prefixes.write_text("a\n", encoding="utf-8")
    code, _, message = call("predict", "run", "-i", "valid.src", "--prefix-file", str(prefixes))
    assert code == 65 and ":2:" in message


def test_predict_refuses_what_it_cannot_do(call: Call) -> None:
    assert call("predict", "nowhere", "-i", "valid.src")[0] == 74
    assert call("predict", "run", "-i", "missing")[0] == 65
    assert call("predict", "run", "-i", "valid.src", "-o", "missing/out")[0] == 74
    code, _, message = call("predict", "run", "-i", "valid.src", "--format", "jsno")
    assert code == 2 and "text or jsonl" in message
    code, _, message = call("predict", "run", "-i", "valid.src", "search.beem_size=3")
    assert code == 2 and "search.beam_size" in message


def test_an_ensemble_of_one_model_twice_is_that_model(call: Call) -> None:
    alone = call("predict", "run", "-i", "valid.src")
    assert call("predict", "run", "-i", "valid.src", "--ensemble", "run/model") == alone


def test_evaluate_writes_figures_and_report(call: Call, tmp_path: Path) -> None:
    figures, report = tmp_path / "deep" / "figures.json", tmp_path / "report"
    words = ("evaluate", "run", "-s", "valid.src", "-t", "valid.tgt", "--metrics", "exact_match,cer")
    code, printed, _ = call(*words, "--json", str(figures), "--report", str(report), "--baseline", "run")
    assert code == 0 and "exact_match" in printed and "p = " in printed
    tree = json.loads(figures.read_text(encoding="utf-8"))
    assert tree["model"] == "run" and set(tree["scores"]) == {"exact_match", "cer"}
    assert (report / "report.html").is_file()
    code, _, message = call("evaluate", "run", "-s", "valid.src", "-t", "config.yaml")
    assert code == 65 and "10" in message
    code, _, message = call("evaluate", "run", "-s", "valid.src", "-t", "valid.tgt", "--metrics", "exact_mach")
    assert code == 2 and "exact_match" in message


def test_info_says_what_the_model_is(call: Call) -> None:
    code, printed, _ = call("info", "run")
    assert code == 0 and all(part in printed for part in ("gru, layers 1, width 16", "characters", "parameters", "verified", "train.tsv"))
    assert call("info", "config.yaml")[0] == 74


def test_average_writes_a_model(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "mean"
    code, printed, _ = call("average", "run", "--output", str(output))
    assert code == 0 and "step-00000002" in printed and "step-00000003" in printed
    assert call("predict", str(output), "-i", "valid.src")[0] == 0
    assert call("average", "run", "--output", str(output))[0] == 74
    assert call("average", "run/model", "--output", str(tmp_path / "one"))[0] == 74


def test_a_finished_run_is_not_trained_over_but_goes_on(call: Call) -> None:
    code, _, message = call("train", "config.yaml")
    assert code == 74 and "resume" in message
    code, printed, message = call("resume", "run", "train.max_steps=4")
    assert (code, printed) == (0, "run/model\n") and "step" in message


def test_check_looks_at_the_machine(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed, _ = call("check")
    assert code == 0 and all(part in printed for part in ("torch 2", "precision:", "threads:", "memory:", "disk:"))
    monkeypatch.setattr("transduce.commands.check.EXTRAS", {"plot": (("matplotlib", "no_such_module"),)})
    assert "pip install 'transduce[plot]'" in call("check")[1]


@pytest.mark.parametrize("chosen", [None, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_waiting_threads_fall_asleep_soon_unless_the_user_has_chosen(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {} if chosen is None else {chosen: "active"})
    cli.rest_soon()
    assert os.environ == ({"GOMP_SPINCOUNT": cli.SPINS} if chosen is None else {chosen: "active"})
