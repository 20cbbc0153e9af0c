"""The contract of every encoder and decoder where both ends are numbers (DESIGN, section 3): invariants 1, 2, 3, 4, 6, 7.

5 is tested beside the codec (tests/data/test_frames.py), 10 beside the loss (tests/train/test_steps_objective.py).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import DECODERS, EACH_ONCE, ENCODERS, make_frames_batch, make_frames_model
from torch import Tensor

from transduce.config import parse_config
from transduce.data.batch import Batch, Padded
from transduce.decode.rollout import RolloutConfig, rollout
from transduce.model.seq2seq import Seq2Seq
from transduce.model.steps import StepsHeadConfig, steps_head
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train
from transduce.train.loss import StepsLossConfig
from transduce.train.steps_objective import steps_training_loss

each_once = pytest.mark.parametrize(("encoder", "decoder"), EACH_ONCE)
MIXTURE = StepsHeadConfig(kind="mixture", components=3)
MODES = StepsHeadConfig(kind="modes", modes=4, feedback="none")
HEADS = {"regression": StepsHeadConfig(), "mixture": MIXTURE, "modes": MODES}
SOURCES, TARGETS = [5, 2, 7], [6, 4, 3]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def forced(model: Seq2Seq, source: Padded, frames: Tensor) -> Tensor:
    """(N, T, P): what the head says where the frames (N, T, C) are the previous ones."""
    target = Padded(frames, torch.full((len(frames),), frames.shape[1]))
    return model.head(model(Batch(torch.arange(len(frames)), source, target)))  # type: ignore[no-any-return]


@each_once
@torch.no_grad()
def test_1_steps_equal_the_whole_pass(encoder: str, decoder: str) -> None:
    model, batch = make_frames_model(encoder, decoder, MIXTURE), make_frames_batch(SOURCES, TARGETS)
    memory = model.encode(batch.source)
    state, outputs = model.start(memory), []
    for previous in model.previous(batch.target).unbind(1):
        output, state = model.step(previous, state, memory)
        outputs.append(output)
    mask = batch.target.mask
    torch.testing.assert_close(torch.stack(outputs, 1)[mask], model.head(model(batch))[mask], **CLOSE)


@each_once
@torch.no_grad()
def test_2_padding_never_changes_an_answer(encoder: str, decoder: str) -> None:
    model, batch = make_frames_model(encoder, decoder, MIXTURE), make_frames_batch(SOURCES, TARGETS)
    together = model(batch)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        ends = [
            Padded(end.data[row : row + 1, :length], end.lengths[row : row + 1])
            for end, length in ((batch.source, source), (batch.target, target))
        ]
        torch.testing.assert_close(together[row, :target], model(Batch(batch.ids[row : row + 1], *ends))[0], **CLOSE)


@each_once
@torch.no_grad()
def test_3_the_future_is_not_seen(encoder: str, decoder: str) -> None:
    model, batch = make_frames_model(encoder, decoder, MIXTURE), make_frames_batch([5, 4, 7], [7, 7, 7])
    changed = batch.target.data.clone()
    changed[:, 3] += 1
    hidden, other = model(batch), model(replace(batch, target=Padded(changed, batch.target.lengths)))
    torch.testing.assert_close(other[:, :4], hidden[:, :4], atol=1e-6, rtol=1e-6)
    assert ((other[:, 4] - hidden[:, 4]).abs().amax(dim=1) > 1e-4).all(), "the next position must see the changed frame"


@each_once
@torch.no_grad()
def test_4_a_roll_out_is_what_teacher_forcing_says_of_it(encoder: str, decoder: str) -> None:
    """Expected frames are the expectation given themselves; a sample's score is the score of its own frames; modes come from one pass."""
    batch, keys = make_frames_batch(SOURCES, TARGETS), np.arange(3).astype(np.uint64)
    model = make_frames_model(encoder, decoder, MIXTURE)
    head = steps_head(model.head)
    found = rollout(model, batch.source, config=RolloutConfig(steps=5, num_samples=2), keys=keys)
    torch.testing.assert_close(head.mean(forced(model, batch.source, found.values)), found.values, **CLOSE)
    assert found.samples is not None and found.log_probability is not None
    for number in range(2):
        frames = found.samples[:, number]
        scores = head.log_probability(forced(model, batch.source, frames), frames).sum(1)
        torch.testing.assert_close(found.log_probability[:, number], scores, atol=1e-3, rtol=1e-3)
    model = make_frames_model(encoder, decoder, MODES)
    found = rollout(model, batch.source, config=RolloutConfig(steps=5, num_samples=3), keys=keys)
    layout = steps_head(model.head).modes
    assert layout is not None and found.samples is not None and found.log_probability is not None
    modes = layout.read(forced(model, batch.source, torch.zeros(3, 5, 2)))
    best = modes.log_weights.argsort(-1, descending=True)[:, :3]
    torch.testing.assert_close(found.samples, torch.stack([modes.tracks[row, best[row]] for row in range(3)]), **CLOSE)
    torch.testing.assert_close(found.log_probability, modes.log_weights.gather(1, best), **CLOSE)


