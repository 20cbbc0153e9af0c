"""Several processes for one step: the same gradients, whatever is in the batch; and what happens when one of them fails."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import transduce.train.trainer as trainer_module
from transduce.config import RunConfig, load_config, parse_config
from transduce.data.batch import Batch, Padded
from transduce.errors import EXIT_IO, WorkerError
from transduce.train.checkpoint import RunFolder, load_model
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train
from transduce.train.parallel import Job, choose_processes, shared_tensors
from transduce.train.setup import Parts, prepare_run

CPU = torch.device("cpu")


def config(place: Path, processes: int | None, **more: object) -> RunConfig:
    """A tiny model without anything random, so that shares change nothing but the order of sums."""
    pairs = "".join(f"{'ab' * (number % 5 + 1)}\t{'ba' * (number % 4 + 1)}\n" for number in range(40))
    (place / "pairs.tsv").write_text(pairs, encoding="utf-8")
    corpus = {"path": str(place / "pairs.tsv")}
    small = {"kind": "transformer", "layers": 1, "width": 16, "heads": 2, "feed_forward": 32, "dropout": 0.0}
    tree = {
        "run_dir": str(place / f"run-{processes}"),
        "data": {
            **{"train": corpus, "valid": corpus, "max_tokens_per_batch": 64, "cache_dir": str(place / "cache")},
            **dict.fromkeys(("max_source_tokens", "max_target_tokens"), 20),
            "source_codec": {"kind": "characters"},
            "target_codec": {"kind": "characters"},
        },
        "model": {"encoder": small, "decoder": small, "embedding_size": 16, "embedding_dropout": 0.0},
        "train": {
            **{"max_steps": 6, "save_every_steps": 3, "processes": processes, "threads": 1, "precision": "fp32"},
            "validation": {"metrics": [], "samples": 1},
        },
    }
    return parse_config(tree, {"train": more} if more else {})


def prepared(place: Path, processes: int) -> Parts:
    made = config(place, processes)
    return prepare_run(made, RunFolder(made.run_dir), say=lambda _: None)


def gradients_of(parts: Parts, batches: list[Batch]) -> tuple[float, int, list[torch.Tensor]]:
    loss, count = parts.trainer.gradients(batches, between=lambda: None)
    return loss, count, [parameter.grad.clone() for parameter in parts.trainer.parameters if parameter.grad is not None]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Parts, Parts]]:
    parts = prepared(tmp_path, 1), prepared(tmp_path, 3)
    yield parts
    for one in parts:
        one.trainer.helpers.stop()


def test_shares_add_up_to_the_gradients_of_the_whole(both: tuple[Parts, Parts]) -> None:
    """Also over several batches of unequal size, and after the weights have changed in the main process alone."""
    alone, shared = both
    assert alone.info["processes"] == "1 (one thread each)" and shared.info["processes"] == "3 (one thread each)"
    for _ in range(3):
        batches = list(alone.loader.batches(0))[:3]
        (loss, count, wanted), (sum_loss, sum_count, found) = gradients_of(alone, batches), gradients_of(shared, batches)
        assert count == sum_count and loss == pytest.approx(sum_loss, rel=1e-5)
        assert len(wanted) == len(found) > 10
        for one, other in zip(wanted, found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        for parts in both:
            parts.trainer.apply(loss, count, progress=0.0)


def test_fewer_rows_than_processes(both: tuple[Parts, Parts]) -> None:
    batch = next(both[0].loader.batches(0))
    small = batch.share(0, (len(batch.ids) + 1) // 2)
    assert len(small.ids) == 2
    (loss, _, wanted), (other_loss, _, found) = gradients_of(both[0], [small]), gradients_of(both[1], [small])
    assert loss == pytest.approx(other_loss, rel=1e-5)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_step_that_was_given_up_leaves_nothing_behind(both: tuple[Parts, Parts]) -> None:
    """The answer to a job that nobody waited for is not taken for the next one's."""
    batches = list(both[0].loader.batches(0))[:2]

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        both[1].trainer.gradients(batches[:1], between=interrupted)
    (loss, _, wanted), (other_loss, _, found) = gradients_of(both[0], batches[1:]), gradients_of(both[1], batches[1:])
    assert loss == pytest.approx(other_loss, rel=1e-5)
    torch.testing.assert_close(wanted[0], found[0], rtol=1e-4, atol=1e-6)


