"""The contract of every encoder with every decoder (DESIGN, section 3): invariants 1, 2 and 3, attention, selection, gradients.

4 to 9 are tested beside search, codecs, checkpoints and training; 10 in `test_learns.py`.
"""

from dataclasses import replace

import pytest
import torch
from architectures import EACH_ONCE, PAIRS, make_batch, make_model
from torch import Tensor

from transduce.data.batch import Batch, Padded
from transduce.model.seq2seq import Seq2Seq

pairs = pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
each_once = pytest.mark.parametrize(("encoder", "decoder"), EACH_ONCE)
SOURCES, TARGETS = [5, 2, 7], [6, 4, 3]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def steps(model: Seq2Seq, batch: Batch) -> Tensor:
    """Logits (B, T, V) made one step at a time."""
    memory = model.encode(batch.source)
    state, logits = model.start(memory), []
    for previous in model.previous(batch.target).unbind(1):
        output, state = model.step(previous, state, memory)
        logits.append(output)
    return torch.stack(logits, dim=1)


@pairs
@torch.no_grad()
def test_1_steps_equal_the_whole_pass(encoder: str, decoder: str) -> None:
    model, batch = make_model(encoder, decoder), make_batch(SOURCES, TARGETS)
    torch.testing.assert_close(steps(model, batch), model.head(model(batch)), **CLOSE)


@pairs
@torch.no_grad()
def test_2_padding_never_changes_an_answer(encoder: str, decoder: str) -> None:
    """A row alone, without any padding, answers as it does in a batch whose padding holds random tokens."""
    model, batch = make_model(encoder, decoder), make_batch(SOURCES, TARGETS)
    together, attention = model(batch), model.attention(batch)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = Batch(
            batch.ids[row : row + 1],
            Padded(batch.source.data[row : row + 1, :source], batch.source.lengths[row : row + 1]),
            Padded(batch.target.data[row : row + 1, :target], batch.target.lengths[row : row + 1]),
        )
        torch.testing.assert_close(together[row, :target], model(alone)[0], **CLOSE)
        if attention is not None:
            expected = model.attention(alone)[0]
            torch.testing.assert_close(attention[row, :target, : expected.shape[1]], expected, **CLOSE)


@pairs
@torch.no_grad()
def test_3_the_future_is_not_seen(encoder: str, decoder: str) -> None:
    model, batch = make_model(encoder, decoder), make_batch([5, 4, 7], [7, 7, 7])
    hidden = model(batch)
    changed = batch.target.data.clone()
    changed[:, 3] = 4 + (changed[:, 3] - 3) % 7
    other = model(replace(batch, target=Padded(changed, batch.target.lengths)))
    torch.testing.assert_close(other[:, :4], hidden[:, :4], atol=1e-6, rtol=1e-6)
    assert ((other[:, 4] - hidden[:, 4]).abs().amax(dim=1) > 1e-4).all(), "the next position must see the changed token"


@pairs
@torch.no_grad()
def test_attention_is_a_distribution_over_real_positions(encoder: str, decoder: str) -> None:
    model, batch = make_model(encoder, decoder), make_batch(SOURCES, TARGETS)
    weights = model.attention(batch)
    if "none" in decoder:
        assert weights is None
        return
    mask = model.encode(batch.source).mask  # of a pyramid shorter than the source
    assert weights is not None and weights.shape == (3, max(TARGETS), mask.shape[1])
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, max(TARGETS)))
    assert not weights.masked_select(~mask[:, None]).any()
    hidden, plain = model.decoder(model.embedding(model.previous(batch.target)), model.encode(batch.source))
    assert plain is None, "weights cost time: only on request"
    torch.testing.assert_close(hidden, model(batch))


@each_once
@torch.no_grad()
def test_attention_follows_the_source_as_written(encoder: str, decoder: str) -> None:
    """With a reversed source the weights still stand at the tokens that they belong to."""
    straight, turned = (make_model(encoder, decoder, reverse=reverse) for reverse in (False, True))
    batch = make_batch(SOURCES, TARGETS)
    data = batch.source.data.clone()
    for row, length in enumerate(SOURCES):
        data[row, :length] = data[row, :length].flip(0)
    weights, other = straight.attention(batch), turned.attention(replace(batch, source=Padded(data, batch.source.lengths)))
    if weights is None:
        assert other is None
        return
    for row, length in enumerate(SOURCES):
        torch.testing.assert_close(weights[row, :, :length], other[row, :, :length].flip(1), **CLOSE)


@pairs
@torch.no_grad()
def test_beams_share_the_memory_and_stay_apart(encoder: str, decoder: str) -> None:
    """W hypotheses of a sentence, reordered half-way, answer as if each had been run alone from the start."""
    model, width, length = make_model(encoder, decoder), 3, 6
    batch = make_batch(SOURCES, TARGETS)
    memory = model.encode(batch.source)
    sentences = torch.arange(3).repeat_interleave(width)
    tokens = torch.randint(4, 11, (3 * width, length), generator=torch.Generator().manual_seed(2))
    tokens[:, 0] = 1
    moves = torch.tensor([2, 0, 0, 4, 3, 5, 8, 8, 7])  # within each sentence, with repeats
    state, logits = model.start(memory).select(sentences), torch.empty(0)
    for index in range(length):
        if index == 3:
            state = state.select(moves)
            tokens = torch.cat([tokens[moves, :3], tokens[:, 3:]], dim=1)
        logits, state = model.step(tokens[:, index], state, memory)
    hidden, _ = model.decoder(model.embedding(tokens), memory.select(sentences))
    torch.testing.assert_close(logits, model.head(hidden[:, -1]), **CLOSE)


@each_once
@torch.no_grad()
def test_finished_sentences_can_be_dropped(encoder: str, decoder: str) -> None:
    model, batch = make_model(encoder, decoder), make_batch(SOURCES, TARGETS)
    memory = model.encode(batch.source)
    previous = model.previous(batch.target)
    state, rows = model.start(memory), torch.tensor([2, 0])
    for index in range(2):
        _, state = model.step(previous[:, index], state, memory)
    expected, _ = model.step(previous[:, 2], state, memory)
    fewer, _ = model.step(previous[rows, 2], state.select(rows), memory.select(rows))
    torch.testing.assert_close(fewer, expected[rows], **CLOSE)


@each_once
@torch.no_grad()
def test_a_step_leaves_its_state_as_it_was(encoder: str, decoder: str) -> None:
    """States are values: the same step from the same state gives the same answer, whatever ran in between."""
    model, batch = make_model(encoder, decoder), make_batch(SOURCES, TARGETS)
    memory = model.encode(batch.source)
    previous = model.previous(batch.target)
    _, state = model.step(previous[:, 0], model.start(memory), memory)
    once, _ = model.step(previous[:, 1], state, memory)
    model.step(torch.full((3,), 5), state.select(torch.tensor([1, 1, 0])), memory)
    again, _ = model.step(previous[:, 1], state, memory)
    torch.testing.assert_close(again, once, atol=0, rtol=0)


@pairs
def test_gradients_reach_every_parameter(encoder: str, decoder: str) -> None:
    model, batch = make_model(encoder, decoder).train(), make_batch(SOURCES, TARGETS)
    model.head(model(batch)).logsumexp(-1).square().sum().backward()
    unread = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    if "none" in decoder:  # such a decoder reads the summary, so what only shapes the states has no part in the answer
        unread = {name for name in unread if not name.startswith("encoder.layers.") or ".norm." not in name}
    assert not unread
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
