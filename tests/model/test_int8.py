import pytest
import torch
from torch import nn

from transduce.data.batch import Padded
from transduce.decode.search import ModelScorer, SearchConfig, search
from transduce.model.blocked import has_blocks
from transduce.model.frontends import Vocabulary
from transduce.model.int8 import Int8Linear, Int8Product, int8_model, largest_weight
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.model.whole import Int16Linear
from transduce.processor import int8_instructions
from transduce.train.precision import LARGE_MODEL, choose_products

CPU = torch.device("cpu")
DECODERS = (
    {"kind": "transformer", "layers": 2, "width": 64, "heads": 4, "feed_forward": 128},
    {"kind": "ssru", "layers": 2, "width": 64, "heads": 4, "feed_forward": 128},
    {"kind": "lstm", "layers": 2, "width": 64, "attention": "general", "input_feeding": True},
    {"kind": "gru", "layers": 1, "width": 64, "attention": "additive"},
)


def model_with(decoder: dict[str, object]) -> Seq2Seq:
    torch.manual_seed(0)
    encoder = {"kind": "transformer", "layers": 2, "width": 64, "heads": 4, "feed_forward": 128}
    config = ModelConfig.model_validate({"encoder": encoder, "decoder": decoder, "embedding_size": 64, "tie": "all"})
    words = Vocabulary(90, 0, 1, 2, 3)
    return build_model(config, words, words).eval()