@pytest.mark.parametrize("kind", HEADS)
@each_once
def test_7_accumulation_equals_the_large_batch(encoder: str, decoder: str, kind: str) -> None:
    """Sums over parts of unequal length are the sums over the whole, with all gradients."""
    batch, config = make_frames_batch([5, 2, 7, 3], [6, 4, 3, 1]), StepsLossConfig(distance="euclidean")
    gradients = []
    for parts in ([slice(0, 4)], [slice(0, 1), slice(1, 3), slice(3, 4)]):
        model, total = make_frames_model(encoder, decoder, HEADS[kind]), 0.0
        for part in parts:
            ends = [Padded(end.data[part], end.lengths[part]) for end in (batch.source, batch.target)]
            sums = steps_training_loss(model, Batch(batch.ids[part], *ends), config=config, forced=1.0)
            sums.loss.backward()  # type: ignore[no-untyped-call]
            total += sums.loss.item()
        gradients.append([total, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for whole, parted in zip(gradients[0][1:], gradients[1][1:], strict=True):
        torch.testing.assert_close(whole, parted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("decoder", DECODERS)
def test_6_resume_is_bit_for_bit(decoder: str, tmp_path: Path) -> None:
    """Six steps are three and three more, with random changes of the data on."""
    rows = [f"{frame},{track},{frame * (track + 1) / 7:.3f},{frame**2 / (track + 3):.3f}" for track in range(6) for frame in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["frame,id,x,y", *rows]) + "\n")

    def tree(run: str, steps: int) -> dict[str, object]:
        codec = {"kind": "frames", "rotate": True, "random_mirror": True, "random_scale": 0.2}
        table = {"path": str(tmp_path / "t.csv")}
        return {
            "run_dir": str(tmp_path / run),
            "data": {
                "train": [table, {**table, "noise": 0.1}],
                "valid": table,
                "windows": {"frame": "frame", "track": "id", "values": ["x", "y"], "observed": 3, "predicted": 3},
                "source_codec": {**codec, "relative": "velocity"},
                "target_codec": {**codec, "relative": "last"},
                "cache_dir": str(tmp_path / "cache"),
                "max_source_tokens": 20,
                "max_target_tokens": 20,
            },
            "model": {
                "frontend": {"kind": "steps"},
                "encoder": ENCODERS["gru"].model_dump(mode="json"),
                "decoder": DECODERS[decoder].model_dump(mode="json"),
                "head": {"kind": "modes", "modes": 3, "feedback": "none"},
                "embedding_size": 10,
                "max_source_length": 20,
                "max_target_length": 20,
            },
            "train": {
                "max_steps": steps,
                "save_every_steps": 3,
                "precision": "fp32",
                "validation": {"metrics": ["min_ade"], "samples": 0},
                "metric": "min_ade",
            },
        }

    whole = train(parse_config(tree("whole", 6)), SilentProgress())
    train(parse_config(tree("parts", 3)), SilentProgress())
    resumed = resume(tmp_path / "parts", ["train.max_steps=6"], SilentProgress())
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