def test_a_run_resumes_bit_for_bit_with_the_same_number(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for place in (whole, parted):
        place.mkdir()
    weights = load_model(train(config(whole, 2), SilentProgress())).model.state_dict()
    train(config(parted, 2, max_steps=3), SilentProgress())
    again = load_model(resume(parted / "run-2", ["train.max_steps=6"], SilentProgress())).model.state_dict()
    assert load_config(parted / "run-2" / "config.yaml").train.processes == 2
    for name, tensor in weights.items():
        assert torch.equal(tensor, again[name]), name


def test_other_random_numbers_for_every_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(trainer_module, "seed_device", lambda _, seed: seeds.append(seed))
    trainer = prepared(tmp_path, 1).trainer
    batch = next(prepared(tmp_path, 1).loader.batches(0))
    seeds.clear()
    for share in (0, 1, 2, 0):
        trainer._add_gradients(Job(1, 10, share, [batch]), lambda: None)
    assert len(set(seeds)) == 3 and seeds[0] == seeds[3]


def test_a_process_that_is_killed_is_told_with_what_to_do(both: tuple[Parts, Parts]) -> None:
    helpers = both[1].trainer.helpers
    os.kill(helpers._helpers[1]._process.pid, signal.SIGKILL)
    batches = list(both[0].loader.batches(0))[:1]
    with pytest.raises(WorkerError, match=r"exit code -9: is there enough memory\? Continue with `transduce resume`") as caught:
        both[1].trainer.gradients(batches, between=lambda: None)
    assert caught.value.exit_code == EXIT_IO


def test_an_error_in_a_share_is_raised_here(both: tuple[Parts, Parts]) -> None:
    batch = next(both[0].loader.batches(0))
    data = batch.source.data.clone()
    data[1] = 10_000  # the first row of the second share
    broken = Batch(batch.ids, Padded(data, batch.source.lengths), batch.target)
    with pytest.raises(IndexError):
        both[1].trainer.gradients([broken], between=lambda: None)


def test_processes_end_with_the_one_that_made_them(tmp_path: Path) -> None:
    """Killed without a word, it leaves nobody behind, and the lock of its run folder is free."""
    reader, writer = os.pipe()
    main = os.fork()
    if not main:
        parts = prepared(tmp_path, 2)
        os.write(writer, str(parts.trainer.helpers._helpers[0]._process.pid).encode())
        time.sleep(60)
        os._exit(0)
    helper = int(os.read(reader, 32))
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{helper}/stat").exists() and Path(f"/proc/{helper}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


NOT_STOPPED = """
from torch import nn
from transduce.train.parallel import Helpers, StepSums
helpers = Helpers(list(nn.Linear(2, 2).parameters()), lambda job: StepSums(0.0, 0), count=1)
raise SystemExit(3)
"""


def test_an_error_that_nobody_expects_does_not_wait_for_them() -> None:
    """As one in the first checks of a run would: they do not hear the signal by which Python ends its copies."""
    assert subprocess.run([sys.executable, "-c", NOT_STOPPED], timeout=60, check=False).returncode == 3


def test_how_many_is_the_default() -> None:
    assert choose_processes(None, threads=1, device=CPU) == (1, "one thread")
    assert choose_processes(None, threads=2, device=CPU) == (2, "one thread each")
    assert choose_processes(None, threads=16, device=CPU) == (1, "more than 4 threads")
    assert choose_processes(6, threads=16, device=CPU)[0] == 6
    assert choose_processes(1, threads=2, device=CPU)[0] == 1
    assert choose_processes(2, threads=2, device=torch.device("cuda")) == (1, "on cuda")


def test_a_batch_is_the_sum_of_its_shares() -> None:
    """Targets go with their sources, whatever their number."""
    owners = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4])
    source = Padded(torch.arange(10).view(5, 2), torch.tensor([2, 1, 2, 1, 2]), torch.arange(5))
    target = Padded(torch.arange(8)[:, None] * 10, torch.ones(8, dtype=torch.int64))
    batch = Batch(torch.arange(5) + 100, source, target, owners)
    pairs = set()
    for number in range(3):
        share = batch.share(number, 3)
        assert share.owners is not None and share.source.keys is not None
        assert torch.equal(share.source.keys, share.ids - 100)
        pairs |= {(int(share.ids[owner]), int(data)) for owner, data in zip(share.owners, share.target.data, strict=True)}
    assert pairs == {(100 + int(owner), 10 * number) for number, owner in enumerate(owners)}


def test_memory_is_seen_by_copies() -> None:
    first, second = shared_tensors([torch.zeros(3), torch.zeros(2, 2, dtype=torch.float64)])
    child = os.fork()
    if not child:
        first.fill_(1)
        second[1] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert first.tolist() == [1, 1, 1] and second.tolist() == [[0, 0], [2, 2]]
