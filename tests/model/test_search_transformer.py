"""A Transformer in search: the loops between its products answer as torch's operations do, step for step, in every number format."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from transduce.data.batch import Padded
from transduce.decode.search import ModelScorer, SearchConfig, search
from transduce.model import fused
from transduce.model.bfloat16 import bfloat16_model
from transduce.model.frontends import Vocabulary
from transduce.model.int8 import Int8Product, int8_model
from transduce.model.search_transformer import LONGEST, LoopedDecoder, LoopedEncoder, quick_beam, with_loops
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.processor import int8_instructions

KINDS: dict[str, Callable[[Seq2Seq], Seq2Seq]] = {"fp32": lambda model: model, "int8": int8_model, "bf16": bfloat16_model}
TOLERANCE = {"fp32": 1e-5, "int8": 0.1, "bf16": 0.1}
"""Of hidden numbers of size one: what was rounded to 8 or 16 bits may be rounded the other way after sums in another order."""
WORDS = Vocabulary(90, 0, 1, 2, 3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes of a search, and without gradients."""
    if fused.kernels() is None:
        pytest.skip("numba is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


def trained(**settings: Any) -> Seq2Seq:
    """A small model whose biases and norms have learned something."""
    torch.manual_seed(0)
    part = {"kind": "transformer", "layers": 2, "width": 64, "heads": 4, "feed_forward": 128, **settings}
    model = build_model(ModelConfig.model_validate({"encoder": part, "decoder": part, "embedding_size": 64, "tie": "all"}), WORDS, WORDS)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def source(*lengths: int) -> Padded:
    """Sentences of these many tokens."""
    numbers = torch.randint(4, 90, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    return Padded(numbers, torch.tensor(lengths))


def hidden_of(model: Seq2Seq, sources: Padded, *, width: int, steps: int) -> list[Tensor]:
    """The memory's real states, then what each step hides, hypotheses swapped and a sentence dropped on the way."""
    memory = model.encode(sources)
    state, found = model.start(memory), [memory.states[memory.mask], memory.summary]
    state = state.select(torch.arange(len(sources.lengths)).repeat_interleave(width))
    for step in range(steps):
        tokens = torch.arange(memory.mask.shape[0] * width) % 80 + 4 + step
        hidden, state = model.decoder.step(model.embedding(tokens), state, memory)
        found.append(hidden)
        if step == 1:
            state = state.select(torch.arange(len(hidden)).view(-1, width).flip(1).reshape(-1))
        if step == 2:
            kept = torch.arange(1, memory.mask.shape[0])
            memory, state = memory.select(kept), state.select(torch.arange(width, len(hidden)))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"key_value_heads": 2, "activation": "gelu"},
        {"positions": "learned", "heads": 2},
        {"heads": 2, "key_value_heads": 1, "width": 128},
    ],
    ids=["plain", "groups", "learned", "vectors"],  # the last: heads of 64 numbers
)
def test_loops_answer_as_torch_does(kind: str, width: int, settings: dict[str, Any]) -> None:
    """More steps than a cache grows by at once, sentences of unlike lengths, more rows than the smallest padded product has."""
    model = KINDS[kind](trained(**settings))
    looped = with_loops(model)
    assert type(looped.encoder) is LoopedEncoder and type(looped.decoder) is LoopedDecoder
    sources = source(9, 3, 1, 7, 13, 5)
    found, wanted = (hidden_of(one, sources, width=width, steps=18) for one in (looped, model))
    for ours, exact in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, exact, rtol=0, atol=TOLERANCE[kind])
    assert any(not torch.equal(ours, exact) for ours, exact in zip(found, wanted, strict=True)), "the loops were not used"


@pytest.mark.parametrize("kind", KINDS)
def test_searches_that_share_a_step_get_what_each_gets_alone(kind: str) -> None:
    """Of unlike numbers of sentences and hypotheses, at unlike positions."""
    model = with_loops(KINDS[kind](trained()))
    memories = [model.encode(source(9, 3, 1)), model.encode(source(4, 12, 7, 5, 2))]
    widths = (3, 1)
    states = [
        model.start(one).select(torch.arange(len(one.mask)).repeat_interleave(width)) for one, width in zip(memories, widths, strict=True)
    ]
    inputs = [model.embedding(torch.arange(len(one.mask) * width) + 4) for one, width in zip(memories, widths, strict=True)]
    _, states[0] = model.decoder.step(inputs[0], states[0], memories[0])  # one position ahead of the other
    twice = [states[0].select(torch.arange(len(inputs[0]))), states[1].select(torch.arange(len(inputs[1])))]
    assert model.decoder.joins(memories[0])
    for _ in range(2):
        together, states = model.decoder.step_together(inputs, states, memories)
        alone = [model.decoder.step(*each) for each in zip(inputs, twice, memories, strict=True)]
        twice = [state for _, state in alone]
        torch.testing.assert_close(together, torch.cat([hidden for hidden, _ in alone]), rtol=0, atol=TOLERANCE[kind])


