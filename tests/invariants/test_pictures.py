"""The contract for sources that are pictures: every front-end for them, with encoders and decoders of each family."""

import pytest
import torch
from architectures import DECODERS, IMAGE_FRONTENDS, TARGET, make_image_batch, make_image_model

from transduce.data.batch import Batch, Padded
from transduce.train.loss import LossConfig, LossSums
from transduce.train.objective import training_loss

ENCODERS = ("none", "gru", "transformer-pre-sinusoidal")
CHOSEN = ("lstm-none", "lstm-additive", "lstm-additive-gated", "gru-general-feeding", "transformer-pre-sinusoidal", "ssru")
CLOSE = {"atol": 2e-5, "rtol": 1e-4}
TARGETS, OWNERS = [6, 4, 3, 5], [0, 0, 1, 2]
combinations = pytest.mark.parametrize(
    ("frontend", "encoder", "decoder"),
    [(frontend, encoder, decoder) for frontend in IMAGE_FRONTENDS for encoder in ENCODERS for decoder in CHOSEN],
)


def test_the_decoders_chosen_are_known() -> None:
    assert set(CHOSEN) <= set(DECODERS)


@combinations
@torch.no_grad()
def test_steps_equal_the_whole_pass_and_rows_stand_alone(frontend: str, encoder: str, decoder: str) -> None:
    """Invariants 1 and 2: step == forward; a picture alone answers as among others."""
    model, batch = make_image_model(frontend, encoder, decoder), make_image_batch(TARGETS, OWNERS)
    hidden, attention = model(batch), model.attention(batch)
    memory = model.memory_of(batch)
    state, logits = model.start(memory), []
    for previous in model.previous(batch.target).unbind(1):
        output, state = model.step(previous, state, memory)
        logits.append(output)
    torch.testing.assert_close(torch.stack(logits, dim=1), model.head(hidden), **CLOSE)
    alone = Batch(
        batch.ids[1:2],
        Padded(batch.source.data[1:2], batch.source.lengths[1:2]),
        Padded(batch.target.data[2:3, :3], batch.target.lengths[2:3]),
    )
    torch.testing.assert_close(hidden[2:3, :3], model(alone), **CLOSE)
    if attention is not None:
        assert attention.shape == (4, 6, 4), "one column per cell of the picture"
        most = attention.sum(-1)
        assert (most <= 1 + 1e-5).all() and (frontend == "vit" or torch.allclose(most, torch.ones(4, 6)))


@combinations
def test_gradients_reach_every_parameter(frontend: str, encoder: str, decoder: str) -> None:
    model, batch = make_image_model(frontend, encoder, decoder).train(), make_image_batch(TARGETS, OWNERS)
    model.head(model(batch)).logsumexp(-1).square().sum().backward()
    unread = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    if "none" in decoder:
        unread = {name for name in unread if not name.startswith("encoder.layers.") or ".norm." not in name}
    assert not unread


@pytest.mark.parametrize("frontend", IMAGE_FRONTENDS)
def test_accumulated_micro_batches_equal_one_large_batch(frontend: str) -> None:
    """Invariant 7, which a batch norm over the batch would break."""
    model, batch = make_image_model(frontend, "none", "lstm-additive"), make_image_batch(TARGETS, OWNERS)
    whole = gradient(model, [batch])
    parts = [
        Batch(batch.ids[:1], picked(batch.source, [0]), picked(batch.target, [0, 1]), torch.tensor([0, 0])),
        Batch(batch.ids[1:], picked(batch.source, [1, 2]), picked(batch.target, [2, 3])),
    ]
    torch.testing.assert_close(gradient(model, parts), whole, atol=1e-4, rtol=1e-4)


def picked(rows: Padded, numbers: list[int]) -> Padded:
    return Padded(rows.data[numbers], rows.lengths[numbers])


def gradient(model: torch.nn.Module, batches: list[Batch]) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    for batch in batches:
        sums: LossSums = training_loss(model, batch, loss=LossConfig(), forced=1.0)  # type: ignore[arg-type]
        assert sums.count == int(batch.target.lengths.sum()) and batch.target.data.max() < TARGET.size
        sums.loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
