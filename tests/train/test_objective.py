"""Scheduled sampling and R-Drop around the fused loss."""

import pytest
import torch
from torch.nn import functional

from transduce.data.batch import Batch, Padded
from transduce.model.frontends import Vocabulary
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.train.loss import LossConfig, token_loss
from transduce.train.objective import ForcingConfig, forcing_ratio, mixed_inputs, training_loss, uneven_attention

WORDS = Vocabulary(size=9, pad_id=0, bos_id=1, eos_id=2, unk_id=3)


@pytest.fixture
def model() -> Seq2Seq:
    torch.manual_seed(1)
    layers = {"kind": "transformer", "layers": 1, "heads": 2, "width": 8, "feed_forward": 16}
    return build_model(ModelConfig.model_validate({"embedding_size": 8, "encoder": layers, "decoder": layers}), WORDS, WORDS)


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(2)
    source = Padded(torch.randint(4, 9, (3, 5)), torch.tensor([5, 3, 4]))
    return Batch(torch.arange(3), source, Padded(torch.randint(4, 9, (3, 6)), torch.tensor([6, 2, 5])))


def test_forcing_ratio() -> None:
    assert forcing_ratio(ForcingConfig(), 10**6) == 1.0
    linear = ForcingConfig(kind="linear", ratio=1.0, final_ratio=0.2, decay_steps=100)
    assert [forcing_ratio(linear, step) for step in (0, 50, 100, 900)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    sigmoid = ForcingConfig(kind="inverse_sigmoid", ratio=1.0, final_ratio=0.0, decay_steps=100)
    values = [forcing_ratio(sigmoid, step) for step in range(0, 101, 10)]
    assert values == sorted(values, reverse=True) and values[5] == pytest.approx(0.5) and values[0] > 0.99 and values[-1] < 0.01


def test_own_predictions_replace_the_truth(model: Seq2Seq, batch: Batch) -> None:
    model.eval()
    truth = model.previous(batch.target)
    guesses = model.head(model(batch)).argmax(-1)
    own = mixed_inputs(model, batch, forced=0.0)
    expected = torch.where(batch.target.mask, torch.cat([truth[:, :1], guesses[:, :-1]], dim=1), truth)
    assert torch.equal(own, expected)
    assert torch.equal(mixed_inputs(model, batch, forced=1.0), truth)
    half = mixed_inputs(model, batch, forced=0.5)
    assert bool(((half == truth) | (half == expected)).all())
    loss = training_loss(model, batch, loss=LossConfig(), forced=0.0).loss
    torch.testing.assert_close(loss, token_loss(model.head, model(batch, own), batch.target, label_smoothing=0.1).loss)


def test_r_drop(model: Seq2Seq, batch: Batch) -> None:
    config = LossConfig(r_drop=4.0)
    model.eval()
    same = training_loss(model, batch, loss=config, forced=1.0)
    plain = training_loss(model, batch, loss=LossConfig(), forced=1.0)
    torch.testing.assert_close(same.loss, plain.loss)  # without dropout the two passes agree and do not diverge
    torch.testing.assert_close(same.nll, plain.nll)
    model.train()
    torch.manual_seed(3)
    sums = training_loss(model, batch, loss=config, forced=1.0)
    torch.manual_seed(3)
    logits = [model.head(model(batch))[batch.target.mask] for _ in range(2)]
    labels = batch.target.data[batch.target.mask]
    entropy = sum(functional.cross_entropy(one, labels, label_smoothing=0.1, reduction="sum") for one in logits)
    logs = [functional.log_softmax(one, -1) for one in logits]
    divergence = sum(functional.kl_div(a, b, reduction="sum", log_target=True) for a, b in (logs, logs[::-1]))
    torch.testing.assert_close(sums.loss, entropy / 2 + 4.0 * divergence / 4)
    assert float(divergence.detach()) > 0


def test_uneven_attention_by_hand() -> None:
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]])
    target = Padded(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([2]))  # the third target position is padding
    mask = torch.tensor([[True, True, True]])
    assert float(uneven_attention(weights, target, mask)) == pytest.approx(0.0 + 0.25**2 + 0.75**2)
    assert float(uneven_attention(weights, target, torch.tensor([[True, True, False]]))) == pytest.approx(0.25**2)


ATTENDING = ({"kind": "transformer", "layers": 1, "heads": 2, "width": 8, "feed_forward": 16}, {"kind": "lstm", "width": 8})


@pytest.mark.parametrize("decoder", ATTENDING)
def test_attention_is_spread_where_that_is_asked_for(batch: Batch, decoder: dict[str, object]) -> None:
    """The penalty adds to the loss and not to the likelihood, and following its gradient lowers it."""
    torch.manual_seed(1)
    config = {"embedding_size": 8, "encoder": {"kind": "gru", "width": 8}, "decoder": decoder}
    model = build_model(ModelConfig.model_validate(config), WORDS, WORDS).eval()
    plain = training_loss(model, batch, loss=LossConfig(), forced=1.0)
    spread = training_loss(model, batch, loss=LossConfig(doubly_stochastic=0.5), forced=1.0)
    weights, mask = model.attention(batch), model.memory_of(batch).mask
    assert weights is not None
    penalty = uneven_attention(weights, batch.target, mask)
    torch.testing.assert_close(spread.loss, plain.loss + 0.5 * penalty)
    torch.testing.assert_close(spread.nll, plain.nll)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        now = uneven_attention(model.attention(batch), batch.target, mask)  # type: ignore[arg-type]
        now.backward()
        optimizer.step()
    assert float(now.detach()) < 0.95 * float(penalty.detach())