@pytest.mark.parametrize("beam", [1, 4])
def test_searches_find_the_same_in_float32(beam: int) -> None:
    model, sources = trained(), source(9, 3, 1, 7, 13, 5)
    config = SearchConfig(beam_size=beam, max_length=20)
    found, wanted = (search(ModelScorer(one, sources, max_length=24), config=config) for one in (with_loops(model), model))
    assert [[path.tokens for path in paths] for paths in found] == [[path.tokens for path in paths] for paths in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_several_threads_and_long_sources_go_the_general_way(kind: str) -> None:
    """To the same numbers as without loops, bit for bit; also teacher forcing, which reads memory that was made for the loops."""
    model = KINDS[kind](trained())
    looped, long = with_loops(model), source(LONGEST + 1, 2)
    assert torch.equal(looped.encoder(*looped.frontend(long)).states, model.encoder(*model.frontend(long)).states)
    sources, previous = source(5, 3), torch.tensor([[1, 7, 9], [1, 8, 2]])
    torch.set_num_threads(2)
    for ours, exact in zip(hidden_of(looped, sources, width=2, steps=4), hidden_of(model, sources, width=2, steps=4), strict=True):
        assert torch.equal(ours, exact)
    found, wanted = (one.decode(one.encode(sources), previous, with_attention=True) for one in (looped, model))
    assert found[1] is not None and wanted[1] is not None
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("settings", [{"positions": "rope"}, {"positions": "relative"}, {"norm_place": "post"}, {"norm": "rms_norm"}])
def test_what_the_loops_do_not_know_stays_as_it_is(settings: dict[str, Any]) -> None:
    model = trained(**settings)
    looped = with_loops(model)
    assert looped.encoder is model.encoder and looped.decoder is model.decoder


def test_a_gated_block_stays_as_it_is() -> None:
    model = trained(activation="swiglu")
    assert with_loops(model).decoder is model.decoder


def test_which_beams_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {kind: with_loops(convert(trained())) for kind, convert in KINDS.items()}
    for packs, blocks, exact in ((True, True, 1), (True, False, 2), (False, False, None)):
        monkeypatch.setattr("transduce.model.search_transformer.packs", lambda packs=packs: packs)
        monkeypatch.setattr("transduce.model.search_transformer.has_blocks", lambda blocks=blocks: blocks)
        for instructions, rounded in (("avx512_vnni", 2), (None, None)):
            monkeypatch.setattr("transduce.model.search_transformer.int8_instructions", lambda name=instructions: name)
            found = {kind: quick_beam([model], kind) for kind, model in models.items()}  # type: ignore[arg-type]
            assert found == {"fp32": exact, "int8": rounded, "bf16": rounded}
    monkeypatch.undo()
    assert quick_beam([trained()], "int8") is None and quick_beam([models["int8"]] * 2, "int8") is None


def test_without_numba_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    monkeypatch.setattr("transduce.model.search_transformer.kernels", lambda: None)
    assert with_loops(model).encoder is model.encoder and with_loops(model).decoder is model.decoder


def test_numbers_that_are_none_are_not_hidden() -> None:
    """A damaged weight shows in the scores, which the search then refuses."""
    for convert in KINDS.values():
        model = trained()
        model.decoder.stack.layers[0].past_residual.norm.bias[3] = float("nan")
        looped, sources = with_loops(convert(model)), source(4, 2)
        memory = looped.encode(sources)
        assert looped.step(torch.tensor([1, 1]), looped.start(memory), memory)[0].isnan().all()


@pytest.mark.parametrize("rows", [1, 17, 70])
@pytest.mark.parametrize("biased", [True, False])
def test_loops_round_rows_as_torch_does(rows: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if int8_instructions() is None:
        pytest.skip("this processor has no instructions for sums of 8-bit products")
    product, inputs = Int8Product(torch.randn(90, 64)), torch.randn(rows, 64) * torch.logspace(-3, 3, rows)[:, None]
    inputs[0] = 0
    bias = torch.randn(90) if biased else None
    found = product(inputs, bias)
    monkeypatch.setattr("transduce.model.int8.searches", lambda _: False)
    wanted = product(inputs, bias)
    assert ((found - wanted).abs().amax(1) <= 1e-5 * wanted.abs().amax(1) + 1e-6).all()
    assert torch.equal(product.multiply(torch.ones(1, 64)), product.multiply(torch.ones(2, 64))[:1])
