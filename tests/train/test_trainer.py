"""One optimiser step: sums over micro-batches, clipping, the moving average; choices about the machine."""

from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config

from transduce import allocator
from transduce.allocator import tune_allocator
from transduce.data.batch import Batch, Padded
from transduce.data.loader import PreparedData, prepare
from transduce.processor import cpu_flags
from transduce.train.averaging import MovingAverage, mean_of_tensors
from transduce.train.precision import choose_precision, physical_cores
from transduce.train.preflight import largest_batch
from transduce.train.trainer import Trainer
from transduce.train.validation import Validator, with_wrong_sources

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(pairs: Path) -> PreparedData:
    config = tiny_config(pairs)
    return prepare(config.data, config.seed)


def make_trainer(pairs: Path, data: PreparedData, **settings: object) -> Trainer:
    config = tiny_config(pairs, **settings)
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    parts = {name: getattr(config.model, name).model_copy(update=quiet) for name in ("encoder", "decoder")}
    model = config.model.model_copy(update={**parts, "embedding_dropout": 0.0})
    return Trainer(config.model_copy(update={"model": model}), (data.source_codec, data.target_codec), choose_precision("fp32", CPU))


def rows(batch: Batch, first: int, last: int) -> Batch:
    def cut(padded: Padded) -> Padded:
        lengths = padded.lengths[first:last]
        return Padded(padded.data[first:last, : int(lengths.max())], lengths)

    return Batch(batch.ids[first:last], cut(batch.source), cut(batch.target))


def nothing() -> None:
    pass


def test_accumulation_changes_nothing(pairs: Path, data: PreparedData) -> None:
    """1 x 8 == 4 x 2, with rows of unequal length (invariant 7)."""
    whole = data.train.gather(torch.arange(8).numpy())
    assert len(set(whole.target.lengths.tolist())) > 2
    results = []
    for parts in ([whole], [rows(whole, first, first + 2) for first in range(0, 8, 2)]):
        trainer = make_trainer(pairs, data)
        loss, tokens = trainer.gradients(parts, between=nothing)
        results.append((loss, tokens, {name: weight.grad for name, weight in trainer.model.named_parameters()}))
    (loss_1, tokens_1, gradients_1), (loss_4, tokens_4, gradients_4) = results
    assert tokens_1 == tokens_4 == int(whole.target.lengths.sum())
    assert loss_1 == pytest.approx(loss_4, rel=1e-5)
    for name, gradient in gradients_1.items():
        torch.testing.assert_close(gradient, gradients_4[name], rtol=1e-4, atol=1e-6, msg=name)


def test_clipping_and_learning_rate(pairs: Path, data: PreparedData) -> None:
    trainer = make_trainer(pairs, data, clip_norm=0.001)
    figures = trainer.apply(*trainer.gradients([next(data.train.batches(0))], between=nothing), progress=0.0)
    clipped = torch.sqrt(sum(parameter.grad.square().sum() for parameter in trainer.parameters))  # type: ignore[union-attr, arg-type]
    assert float(clipped) == pytest.approx(0.001, rel=0.01) and figures.norm > 0.001
    assert figures.learning_rate == pytest.approx(1e-3 / 10)  # step 1 of a warm-up of 10
    assert trainer.state.step == 1 and trainer.state.tokens == figures.tokens


def test_seeding_leaves_nothing_behind(pairs: Path, data: PreparedData) -> None:
    """torch.manual_seed queues a stack trace per absent GPU kind and call; a long run must not collect them."""
    trainer, before = make_trainer(pairs, data), len(torch.cuda._queued_calls)
    trainer.gradients([next(data.train.batches(0))], between=nothing)
    assert len(torch.cuda._queued_calls) == before


def test_moving_average_follows_its_formula() -> None:
    model = torch.nn.Linear(2, 1)
    average = MovingAverage(model, decay=0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            model.weight += 1.0
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.model.weight.detach(), expected)


