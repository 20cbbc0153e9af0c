"""The Transformer with each of its options: a step equals the whole pass, padding and the future are invisible."""

import itertools
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from transduce.errors import ConfigError
from transduce.model.interface import Memory
from transduce.model.transformer import (
    TransformerConfig,
    TransformerDecoder,
    TransformerEncoder,
    TransformerState,
)

B, S, T, E = 3, 6, 20, 10
LENGTHS = torch.tensor([6, 4, 1])
POSITIONS = ("sinusoidal", "learned", "rope", "relative")
SMALL = TransformerConfig(layers=2, width=16, heads=4, feed_forward=24, relative_buckets=8, relative_max_distance=12, dropout=0.0)
OPTIONS = [
    {"positions": positions, "norm_place": place, "key_value_heads": groups, "norm": norm, "activation": activation}
    for (positions, place), (groups, norm, activation) in itertools.product(
        itertools.product(POSITIONS, ("pre", "post")),
        ((None, "layer_norm", "relu"), (2, "rms_norm", "swiglu"), (1, "layer_norm", "gelu")),
    )
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(str(value) for value in options.values()))


def build(seed: int = 1, **options: object) -> tuple[TransformerEncoder, TransformerDecoder]:
    torch.manual_seed(seed)
    config = TransformerConfig.model_validate(SMALL.model_dump() | options)
    encoder = TransformerEncoder(config, E)
    decoder = TransformerDecoder(config, E, encoder=encoder)
    for module in (*encoder.modules(), *decoder.modules()):  # relative biases start at zero, where they could hide a mistake
        for name, parameter in module.named_parameters(recurse=False):
            if "relative" in name or parameter.shape == (8, 4):
                torch.nn.init.normal_(parameter)
    return encoder.eval(), decoder.eval()


