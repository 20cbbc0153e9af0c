"""Recurrent cells, encoder and decoder against torch's own layers and against plain autograd."""

import doctest

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from transduce.errors import ConfigError
from transduce.model import recurrent
from transduce.model.interface import Memory
from transduce.model.recurrent import RecurrentEncoder, RecurrentEncoderConfig
from transduce.model.recurrent_cells import CELLS, Cell, sweep
from transduce.model.recurrent_decoder import RecurrentDecoder, RecurrentDecoderConfig
from transduce.model.shared_products import Shared

KINDS = ["lstm", "gru"]


def torch_layer(cell: Cell, kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """nn.LSTM or nn.GRU with the weights of a cell (torch orders LSTM gates i, f, g, o; ours are i, f, o, g)."""
    size, inputs = cell.size, cell.inputs.in_features
    layer = (nn.LSTM if kind == "lstm" else nn.GRU)(inputs, size)
    order = [0, 1, 3, 2] if kind == "lstm" else [0, 1, 2]

    def turn(weight: Tensor) -> Tensor:
        return torch.cat([weight.chunk(len(order))[gate] for gate in order])

    with torch.no_grad():
        layer.weight_ih_l0.copy_(turn(cell.inputs.weight))
        layer.weight_hh_l0.copy_(turn(cell.recurrent))
        layer.bias_ih_l0.copy_(turn(cell.inputs.bias))
        layer.bias_hh_l0.zero_()
    return layer.to(dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_cell_equals_torch_in_values_and_gradients(kind: str) -> None:
    torch.manual_seed(1)
    cell = CELLS[kind](5, 6)
    nn.init.normal_(cell.inputs.bias)
    reference = torch_layer(cell, kind)
    inputs = torch.randn(7, 3, 5, requires_grad=True)
    start = tuple(torch.randn(3, 6, requires_grad=True) for _ in range(cell.num_states))
    weighting = torch.randn(7, 3, 6)

    outputs, state = sweep(cell, cell.inputs(inputs), start)
    loss = (outputs * weighting).sum() + sum((part * part).sum() for part in state)
    gradients = torch.autograd.grad(loss, [inputs, *start, cell.recurrent, cell.inputs.bias])
    first = tuple(part[None] for part in start)
    expected, final = reference(inputs, first if kind == "lstm" else first[0])
    final = final if kind == "lstm" else (final,)
    loss = (expected * weighting).sum() + sum((part * part).sum() for part in final)
    theirs = torch.autograd.grad(loss, [inputs, *start, reference.weight_hh_l0, reference.bias_ih_l0])

    torch.testing.assert_close(outputs, expected)
    for ours, other in zip(state, final, strict=True):
        torch.testing.assert_close(ours, other[0])
    for ours, other in zip(gradients[:-2], theirs[:-2], strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-4)
    order = [0, 1, 3, 2] if kind == "lstm" else [0, 1, 2]
    for ours, other in zip(gradients[-2:], theirs[-2:], strict=True):
        turned = torch.cat([ours.chunk(len(order))[gate] for gate in order])
        torch.testing.assert_close(turned, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_the_cell_answers_the_same(kind: str) -> None:
    torch.manual_seed(2)
    cell = CELLS[kind](5, 6)
    gates = cell.inputs(torch.randn(4, 3, 5))
    start = cell.zeros(gates[0])
    with_gradient, _ = sweep(cell, gates, start)
    with torch.no_grad():
        before = gates.clone()
        without, _ = sweep(cell, gates, start)
    torch.testing.assert_close(with_gradient, without)
    assert torch.equal(before, gates), "the cell wrote into its gate inputs"


@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_encoder_equals_packed_torch(kind: str) -> None:
    """nn.LSTM over a packed sequence is the plain, slow way to keep padding out: states and final state must agree."""
    torch.manual_seed(3)
    encoder = RecurrentEncoder(RecurrentEncoderConfig(kind=kind, width=4, dropout=0.0), 5)
    reference = (nn.LSTM if kind == "lstm" else nn.GRU)(5, 4, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for direction, suffix in enumerate(["l0", "l0_reverse"]):
            single = torch_layer(encoder.layers[0].cells[direction], kind)
            for name in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]:
                reference.get_parameter(f"{name}_{suffix}").copy_(single.get_parameter(f"{name}_l0"))
    inputs, lengths = torch.randn(3, 6, 5), torch.tensor([2, 6, 4])
    memory = encoder(inputs, lengths)
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    states, final = reference(packed)
    states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
    torch.testing.assert_close(memory.states, states)
    for ours, other in zip(encoder.final_state(memory), final if kind == "lstm" else (final,), strict=True):
        torch.testing.assert_close(ours, other)


def test_the_textbook_example() -> None:
    assert doctest.testmod(recurrent) == (0, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_summary_size_counts_every_layer_direction_and_state(kind: str) -> None:
    encoder = RecurrentEncoder(RecurrentEncoderConfig(kind=kind, width=4, layers=3, residual=True, layer_norm=True), 5)
    memory = encoder(torch.randn(2, 6, 5), torch.tensor([6, 1]))
    assert memory.states.shape == (2, 6, 8) and encoder.output_size == 8
    assert memory.summary.shape == (2, encoder.summary_size) == (2, 3 * 2 * 4 * (2 if kind == "lstm" else 1))
    assert not memory.states[1, 1:].any(), "padding must be zero"


def test_initialisation() -> None:
    cell = CELLS["lstm"](5, 6)
    assert torch.equal(cell.inputs.bias.view(4, 6)[1], torch.ones(6)) and not cell.inputs.bias.view(4, 6)[[0, 2, 3]].any()
    for block in cell.recurrent.chunk(4):
        torch.testing.assert_close(block @ block.t(), torch.eye(6), atol=1e-5, rtol=0)


def test_copy_bridge_hands_over_the_final_state() -> None:
    """Sutskever 2014: the decoder starts where the encoder stopped, layer by layer."""
    encoder = RecurrentEncoder(RecurrentEncoderConfig(width=4, layers=2, bidirectional=False), 5)
    decoder = RecurrentDecoder(RecurrentDecoderConfig(width=4, layers=2, attention="none", bridge="copy"), 5, encoder=encoder)
    memory = encoder(torch.randn(3, 6, 5), torch.tensor([2, 6, 4]))
    hidden, cell = encoder.final_state(memory)
    state = decoder.start(decoder.project(memory))
    for layer in range(2):
        assert torch.equal(state.layers[layer][0], hidden[layer]) and torch.equal(state.layers[layer][1], cell[layer])


def test_copy_bridge_refuses_unequal_sizes() -> None:
    encoder = RecurrentEncoder(RecurrentEncoderConfig(width=4, bidirectional=True), 5)
    with pytest.raises(ConfigError, match=r"model\.decoder\.bridge.*dense, zero"):
        RecurrentDecoder(RecurrentDecoderConfig(width=4, bridge="copy"), 5, encoder=encoder)


def test_additive_attention_stands_before_the_cell_and_the_others_after_it() -> None:
    places = {kind: RecurrentDecoderConfig(attention=kind).place() for kind in ["none", "additive", "dot", "general", "multihead"]}
    assert places == {"none": "none", "additive": "before", "dot": "after", "general": "after", "multihead": "after"}
    assert RecurrentDecoderConfig(attention="additive", attend="after").place() == "after"


@pytest.mark.parametrize(
    "options", [{"attention": "none"}, {"layers": 2}, {"attention": "dot", "layers": 2}, {"attention": "dot", "input_feeding": False}]
)
def test_variational_dropout_uses_one_mask_over_time(options: dict[str, object]) -> None:
    torch.manual_seed(4)
    encoder = RecurrentEncoder(RecurrentEncoderConfig(width=8, variational=True, dropout=0.5, bidirectional=False), 5)
    decoder = RecurrentDecoder(RecurrentDecoderConfig(width=8, variational=True, dropout=0.5, **options), 5, encoder=encoder)
    memory = encoder(torch.randn(2, 6, 5), torch.tensor([6, 6]))
    hidden, _ = decoder(torch.randn(2, 7, 5), decoder.project(memory))
    for outputs in (memory.states, hidden):
        zero = outputs == 0
        assert torch.equal(zero.all(dim=1), zero.any(dim=1)) and zero.any()


def test_shared_product_collects_the_gradient_of_all_steps() -> None:
    torch.manual_seed(5)
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    inputs = [torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def by_tape(weight: Tensor, *inputs: Tensor) -> Tensor:
        shared = Shared(weight)
        return sum((shared.product(step, added=shared.product(step)).tanh() for step in inputs), torch.zeros(()))

    assert torch.autograd.gradcheck(by_tape, (weight, *inputs))
    matrices = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(by_tape, (matrices, *(step[:, None].detach().requires_grad_() for step in inputs)))


def test_shared_product_can_be_run_backwards_twice() -> None:
    weight = torch.randn(4, 3, requires_grad=True)
    shared = Shared(weight)
    loss = shared.product(torch.randn(2, 4)).sum()
    loss.backward(retain_graph=True)
    once = weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(weight.grad, 2 * once)


ATTENTIONS = [
    {"attention": "none", "feed_summary": True},
    {"attention": "additive", "deep_output": "maxout"},
    {"attention": "dot"},
    {"attention": "general", "input_feeding": False},
    {"attention": "multihead", "heads": 2},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ATTENTIONS, ids=lambda options: options["attention"])
def test_bfloat16_autocast_is_close_to_float32(kind: str, options: dict[str, object]) -> None:
    torch.manual_seed(6)
    encoder = RecurrentEncoder(RecurrentEncoderConfig(kind=kind, width=8, dropout=0.0), 6)
    decoder = RecurrentDecoder(RecurrentDecoderConfig(kind=kind, width=16, layers=2, dropout=0.0, **options), 6, encoder=encoder)
    source, target, lengths = torch.randn(3, 5, 6), torch.randn(3, 7, 6), torch.tensor([5, 2, 4])
    modules = nn.ModuleList([encoder, decoder])

    def run() -> tuple[Tensor, list[Tensor]]:
        hidden, _ = decoder(target, decoder.project(encoder(source, lengths)))
        loss = hidden.float().square().sum()
        return hidden, list(torch.autograd.grad(loss, list(modules.parameters()), allow_unused=True))

    expected, gradients = run()
    with torch.autocast("cpu", torch.bfloat16):
        hidden, rounded = run()
        memory = decoder.project(encoder(source, lengths))
        state, steps = decoder.start(memory), []
        with torch.no_grad():
            for index in range(7):
                output, state = decoder.step(target[:, index], state, memory)
                steps.append(output)
    torch.testing.assert_close(hidden.float(), expected, atol=0.03, rtol=0.03)
    torch.testing.assert_close(torch.stack(steps, dim=1).float(), hidden.float(), atol=0.02, rtol=0.02)
    ours = torch.cat([part.flatten() for part in rounded if part is not None])
    exact = torch.cat([part.flatten() for part in gradients if part is not None])
    assert torch.nn.functional.cosine_similarity(ours, exact, dim=0) > 0.999


def test_memory_of_a_decoder_that_reads_one_summary_only_may_have_any_states() -> None:
    """The fixed context vector is all a decoder without attention sees: other states, same answer."""
    encoder = RecurrentEncoder(RecurrentEncoderConfig(width=8), 6)
    decoder = RecurrentDecoder(RecurrentDecoderConfig(attention="none"), 6, encoder=encoder).eval()
    memory = encoder(torch.randn(2, 5, 6), torch.tensor([5, 5]))
    other = Memory(torch.randn_like(memory.states), memory.mask, memory.summary)
    inputs = torch.randn(2, 3, 6)
    assert torch.equal(decoder(inputs, memory)[0], decoder(inputs, other)[0])
    assert decoder(inputs, memory, with_attention=True)[1] is None


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_pyramid_joins_neighbours(kind: str) -> None:
    """Chan 2016, 3.1: layer j reads [h_2i, h_2i+1] of layer j - 1; an odd last one is followed by zeros."""
    torch.manual_seed(1)
    encoder = RecurrentEncoder(RecurrentEncoderConfig(kind=kind, width=4, layers=3, pyramid=2, dropout=0.0), 5).eval()
    lengths = torch.tensor([7, 4, 5])
    memory = encoder(torch.randn(3, 7, 5), lengths)
    assert memory.states.shape == (3, 2, 8) and memory.mask.tolist() == [[True, True], [True, False], [True, True]]
    inputs = torch.randn(1, 7, 5)
    below, _ = encoder.layers[0](inputs.transpose(0, 1), torch.tensor([7]), None)
    pairs = torch.cat([below, torch.zeros(1, 1, 8)]).view(4, 1, 16)
    middle, _ = encoder.layers[1](pairs, torch.tensor([4]), None)
    top, _ = encoder.layers[2](middle.view(2, 1, 16), torch.tensor([2]), None)
    torch.testing.assert_close(encoder(inputs, torch.tensor([7])).states, top.transpose(0, 1))


def test_a_pyramid_needs_layers() -> None:
    with pytest.raises(ValidationError, match="pyramid 2 needs at least 3 layers"):
        RecurrentEncoderConfig(layers=2, pyramid=2)