@pytest.mark.parametrize("shape", [(1, 64, 96), (7, 33, 65), (40, 128, 90)])
def test_an_int8_product_is_close_to_the_exact_one(shape: tuple[int, int, int]) -> None:
    rows, inner, outputs = shape
    inputs, linear = torch.randn(rows, inner), nn.Linear(inner, outputs)
    with torch.inference_mode():
        found, exact = Int8Linear(linear)(inputs), linear(inputs)
    assert found.shape == exact.shape
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()
    assert not torch.equal(found, exact)


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_packed_weights_give_the_same_sums(rows: int) -> None:
    if int8_instructions() is None:
        pytest.skip("this processor has no instructions for sums of 8-bit products")
    weight, inputs, bias = torch.randn(90, 64) * 3, torch.randn(rows, 3, 64), torch.randn(90)
    packed, plain = Int8Product(weight, packed=True), Int8Product(weight, packed=False)
    whole = torch.randint(-127, 128, (rows, 64), dtype=torch.int8)
    sums = whole.double() @ (weight / plain.scales[:, None]).round().double().t() * plain.scales.double()
    for product in (packed, plain):
        torch.testing.assert_close(product.multiply(whole).double(), sums, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(packed(inputs, bias), plain(inputs, bias), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(packed(inputs, None), plain(inputs, None), rtol=1e-6, atol=1e-5)


def test_weights_are_packed_for_tiles_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, wanted in (({"avx512_vnni", "amx_int8"}, True), ({"avx512_vnni"}, False), (set(), False)):
        monkeypatch.setattr("transduce.model.int8.cpu_flags", lambda flags=flags: frozenset(flags))
        assert Int8Product(torch.randn(80, 64)).packed is wanted


@pytest.mark.parametrize("packed", [None, False])
def test_a_row_is_rounded_alone_so_other_rows_do_not_change_its_answer(packed: bool | None) -> None:
    product = Int8Product(torch.randn(80, 64), packed=packed)
    rows = torch.randn(6, 64) * torch.tensor([1.0, 1e-3, 50.0, 1.0, 1.0, 0.0])[:, None]
    together = product(rows, None)
    assert all(torch.equal(together[number], product(rows[number], None)) for number in range(len(rows)))
    assert together[5].abs().max() == 0


@pytest.mark.parametrize("inference", [True, False])
def test_a_row_has_255_steps_from_its_least_number_to_its_largest(inference: bool) -> None:
    """So that one without a sign, as behind a ReLU, is rounded twice as finely as one of both signs."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.rand(40, 64, generator=generator) * 3
    rows[::2] -= 1.5
    with torch.inference_mode(inference):
        errors = (Int8Product(torch.eye(64))(rows, None) - rows).abs().amax(1)
    steps = (rows.amax(1).clamp_min(0) - rows.amin(1).clamp_max(0)) / 255
    assert ((0.4 * steps < errors) & (errors < 0.51 * steps)).all()


def expect_nearly_the_same(model: Seq2Seq, rounded: Seq2Seq) -> None:
    """The first logits differ, but little; greedy search begins alike."""
    source = Padded(torch.tensor([[5, 9, 14, 2], [7, 2, 0, 0]]), torch.tensor([4, 2]))
    with torch.inference_mode():
        outputs = []
        for one in (model, rounded):
            memory = one.encode(source)
            outputs.append(one.step(torch.tensor([1, 1]), one.start(memory), memory)[0])
    spread = outputs[0].std()
    assert 0 < (outputs[0] - outputs[1]).abs().max() < 0.2 * spread
    found = [search(ModelScorer(one, source, max_length=12), config=SearchConfig(beam_size=1))[0][0].tokens for one in (model, rounded)]
    assert found[0][:1] == found[1][:1]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: str(decoder["kind"]))
def test_an_int8_model_answers_nearly_as_the_exact_one(decoder: dict[str, object]) -> None:
    model = model_with(decoder)
    expect_nearly_the_same(model, int8_model(model))


def test_the_copy_shares_its_weights_and_leaves_the_model_as_it_was() -> None:
    model = model_with(DECODERS[0])
    rounded = int8_model(model)
    assert rounded.embedding.weight is model.embedding.weight
    counts = [sum(type(module) is kind for module in rounded.modules()) for kind in (Int8Linear, Int16Linear)]
    finer = 2 * 4 + 2  # attention of two layers, the memory, and the inner part of a feed-forward block
    if not has_blocks(torch.int8):  # 16 bits for all, where there are loops for these
        finer = 2 * 4 + 2 * 6 + 1 if has_blocks(torch.int16) else 0
    assert counts == [2 * 4 + 2 * 6 + 1 - finer, finer]
    assert not any(type(module) in (Int8Linear, Int16Linear) for module in model.modules())
    kept = {name for name in rounded.state_dict() if not name.startswith("head.head.")}  # of the layer that a head which ranks has
    assert kept == set(model.state_dict())


def test_auto_rounds_large_models_on_processors_with_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transduce.train.precision.cpu_flags", lambda: frozenset({"avx512_vnni"}))
    monkeypatch.setattr("transduce.processor.cpu_flags", lambda: frozenset({"avx512_vnni"}))
    assert choose_products("auto", device=CPU, num_weights=LARGE_MODEL) == ("int8", "avx512_vnni")
    assert choose_products("auto", device=CPU, num_weights=LARGE_MODEL - 1)[0] == "fp32"
    assert choose_products("auto", device=torch.device("cuda"), num_weights=LARGE_MODEL)[0] == "fp32"
    monkeypatch.setattr("transduce.processor.cpu_flags", lambda: frozenset({"avx2"}))
    for loops, kind in ((True, "int8"), (False, "fp32")):
        monkeypatch.setattr("transduce.train.precision.has_blocks", lambda number, loops=loops: loops and number is torch.int16)
        assert choose_products("auto", device=CPU, num_weights=LARGE_MODEL)[0] == kind
        assert choose_products("int8", device=CPU, num_weights=1)[1].startswith("asked for, slow") is not loops


def test_sums_of_pairs_that_16_bits_hold_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a processor without VNNI computes them: one factor without a sign, two products added up in 16 bits."""

    def in_pairs(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        products = (rows.int() + 128)[:, :, None] * columns.int()  # (M, K, N)
        pairs = (products[:, ::2] + products[:, 1::2]).clamp(-(2**15), 2**15 - 1)
        return pairs.sum(1, dtype=torch.int32) - 128 * columns.sum(0, dtype=torch.int32)

    inputs, weight = torch.rand(5, 64) + 1, torch.rand(48, 64) + 1
    assert largest_weight.__wrapped__() == (127.0 if int8_instructions() is not None else 63.0)
    monkeypatch.setattr(torch, "_int_mm", in_pairs)
    monkeypatch.setattr("transduce.model.int8.has_blocks", lambda _: False)
    exact, off = inputs @ weight.t(), []
    for largest in (127.0, largest_weight.__wrapped__()):
        monkeypatch.setattr("transduce.model.int8.largest_weight", lambda largest=largest: largest)
        with torch.inference_mode():
            off.append(float((Int8Product(weight, packed=False)(inputs, None) - exact).abs().max() / exact.max()))
    assert off[0] > 0.1 and off[1] < 0.01


@pytest.mark.skipif(not has_blocks(torch.int8), reason="needs numba and one of AMD's processors with AVX512 VNNI")
@pytest.mark.parametrize("rows", [1, 5, 6, 97, 130])
@pytest.mark.parametrize(("inner", "outputs"), [(64, 128), (67, 64), (64, 90)])
@pytest.mark.parametrize("bias", [True, False])
def test_loops_of_our_own_give_the_same_sums(rows: int, inner: int, outputs: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, inputs = torch.randn(outputs, inner, generator=generator), torch.randn(rows, inner, generator=generator)
    added = torch.randn(outputs, generator=generator) if bias else None
    own, plain = Int8Product(weight), Int8Product(weight)
    assert own.whole is not None
    plain.whole = None
    with torch.inference_mode():
        for then in ("none", "relu", "gelu"):
            torch.testing.assert_close(own(inputs, added, then=then), plain(inputs, added, then=then), rtol=1e-5, atol=1e-5)
        inputs[0, 3] = float("nan")
        found = own(inputs, added, then="relu")
    assert found[0].isnan().all() and found[1:].isfinite().all()
