"""The CTC part of the loss: its value against all paths, what has no path, and its share of the sum."""

import io
import itertools
import json
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_tree, write_pairs

from transduce.config import parse_config
from transduce.data.batch import Batch, Padded
from transduce.decode.options import SearchConfig
from transduce.errors import ConfigError
from transduce.model.frontends import Vocabulary
from transduce.model.heads import CTCHead
from transduce.model.interface import Memory
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.predict import Predictor
from transduce.train.ctc_loss import ctc_loss, positions_needed
from transduce.train.events import SilentProgress
from transduce.train.journal import read_log
from transduce.train.loop import train
from transduce.train.loss import LossConfig
from transduce.train.objective import evaluation_loss, training_loss
from transduce.train.progress import Progress

WORDS = Vocabulary(size=7, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
TARGET = Padded(torch.tensor([[4, 4, 2, 5], [5, 4, 5, 2], [2, 6, 6, 6]]), torch.tensor([3, 4, 1]))


def memory_of(lengths: list[int]) -> Memory:
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return Memory(torch.randn(len(lengths), max(lengths), 5), mask, torch.zeros(len(lengths), 1))


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token]


def test_it_is_the_sum_over_all_paths() -> None:
    torch.manual_seed(1)
    head, memory = CTCHead(5, 7, blank_id=0), memory_of([4, 3, 2])
    logs = head.log_probabilities(memory.states)
    expected = torch.zeros(())
    for row, length in enumerate([4, 3, 2]):
        labels = TARGET.data[row, : TARGET.lengths[row] - 1].tolist()
        paths = [path for path in itertools.product(range(7), repeat=length) if collapsed(path) == labels]
        scores = torch.stack([logs[row, range(length), list(path)].sum() for path in paths])
        expected = expected - scores.logsumexp(0)
    sums = ctc_loss(head, memory, TARGET)
    assert sums.unaligned == 0
    torch.testing.assert_close(sums.loss, expected)


def test_pairs_without_a_path_are_counted_and_left_out() -> None:
    torch.manual_seed(1)
    head, memory = CTCHead(5, 7, blank_id=0), memory_of([2, 3, 2])  # 4 4 needs three positions
    assert positions_needed(TARGET).tolist() == [3, 3, 0]
    sums = ctc_loss(head, memory, TARGET)
    rows = torch.tensor([1, 2])
    assert sums.unaligned == 1
    torch.testing.assert_close(sums.loss, ctc_loss(head, memory.select(rows), Padded(TARGET.data[rows], TARGET.lengths[rows])).loss)
    sums.loss.backward()
    assert head.linear.weight.grad is not None and head.linear.weight.grad.isfinite().all()
    nothing = ctc_loss(head, memory_of([1, 1, 1]).select(torch.tensor([0, 1])), Padded(TARGET.data[:2], TARGET.lengths[:2]))
    assert nothing.unaligned == 2 and float(nothing.loss) == 0


def joint_model() -> Seq2Seq:
    torch.manual_seed(1)
    encoder = {"kind": "gru", "width": 8, "dropout": 0.0}
    decoder = {"kind": "gru", "width": 8, "attention_size": 8, "dropout": 0.0}
    tree = {"embedding_size": 8, "embedding_dropout": 0.0, "encoder": encoder, "decoder": decoder, "ctc": True}
    return build_model(ModelConfig.model_validate(tree), WORDS, WORDS)