def test_mean_of_tensors() -> None:
    sets = [{"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(5)}, {"a": torch.tensor([3.0, 5.0]), "n": torch.tensor(5)}]
    mean = mean_of_tensors(iter(sets))
    assert mean["a"].tolist() == [2.0, 3.5] and mean["a"].dtype == torch.float32 and int(mean["n"]) == 5


def test_largest_batch_is_the_largest(data: PreparedData) -> None:
    def cells(batch: Batch) -> int:
        return batch.source.data.numel() + batch.target.data.numel()

    assert cells(largest_batch(data.train, 0)) == max(cells(batch) for batch in data.train.batches(0))


def test_validation_counts_tokens_and_sees_through_the_source(pairs: Path, data: PreparedData) -> None:
    trainer = make_trainer(pairs, data, metric="cer")
    validator = Validator(trainer.config, data, trainer.precision)
    measured = validator.measure(trainer.evaluated)
    assert set(measured.metrics) == {"loss", "perplexity", "accuracy", "source_gain", "cer"}
    assert len(measured.samples) == 2 and measured.samples[0][:2] == data.valid_records[0].texts
    assert validator.better == "lower"
    with torch.no_grad():
        total = count = 0.0
        for batch in data.valid.batches(0):
            logs = torch.log_softmax(trainer.model(batch) @ trainer.model.head.weight.T + trainer.model.head.bias, -1)
            picked = logs.gather(2, batch.target.data[:, :, None]).squeeze(2)
            total, count = total - float(picked[batch.target.mask].sum()), count + int(batch.target.lengths.sum())
    assert measured.metrics["loss"] == pytest.approx(total / count, rel=1e-5)
    assert not list(validator.alarms({"source_gain": 0.001}, 499))
    assert "ignores the source" in "".join(validator.alarms({"source_gain": 0.001}, 500))
    assert not list(validator.alarms({"source_gain": 0.5, "ctc_unaligned": 0}, 500))
    assert "2 validation pairs are too short for CTC" in "".join(validator.alarms({"ctc_unaligned": 2.0}, 1))
    batch = next(data.valid.batches(0))
    wrong = with_wrong_sources(batch)
    assert torch.equal(wrong.source.data[1], batch.source.data[0]) and torch.equal(wrong.target.data, batch.target.data)


def test_precision_goes_by_the_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor: 0\nflags\t\t: sse2 avx512_bf16\n", encoding="utf-8")
    assert "avx512_bf16" in cpu_flags(info) and cpu_flags(tmp_path / "none") == frozenset()
    chosen = choose_precision("auto", CPU)
    has = bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
    assert (chosen.dtype is torch.bfloat16) == has
    assert str(chosen).startswith("bf16 (" if has else "fp32 (")
    assert choose_precision("fp32", CPU).dtype is None and choose_precision("bf16", CPU).dtype is torch.bfloat16


def test_machine_facts() -> None:
    assert physical_cores() >= 1
    assert tune_allocator()


@pytest.mark.skipif(not allocator._is_glibc(), reason="needs glibc")
def test_a_heap_that_has_grown_is_trimmed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100, 150, 400, 300, 500, 250, 500, 510])
    monkeypatch.setattr(allocator, "_private_bytes", lambda: next(sizes) * 2**20)
    heap = allocator.Heap()
    assert [heap.check() for _ in range(3)] == [False, False, True]
    assert [heap.check() for _ in range(2)] == [False, False]  # the step after it took back what every step needs, 300
    assert [heap.check() for _ in range(3)] == [False, False, True]  # 250 is the new floor; 500 is less than 256 above it


def test_trimming_gives_pages_of_freed_memory_back() -> None:
    pieces = [torch.ones(2**20) for _ in range(40)]
    heap = allocator.Heap()
    heap.check()
    pieces += [torch.ones(2**20) for _ in range(100)]
    kept, before = pieces[-1], allocator._private_bytes()
    del pieces
    if heap.check():
        assert allocator._private_bytes() < before - 200 * 2**20
    assert kept.sum() == 2**20
