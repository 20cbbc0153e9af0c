"""SSRU decoder: the recurrence of the paper, its own backward pass, and the contract of every decoder."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from transduce.model.interface import Memory
from transduce.model.ssru import SimpleRecurrence, SSRUDecoder, SSRUDecoderConfig, _Scan
from transduce.model.transformer import TransformerConfig, TransformerEncoder

B, S, T, E, D = 3, 6, 9, 10, 16
LENGTHS = torch.tensor([6, 4, 1])


def build(**options: object) -> tuple[SSRUDecoder, Memory]:
    torch.manual_seed(1)
    encoder = TransformerEncoder(TransformerConfig(layers=1, width=12, heads=2, feed_forward=8), E).eval()
    base: dict[str, object] = {"layers": 2, "width": D, "heads": 4, "feed_forward": 24}
    decoder = SSRUDecoder(SSRUDecoderConfig.model_validate(base | options), E, encoder=encoder).eval()
    return decoder, decoder.project(encoder(torch.randn(B, S, E), LENGTHS))


def walk(decoder: SSRUDecoder, inputs: Tensor, memory: Memory) -> Tensor:
    """(N, T, E) step by step -> (N, T, D)."""
    state = decoder.start(memory).select(torch.arange(B).repeat_interleave(inputs.shape[0] // B))
    outputs = []
    for position in range(inputs.shape[1]):
        output, state = decoder.step(inputs[:, position], state, memory)
        outputs.append(output)
    return torch.stack(outputs, dim=1)


def test_recurrence_follows_the_paper() -> None:
    torch.manual_seed(2)
    unit = SimpleRecurrence(4)
    inputs = torch.randn(2, 5, 4)
    outputs = unit(inputs)
    forget_weight, weight = unit.packed.weight.chunk(2)
    cell = torch.zeros(2, 4)
    for position in range(5):
        forget = torch.sigmoid(inputs[:, position] @ forget_weight.T)
        cell = forget * cell + (1 - forget) * (inputs[:, position] @ weight.T)
        torch.testing.assert_close(outputs[:, position], torch.relu(cell))


def test_backward_of_the_scan_is_its_derivative() -> None:
    torch.manual_seed(3)
    forget = torch.rand(5, 2, 3, dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_Scan.apply, (forget, candidates))


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("groups", [None, 2])
def test_step_equals_forward(place: str, groups: int | None) -> None:
    decoder, memory = build(norm_place=place, key_value_heads=groups)
    inputs = torch.randn(B, T, E)
    torch.testing.assert_close(walk(decoder, inputs, memory), decoder(inputs, memory)[0], atol=1e-5, rtol=1e-5)


def test_beams_share_the_memory_of_their_sentence() -> None:
    decoder, memory = build()
    inputs = torch.randn(B * 3, T, E)
    alone = memory.select(torch.arange(B).repeat_interleave(3))
    torch.testing.assert_close(walk(decoder, inputs, memory), decoder(inputs, alone)[0], atol=1e-5, rtol=1e-5)


def test_selected_hypotheses_carry_their_past() -> None:
    decoder, memory = build()
    inputs, rows = torch.randn(B, 3, E), torch.tensor([2, 2, 0, 1])
    state = decoder.start(memory)
    for position in range(2):
        _, state = decoder.step(inputs[:, position], state, memory)
    output, _ = decoder.step(inputs[rows, 2], state.select(rows), memory.select(rows))
    torch.testing.assert_close(output, decoder(inputs, memory)[0][rows, 2], atol=1e-5, rtol=1e-5)


def test_the_future_is_invisible_and_order_is_not() -> None:
    decoder, memory = build()
    inputs = torch.randn(B, 6, E)
    changed = inputs.clone()
    changed[:, 4:] += 1
    before, after = decoder(inputs, memory)[0], decoder(changed, memory)[0]
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4], atol=1e-3)
    assert not torch.allclose(decoder(inputs[:, [1, 0, 2, 3, 4, 5]], memory)[0][:, 5], before[:, 5], atol=1e-4)


def test_attention_sums_to_one_and_ignores_padding() -> None:
    decoder, memory = build()
    _, weights = decoder(torch.randn(B, T, E), memory, with_attention=True)
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))
    assert (weights.masked_select(~memory.mask[:, None, :]) == 0).all()


def test_gradients_reach_every_weight() -> None:
    decoder, memory = build()
    decoder(torch.randn(B, T, E), memory)[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in decoder.stack.layers.parameters())
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for unit in decoder.pasts for parameter in unit.parameters())


def test_autocast_keeps_the_cells_in_float32_and_stays_near() -> None:
    decoder, memory = build()
    inputs = torch.randn(B, T, E)
    exact, _ = decoder(inputs, memory)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = decoder.project(Memory(memory.states, memory.mask, memory.summary))
        whole, _ = decoder(inputs, narrow)
        _, state = decoder.step(inputs[:, 0], decoder.start(narrow), narrow)
        steps = walk(decoder, inputs, narrow)
    assert state.cells.dtype == torch.float32
    torch.testing.assert_close(whole.float(), exact, atol=0.1, rtol=0.1)
    torch.testing.assert_close(steps.float(), exact, atol=0.1, rtol=0.1)


def test_what_does_not_fit_is_refused_in_words() -> None:
    with pytest.raises(ValidationError, match="heads 3 must divide width 256"):
        SSRUDecoderConfig(heads=3)
    assert all(field.description for field in SSRUDecoderConfig.model_fields.values())