def test_the_shares_of_the_sum_do_not_depend_on_micro_batches() -> None:
    model = joint_model()
    source = Padded(torch.randint(4, 7, (3, 6)), torch.tensor([6, 4, 3]))
    whole, loss = Batch(torch.arange(3), source, TARGET), LossConfig(ctc_weight=0.25, label_smoothing=0.1)
    sums = training_loss(model, whole, loss=loss, forced=1.0)
    attention = training_loss(model, whole, loss=LossConfig(label_smoothing=0.1), forced=1.0)
    assert model.ctc is not None and sums.ctc is not None and attention.ctc is None
    torch.testing.assert_close(sums.ctc, ctc_loss(model.ctc, model.encode(source), TARGET).loss.detach())
    torch.testing.assert_close(sums.loss.detach(), 0.75 * attention.loss.detach() + 0.25 * sums.ctc)
    assert sums.count == attention.count == 8
    parts = [
        Batch(
            torch.tensor([row]),
            *(Padded(end.data[row : row + 1, : end.lengths[row]], end.lengths[row : row + 1]) for end in (source, TARGET)),
        )
        for row in range(3)
    ]
    torch.testing.assert_close(sum(training_loss(model, part, loss=loss, forced=1.0).loss for part in parts), sums.loss)
    owned = Batch(torch.arange(1), Padded(source.data[:1], source.lengths[:1]), TARGET, owners=torch.zeros(3, dtype=torch.int64))
    repeated = Batch(torch.arange(3), Padded(source.data[[0, 0, 0]], source.lengths[[0, 0, 0]]), TARGET)
    torch.testing.assert_close(evaluation_loss(model, owned, loss=loss).loss, evaluation_loss(model, repeated, loss=loss).loss)


def test_a_run_reports_it(tmp_path: Path) -> None:
    """Trains, validates with joint search, shows what was left out; a source of n characters with its end always holds n labels, but
    doubled letters need a position more."""
    write_pairs(tmp_path)
    tree = tiny_tree(tmp_path, "run", loss={"ctc_weight": 0.3})
    tree["model"]["ctc"] = True
    tree["search"] = {"max_length": 8, "ctc_weight": 0.3}
    model = train(parse_config(tree), SilentProgress())
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["ctc_loss"] > 0 and metrics["ctc_unaligned"] >= 0
    assert metrics["loss"] != pytest.approx(metrics["ctc_loss"])
    predictor, texts = Predictor.load(model), ["abcd", "dcbaab", "ba"]
    assert predictor.search.ctc_weight == 0.3
    for search in (SearchConfig(ctc_weight=1.0, beam_size=1), SearchConfig(ctc_weight=1.0, beam_size=3, num_best=2), SearchConfig()):
        together = predictor.predict(texts, search=search)
        assert [predictor.predict([text], search=search)[0].text for text in texts] == [prediction.text for prediction in together]
    with pytest.raises(ConfigError, match="no ensemble, no prefixes"):
        predictor.predict(texts, search=SearchConfig(ctc_weight=1.0), prefixes=["a", "", ""])


@pytest.mark.parametrize(
    ("model", "loss", "search", "part"),
    [
        ({}, {"ctc_weight": 0.3}, {}, "needs model.ctc = true"),
        ({"ctc": True}, {}, {}, "nothing to learn from"),
        ({}, {}, {"ctc_weight": 0.5}, "search.ctc_weight = 0.5 needs model.ctc"),
        ({"ctc": True, "reverse_source": True}, {"ctc_weight": 0.3}, {}, "in the same order"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, model: dict, loss: dict, search: dict, part: str) -> None:
    tree = tiny_tree(tmp_path, "run", loss=loss)
    tree["model"] |= model
    tree["search"] |= search
    with pytest.raises(ConfigError, match=part):
        parse_config(tree)


def test_training_counts_the_pairs_that_it_leaves_out(tmp_path: Path) -> None:
    """A pyramid makes four positions one, so that hardly an output fits any more; the log of steps and a warning say so."""
    write_pairs(tmp_path)
    tree = tiny_tree(tmp_path, "run", loss={"ctc_weight": 0.3}, max_steps=5)
    tree["model"] |= {"ctc": True, "encoder": {"kind": "gru", "layers": 3, "width": 8, "pyramid": 2}}
    train(parse_config(tree), Progress(tmp_path / "run", stream=io.StringIO()))
    steps = list(read_log(tmp_path / "run"))
    counted = [entry["unaligned_pairs"] for entry in steps if "unaligned_pairs" in entry]
    assert counted and counted[-1] > 0
    assert any("too short for CTC" in str(entry.get("text")) for entry in steps)
