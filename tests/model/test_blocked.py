"""Products of our own loops are those of float64, whatever the number of rows."""

import pytest
import torch

from transduce.model import blocked, fused
from transduce.model.blocked import back_multiplier, fits, has_blocks, has_wide_vectors, multiplier, multiplies, summed, sums
from transduce.model.fused import compiles
from transduce.model.products import FEWEST_ROWS, Linear

pytestmark = pytest.mark.skipif(not has_blocks(), reason="needs numba and one of AMD's processors")


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 13, 96, 102, 205])
@pytest.mark.parametrize(("depth", "width"), [(64, 128), (128, 64), (1088, 64)])
def test_rows_times_a_matrix(rows: int, depth: int, width: int) -> None:
    """1,088 words are more than are read at once."""
    inputs, matrix, bias = numbers(rows, depth), numbers(width, depth), numbers(width)
    exact = inputs.double() @ matrix.double().t() + bias.double()
    torch.testing.assert_close(multiplier(matrix, bias)(inputs).double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(multiplier(matrix, bias)(inputs, then="relu").double(), exact.relu(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(multiplier(matrix)(inputs).double(), exact - bias.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back_multiplier(matrix.t())(inputs).double(), exact - bias.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 6, 97])
@pytest.mark.parametrize(("depth", "width", "even"), [(64, 128, True), (192, 256, True), (128, 64, False)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_zeros_are_passed_over(rows: int, depth: int, width: int, even: bool, share: float) -> None:
    """Where they are many and the matrix has an even number of tiles; the product is the same, and a number that is none stays that."""
    inputs, matrix, bias = numbers(rows, depth), numbers(width, depth), numbers(width)
    inputs[torch.rand(rows, depth, generator=torch.Generator().manual_seed(rows)) < share] = 0
    inputs[:, 5] = 0
    exact = inputs.double() @ matrix.double().t() + bias.double()
    torch.testing.assert_close(multiplier(matrix, bias)(inputs).double(), exact, rtol=1e-4, atol=1e-4)
    matrix[:, 5] = float("inf")  # whose product with zero is no number, unless nobody computes it
    assert multiplier(matrix, bias)(inputs).isfinite().all().item() is ((even or not has_wide_vectors()) and share > 0.5)
    inputs[0, 3] = float("nan")
    assert multiplier(matrix, bias)(inputs)[0].isnan().all()


@pytest.mark.parametrize("rows", [1, 176, 177, 400])
def test_the_gradient_of_a_weight(rows: int) -> None:
    outer, inputs = numbers(rows, 128), numbers(rows, 320)
    exact = outer.double().t() @ inputs.double()
    torch.testing.assert_close(summed(outer, inputs).double(), exact, rtol=1e-4, atol=1e-4)
    total = numbers(128, 320)
    both = exact + total.double()
    assert summed(outer, inputs, total=total) is total
    torch.testing.assert_close(total.double(), both, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not has_blocks(torch.bfloat16), reason="needs AVX512 BF16")
@pytest.mark.parametrize("rows", [1, 6, 7, 102])
@pytest.mark.parametrize(("depth", "width"), [(64, 128), (128, 64), (2112, 64)])
def test_bfloat16_rows_times_a_matrix(rows: int, depth: int, width: int) -> None:
    """2,112 numbers are more than are read at once; sums are rounded once."""
    inputs, matrix, bias = numbers(rows, depth).bfloat16(), numbers(width, depth).bfloat16(), numbers(width).bfloat16()
    exact = inputs.double() @ matrix.double().t()
    for found, wanted in (
        (multiplier(matrix, bias)(inputs), exact + bias.double()),
        (multiplier(matrix, bias)(inputs, then="relu"), (exact + bias.double()).relu()),
        (back_multiplier(matrix.t())(inputs), exact),
    ):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-3)


def test_what_is_no_number_stays_that() -> None:
    inputs = numbers(8, 64)
    inputs[3, 5] = float("nan")
    found = multiplier(numbers(64, 64))(inputs, then="relu")
    assert found[3].isnan().all() and found[[0, 1, 2, 4, 5, 6, 7]].isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_trains_by_them(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs, calls = Linear(64, 128, bias=bias), numbers(3, FEWEST_ROWS // 3 + 1, 64).requires_grad_(), []
    for name in ("multiplier", "back_multiplier", "summed"):
        own = getattr(blocked, name)
        monkeypatch.setattr(f"transduce.model.products.{name}", lambda *given, own=own, name=name: calls.append(name) or own(*given))
    layer(inputs, then="relu").relu().square().sum().backward()
    found = [inputs.grad, layer.weight.grad, *([layer.bias.grad] if bias else [])]
    assert calls == ["multiplier", "back_multiplier", "summed"][: 3 if has_wide_vectors() else 2]
    exact = [inputs.detach().double().requires_grad_(), layer.weight.detach().double().requires_grad_()]
    exact += [layer.bias.detach().double().requires_grad_()] if bias else []
    torch.nn.functional.linear(*exact).relu().square().sum().backward()
    for ours, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(ours.double(), wanted.grad, rtol=1e-3, atol=1e-3)


def test_they_are_used_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = numbers(8, 64)
    assert multiplies(rows, numbers(128, 64)) and sums(rows, numbers(8, 192)) is has_wide_vectors()
    assert fits(64, 8000) and not fits(64, 90)
    assert not multiplies(rows, numbers(90, 64)) and not multiplies(rows.double(), numbers(128, 64))
    assert not multiplies(rows.bfloat16(), numbers(128, 64)) and not multiplies(rows, numbers(128, 64).bfloat16())
    assert multiplies(rows.bfloat16(), numbers(128, 64).bfloat16()) is has_blocks(torch.bfloat16)
    monkeypatch.setattr(blocked, "MOST_SUMS", 64 * 100)
    assert not sums(rows, numbers(8, 192))
    torch.set_num_threads(2)
    assert not multiplies(rows, numbers(128, 64))
    torch.set_num_threads(1)


def test_where_numba_compiles_for_another_processor_they_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler would end the process: it knows no such instructions then."""
    loops = fused.loops()
    assert compiles.__wrapped__("fma")
    monkeypatch.setattr(loops, "INSTRUCTIONS", frozenset())
    assert not compiles.__wrapped__("fma")
