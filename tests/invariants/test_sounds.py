"""The contract for sources that are sound: every subsampling, with encoders and decoders of each family."""

import pytest
import torch
from architectures import SOUND_FRONTENDS, make_sound_batch, make_sound_model

from transduce.data.batch import Batch, Padded
from transduce.model.seq2seq import Seq2Seq
from transduce.train.loss import LossConfig
from transduce.train.objective import training_loss

ENCODERS = ("lstm", "lstm-pyramid", "transformer-relative-gelu", "conformer")
DECODERS = ("lstm-none", "lstm-additive", "gru-location", "transformer-pre-sinusoidal", "ssru")
CLOSE = {"atol": 2e-5, "rtol": 1e-4}
SAMPLES, TARGETS = [2400, 300, 1500], [6, 4, 3]
combinations = pytest.mark.parametrize(
    ("frontend", "encoder", "decoder"),
    [(frontend, encoder, decoder) for frontend in SOUND_FRONTENDS for encoder in ENCODERS for decoder in DECODERS],
)


def part_of(batch: Batch, row: int, *, samples: int, target: int) -> Batch:
    """One row without any padding."""
    source, rows = batch.source, slice(row, row + 1)
    keys = None if source.keys is None else source.keys[rows]
    heard = Padded(source.data[rows, :samples], source.lengths[rows], keys)
    return Batch(batch.ids[rows], heard, Padded(batch.target.data[rows, :target], batch.target.lengths[rows]))


@combinations
@torch.no_grad()
def test_steps_equal_the_whole_pass_and_rows_stand_alone(frontend: str, encoder: str, decoder: str) -> None:
    """Invariants 1 and 2."""
    model, batch = make_sound_model(frontend, encoder, decoder), make_sound_batch(SAMPLES, TARGETS)
    hidden, attention, memory = model(batch), model.attention(batch), model.encode(batch.source)
    state, logits = model.start(memory), []
    for previous in model.previous(batch.target).unbind(1):
        output, state = model.step(previous, state, memory)
        logits.append(output)
    torch.testing.assert_close(torch.stack(logits, dim=1), model.head(hidden), **CLOSE)
    for row, (samples, target) in enumerate(zip(SAMPLES, TARGETS, strict=True)):
        one = part_of(batch, row, samples=samples, target=target)
        torch.testing.assert_close(hidden[row, :target], model(one)[0], **CLOSE)
        if attention is not None:
            alone = model.attention(one)
            torch.testing.assert_close(attention[row, :target, : alone.shape[2]], alone[0], **CLOSE)
            assert alone.shape[2] == int(memory.mask[row].sum()) and not attention[row, :, alone.shape[2] :].any()


@combinations
def test_gradients_reach_every_parameter(frontend: str, encoder: str, decoder: str) -> None:
    model, batch = make_sound_model(frontend, encoder, decoder).train(), make_sound_batch(SAMPLES, TARGETS)
    model.head(model(batch)).logsumexp(-1).square().sum().backward()
    unread = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    if "none" in decoder:
        unread = {name for name in unread if not name.startswith("encoder.layers.") or ".norm." not in name}
    assert not unread


@pytest.mark.parametrize("frontend", SOUND_FRONTENDS)
def test_7_accumulated_micro_batches_equal_one_large_batch(frontend: str) -> None:
    """With its masks: they belong to the example, wherever it stands. Dropout, which does not, is off."""
    model, batch = make_sound_model(frontend, "lstm", "lstm-additive"), make_sound_batch(SAMPLES, TARGETS)
    model.frontend.train()
    model.frontend.dropout.eval()
    sizes = zip(SAMPLES, TARGETS, strict=True)
    parts = [part_of(batch, row, samples=samples, target=target) for row, (samples, target) in enumerate(sizes)]
    torch.testing.assert_close(gradient(model, parts), gradient(model, [batch]), atol=1e-4, rtol=1e-3)


def gradient(model: Seq2Seq, batches: list[Batch]) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    for batch in batches:
        training_loss(model, batch, loss=LossConfig(), forced=1.0).loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
