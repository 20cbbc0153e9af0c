"""Pictures to sentences from files to figures: training, resume, the control with exchanged pictures, prediction from the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from captions import config_tree, write_corpus
from test_report import check_html
from typer.testing import CliRunner

from transduce.cli import app
from transduce.config import parse_config
from transduce.controls import exchanged, originality, originality_lines
from transduce.data.sources import read_examples
from transduce.data.values import Media
from transduce.errors import ConfigError, DataError
from transduce.evaluate import Evaluation, evaluate, write_report
from transduce.pictures import Look, looks_png
from transduce.predict import Predictor
from transduce.report.exhibits import Sight, gather
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run that has learned where squares are."""
    folder = tmp_path_factory.mktemp("captions")
    for seed, (name, count) in enumerate({"train": 96, "valid": 16, "test": 24}.items()):
        write_corpus(folder, name, count, seed=seed)
    train(parse_config(config_tree(folder, max_steps=220, save_every_steps=110)), SilentProgress())
    return folder


def judged(folder: Path, predictor: Predictor) -> Evaluation:
    assert predictor.data is not None
    records = read_examples(folder / "test.jsonl", predictor.data)
    references = [[str(target) for target in record.targets] for record in records]
    return evaluate(predictor, [record.source for record in records], references, metrics=["cider", "coco_bleu4"])