def walk(decoder: TransformerDecoder, inputs: Tensor, memory: Memory) -> Tensor:
    """(N, T, E) step by step -> (N, T, D)."""
    state: TransformerState = decoder.start(memory)
    state = state.select(torch.arange(memory.mask.shape[0]).repeat_interleave(inputs.shape[0] // memory.mask.shape[0]))
    outputs = []
    with torch.inference_mode():
        for position in range(inputs.shape[1]):
            output, state = decoder.step(inputs[:, position], state, memory)
            outputs.append(output)
    return torch.stack(outputs, dim=1)


@each_option
def test_step_equals_forward(options: dict[str, object]) -> None:
    encoder, decoder = build(**options)
    memory = decoder.project(encoder(torch.randn(B, S, E), LENGTHS))
    inputs = torch.randn(B, T, E)
    whole, _ = decoder(inputs, memory)
    torch.testing.assert_close(walk(decoder, inputs, memory), whole, atol=1e-5, rtol=1e-5)


@each_option
def test_padding_never_changes_an_answer(options: dict[str, object]) -> None:
    encoder, decoder = build(**options)
    source, inputs = torch.randn(B, S, E), torch.randn(B, 4, E)
    memory = decoder.project(encoder(source, LENGTHS))
    together, weights = decoder(inputs, memory, with_attention=True)
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, 4))
    assert (weights.masked_select(~memory.mask[:, None, :]) == 0).all()
    for row, length in enumerate(LENGTHS.tolist()):
        alone = decoder.project(encoder(source[row : row + 1, :length], LENGTHS[row : row + 1]))
        torch.testing.assert_close(memory.states[row, :length], alone.states[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(memory.summary[row], alone.summary[0], atol=1e-5, rtol=1e-5)
        output, _ = decoder(inputs[row : row + 1], alone)
        torch.testing.assert_close(together[row], output[0], atol=1e-5, rtol=1e-5)
    other = torch.where(memory.mask[..., None], source, torch.full_like(source, 100.0))
    torch.testing.assert_close(decoder(inputs, decoder.project(encoder(other, LENGTHS)))[0], together, atol=1e-5, rtol=1e-5)


@each_option
def test_the_future_is_invisible_and_order_is_not(options: dict[str, object]) -> None:
    encoder, decoder = build(**options)
    source = torch.randn(B, S, E)
    memory = decoder.project(encoder(source, torch.full((B,), S)))
    inputs = torch.randn(B, 6, E)
    changed = inputs.clone()
    changed[:, 4:] += 1
    before, after = decoder(inputs, memory)[0], decoder(changed, memory)[0]
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4], atol=1e-3)
    swapped = inputs[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(decoder(swapped, memory)[0][:, 5], before[:, 5], atol=1e-4)
    turned = encoder(source.flip(1), torch.full((B,), S)).states.flip(1)
    assert not torch.allclose(turned, memory.states, atol=1e-3)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("groups", [None, 2])
def test_beams_share_the_memory_of_their_sentence(positions: str, groups: int | None) -> None:
    width = 3
    encoder, decoder = build(positions=positions, key_value_heads=groups)
    memory = decoder.project(encoder(torch.randn(B, S, E), LENGTHS))
    inputs = torch.randn(B * width, 5, E)
    wide = walk(decoder, inputs, memory)
    alone = memory.select(torch.arange(B).repeat_interleave(width))
    torch.testing.assert_close(wide, walk(decoder, inputs, alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wide, decoder(inputs, alone)[0], atol=1e-5, rtol=1e-5)


def test_selected_hypotheses_carry_their_past() -> None:
    encoder, decoder = build()
    memory = decoder.project(encoder(torch.randn(B, S, E), LENGTHS))
    inputs = torch.randn(B, 4, E)
    state = decoder.start(memory)
    rows = torch.tensor([2, 0, 0])
    with torch.inference_mode():
        for position in range(3):
            _, state = decoder.step(inputs[:, position], state, memory)
        selected = memory.select(rows)
        output, _ = decoder.step(inputs[rows, 3], state.select(rows), selected)
    torch.testing.assert_close(output, decoder(inputs, memory)[0][rows, 3], atol=1e-5, rtol=1e-5)


def test_a_state_is_a_value() -> None:
    encoder, decoder = build()
    memory = decoder.project(encoder(torch.randn(1, S, E), torch.tensor([S])))
    inputs = torch.randn(3, 1, E)
    with torch.inference_mode():
        _, first = decoder.step(inputs[0], decoder.start(memory), memory)
        _, left = decoder.step(inputs[1], first, memory)
        decoder.step(inputs[2], first, memory)
        output, _ = decoder.step(inputs[0], left, memory)
    whole, _ = decoder(inputs[[0, 1, 0], 0][None], memory)
    torch.testing.assert_close(output, whole[:, 2], atol=1e-5, rtol=1e-5)


@each_option
def test_gradients_reach_every_weight_and_equal_those_through_steps(options: dict[str, object]) -> None:
    encoder, decoder = build(**options)
    source, inputs = torch.randn(B, S, E), torch.randn(B, 4, E)
    parameters = [*encoder.parameters(), *decoder.parameters()]

    def gradients(stepwise: bool) -> list[Tensor]:
        memory = decoder.project(encoder(source, LENGTHS))
        if not stepwise:
            return list(torch.autograd.grad(decoder(inputs, memory)[0].square().sum(), parameters))
        state, total = decoder.start(memory), torch.zeros(())
        for position in range(4):
            output, state = decoder.step(inputs[:, position], state, memory)
            total = total + output.square().sum()
        return list(torch.autograd.grad(total, parameters))

    for whole, stepwise in zip(gradients(False), gradients(True), strict=True):
        assert whole.abs().sum() > 0
        torch.testing.assert_close(whole, stepwise, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("positions", POSITIONS)
def test_autocast_stays_near_float32(positions: str) -> None:
    encoder, decoder = build(positions=positions, key_value_heads=2)
    source, inputs = torch.randn(B, S, E), torch.randn(B, T, E)
    exact, _ = decoder(inputs, decoder.project(encoder(source, LENGTHS)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        memory = decoder.project(encoder(source, LENGTHS))
        assert memory.keys[1].dtype == torch.bfloat16
        whole, _ = decoder(inputs, memory)
        steps = walk(decoder, inputs, memory)
    torch.testing.assert_close(whole.float(), exact, atol=0.1, rtol=0.1)
    torch.testing.assert_close(steps.float(), exact, atol=0.1, rtol=0.1)


def test_every_dropout_acts_in_training_only() -> None:
    source = torch.randn(B, S, E)
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        encoder, _ = build(**{name: 0.5})
        still = encoder(source, LENGTHS).states
        assert torch.equal(still, encoder(source, LENGTHS).states)
        encoder.train()
        assert not torch.allclose(encoder(source, LENGTHS).states, still, atol=1e-3), name


def test_layer_drop_leaves_layers_out_in_training_only() -> None:
    encoder, decoder = build(layer_drop=0.6, layers=1)
    source, inputs = torch.randn(B, S, E), torch.randn(B, 4, E)
    full = encoder(source, LENGTHS).states
    memory = decoder.project(encoder(source, LENGTHS))
    encoder.train()
    decoder.train()
    torch.manual_seed(5)
    seen = [torch.allclose(encoder(source, LENGTHS).states, full, atol=1e-5) for _ in range(200)]
    assert 50 < sum(seen) < 110
    outputs = {round(decoder(inputs, memory)[0][0, 0, 0].item(), 4) for _ in range(20)}
    assert len(outputs) == 2
    _, weights = decoder(inputs, memory, with_attention=True)
    assert weights is not None


def test_base_of_the_paper_has_its_number_of_weights() -> None:
    config = TransformerConfig(layers=6, width=512, heads=8, feed_forward=2048, norm_place="post")
    with torch.device("meta"):
        encoder = TransformerEncoder(config, 512)
        decoder = TransformerDecoder(config, 512, encoder=encoder)
    attention = 4 * (512 * 512 + 512)
    block = 512 * 2048 + 2048 + 2048 * 512 + 512
    expected = 6 * (attention + block + 2 * 1024) + 6 * (2 * attention + block + 3 * 1024)
    count = sum(parameter.numel() for module in (encoder, decoder) for parameter in module.parameters())
    assert count == expected == 44_138_496
    assert count + 37_000 * 512 == pytest.approx(65e6, rel=0.05)


def test_pre_norm_closes_each_stack_with_one_norm_more() -> None:
    counts = [sum(p.numel() for module in build(norm_place=place) for p in module.parameters()) for place in ("pre", "post")]
    assert counts[0] - counts[1] == 2 * 2 * 16


def test_grouped_heads_have_fewer_weights() -> None:
    encoder, _ = build(key_value_heads=1)
    full, _ = build()
    saved = sum(p.numel() for p in full.parameters()) - sum(p.numel() for p in encoder.parameters())
    assert saved == 2 * 2 * 12 * (16 + 1)


def test_inputs_of_the_right_width_are_not_lifted() -> None:
    config = TransformerConfig.model_validate(SMALL.model_dump() | {"width": 12, "heads": 2})
    names = [name for name, _ in TransformerEncoder(config, 12).named_parameters()]
    assert not any("lift" in name for name in names)
    assert any("lift" in name for name, _ in TransformerEncoder(config, 10).named_parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30, "heads": 4}, "heads 4 must divide width 30"),
        ({"key_value_heads": 3}, "key_value_heads 3 must divide heads 4"),
        ({"width": 20, "positions": "rope"}, "needs an even head width, but 20 / 4 heads = 5"),
        ({"relative_buckets": 64, "relative_max_distance": 32}, "relative_max_distance 32 must exceed half of relative_buckets, 32"),
        ({"norm_place": "middle"}, "'pre' or 'post'"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformerConfig.model_validate(options)


def test_every_field_is_documented() -> None:
    assert all(field.description for field in TransformerConfig.model_fields.values())


def test_learned_positions_refuse_a_longer_source() -> None:
    encoder, _ = build(positions="learned", max_positions=5)
    with pytest.raises(ConfigError, match="6 tokens"):
        encoder(torch.randn(B, S, E), LENGTHS)


def test_memory_of_another_width_than_the_decoder() -> None:
    encoder, _ = build()
    decoder = TransformerDecoder(TransformerConfig(layers=1, width=32, heads=2, feed_forward=8), E, encoder=encoder).eval()
    memory = decoder.project(encoder(torch.randn(B, S, E), LENGTHS))
    assert decoder(torch.randn(B, 2, E), memory)[0].shape == (B, 2, 32)
    assert replace(memory, keys=()).keys == ()