def test_a_model_that_looks_beats_itself_with_other_pictures(learned: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(learned / "run")
    evaluation = judged(learned, predictor)
    assert evaluation.scores["coco_bleu4"].value > 80, "both sentences of each picture are learned"
    assert evaluation.control is not None and not evaluation.blind
    assert "better than with other pictures" in str(evaluation.control_verdict)
    test = evaluation.control.comparisons[0]
    assert test.metric == "cider" and test.baseline < 0.7 * test.value and test.value == evaluation.scores["cider"].value
    assert evaluation.originality["reused_captions"] > 0.9, "there are only 24 sentences to say"
    page = write_report(evaluation, predictor, report_dir=tmp_path).read_text(encoding="utf-8")
    assert "Does it look?" in page and "CIDEr-D" in page and "word for word" in page and 'id="length"' not in page
    check_html(page)
    assert page.count("data:image/jpeg") == 12, "six of the worst and six of the best are seen"
    assert page.count('href="#worst-1"') == len(evaluation.predictions[int(page.split("<span>line ")[1].split("<")[0]) - 1].tokens)
    assert "24 pictures" in page and len(page) < 200_000
    assert json.loads((tmp_path / "evaluation.json").read_text())["control"][0]["metric"] == "cider"


def test_a_model_that_does_not_look_is_told_so(learned: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(learned / "run")
    frontend = predictor.members[0].model.frontend
    frontend.project.weight.data.zero_()  # type: ignore[attr-defined]
    evaluation = judged(learned, predictor)
    assert evaluation.blind and "does no better" in str(evaluation.control_verdict)
    page = write_report(evaluation, predictor, report_dir=tmp_path).read_text(encoding="utf-8")
    assert "Please note" in page and "does not depend on what it sees" in page
    assert replace(evaluation, control=None).control_verdict is None


def test_pictures_are_shown_without_attention_where_there_is_none(tmp_path: Path) -> None:
    for name, count in {"train": 8, "valid": 4}.items():
        write_corpus(tmp_path, name, count, seed=1)
    change = {"model": {"decoder": {"attention": "none"}}, "train": {"max_steps": 1, "loss": {"doubly_stochastic": 0}}}
    train(parse_config(config_tree(tmp_path), change), SilentProgress())
    predictor = Predictor.load(tmp_path / "run")
    (tmp_path / "broken.png").write_bytes(b"broken")
    seen, unread = gather(predictor, [Media(tmp_path / "valid" / "0.png"), Media(tmp_path / "broken.png")], predictor.search)
    assert isinstance(seen, Sight) and seen.looks is None and seen.pixels.shape == (16, 16, 3) and unread is None


def test_the_command_line_reads_pictures(learned: Path) -> None:
    run, test = str(learned / "run"), learned / "test.jsonl"
    shown = CliRunner().invoke(app, ["evaluate", run, "--data", str(test), "--metrics", "cider,coco_rougeL"])
    assert shown.exit_code == 0, shown.output
    assert "the same model, shown other pictures" in shown.output and "different captions for 24 pictures" in shown.output
    one = json.loads(test.read_text(encoding="utf-8").splitlines()[0])
    answered = CliRunner().invoke(app, ["predict", run, "--input", str(learned / one["image"])])
    assert answered.exit_code == 0 and answered.output.strip() in one["captions"]
    (learned / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    lines = learned / "names.txt"
    lines.write_text(f"{one['image']}\nbroken.png\n", encoding="utf-8")
    both = CliRunner().invoke(app, ["predict", run, "--input", str(lines), "--media", str(learned), "--format", "jsonl"])
    assert both.exit_code == 0, both.output
    answers = [json.loads(line) for line in both.output.splitlines() if line.startswith("{")]
    assert len(answers) == 2 and answers[1]["flags"] == ["unreadable_source"] and not answers[1]["text"]
    assert not answers[0]["problem"] and "broken.png: " in answers[1]["problem"]
    assert f"warning: source 2: {answers[1]['problem']}" in both.stderr
    empty = learned / "empty.png"
    empty.touch()
    refused = CliRunner().invoke(app, ["predict", run, "--input", str(empty)])
    assert isinstance(refused.exception, DataError) and refused.exception.exit_code == 65
    assert str(refused.exception).startswith(f"{empty}: is empty")


def test_attention_is_drawn_on_the_picture(learned: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(learned / "run")
    assert predictor.data is not None
    record = read_examples(learned / "test.jsonl", predictor.data)[0]
    (prediction,) = predictor.predict([record.source], with_attention=True)
    assert prediction.attention is not None and prediction.attention.shape == (len(prediction.tokens) + 1, 4)
    np.testing.assert_allclose(prediction.attention.sum(1), 1, atol=1e-5)
    look = Look(np.zeros((16, 16, 3), dtype=np.uint8), prediction.tokens, prediction.attention, title="a picture")
    looks_png(tmp_path / "looks.png", [look, look])
    assert (tmp_path / "looks.png").stat().st_size > 5000


def test_resume_is_exact_with_pictures_that_vary(tmp_path: Path) -> None:
    """Invariant 6: changes of pictures are functions of seed, epoch and example, whoever decodes them and when."""
    write_corpus(tmp_path, "train", 40, seed=1)
    write_corpus(tmp_path, "valid", 4, seed=2)
    tree = config_tree(tmp_path)
    train(parse_config(tree), SilentProgress())
    other: dict[str, object] = {"run_dir": str(tmp_path / "half"), "train": {"max_steps": 6}, "data": {"workers": 0}}
    train(parse_config(tree, other), SilentProgress())
    resume(tmp_path / "half", ["train.max_steps=12"], output=SilentProgress())
    first, second = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "half"))
    assert first == second


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"frontend": {"kind": "tokens"}}}, "the source is image, use cnn or patches"),
        ({"model": {"frontend": {"kind": "cnn", "widths": [8]}}}, "1 widths see cells of 4 pixels"),
        ({"model": {"reverse_source": True}}, "reverse_source is for sources of text"),
        ({"model": {"decoder": {"kind": "gru", "attention": "none"}}}, "doubly_stochastic needs a decoder with attention"),
        ({"data": {"target_codec": {"kind": "image"}}}, "recordings and pictures can only be sources"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, dict[str, object]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(config_tree(tmp_path), change)


def test_exchanged_moves_everything() -> None:
    for count in range(2, 9):
        moved = exchanged(range(count))
        assert sorted(moved) == list(range(count)) and all(number != place for place, number in enumerate(moved))
    figures = originality(["a dog", "a cat"], [["a dog", "dogs"], ["a cow"]], None)
    assert figures == {"distinct_captions": 2, "distinct_words": 3, "reference_words": 4}
    assert "not here" in originality_lines(figures, 2)[1] and originality_lines({}, 2) == []
