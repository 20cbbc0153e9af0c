"""Padding of rows: zeros, few counts, no copy where there is room, and nobody else's memory."""

import pytest
import torch

from transduce.model.padded import SMALL_STEP, STEP, padded_count, padded_rows, with_room


def test_padding_is_zero_and_whole_rows_are_not_copied() -> None:
    rows = torch.randn(STEP, 3)
    assert padded_rows(rows, torch.float32) is rows
    padded = padded_rows(torch.ones(STEP + 1, 3), torch.bfloat16)
    assert padded.shape == (padded_count(STEP + 1), 3) == (2 * STEP, 3)
    assert float(padded.sum()) == 3 * (STEP + 1)


@pytest.mark.parametrize("shape", [(5, 3), (STEP + 1, 3), (7, 13, 4)])
def test_room_is_padded_in_place(shape: tuple[int, ...]) -> None:
    tensor = with_room(torch.empty(0), shape).fill_(1)
    tensor.untyped_storage().fill_(1)  # what lies behind is anything
    rows = tensor.fill_(2).view(-1, shape[-1])
    padded = padded_rows(rows, torch.float32)
    assert padded.data_ptr() == tensor.data_ptr() and len(padded) == padded_count(len(rows))
    assert float(padded.sum()) == 2 * tensor.numel()
    assert padded_rows(rows, torch.bfloat16).data_ptr() != tensor.data_ptr()


def test_a_part_of_a_larger_tensor_has_no_room() -> None:
    """Not even where it would fit, with gradients recorded or not, nor where nothing tells that it is a part."""
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            whole = torch.ones(SMALL_STEP, 3)
            padded = padded_rows(whole[:5], torch.float32)
            assert float(padded.sum()) == 15 and float(whole.sum()) == 3 * SMALL_STEP


def test_what_autograd_has_saved_may_be_padded() -> None:
    """Padding is written behind numbers that a backward pass needs, and does not count as a change of them."""
    leaf = torch.randn(5, 3, requires_grad=True)
    tensor = torch.mul(leaf, 2)
    roomy = with_room(tensor, (5, 3)).copy_(tensor)
    total = (roomy * roomy).sum()
    padded_rows(roomy.detach(), torch.float32)
    padded_rows(roomy, torch.float32)
    total.backward()
    torch.testing.assert_close(leaf.grad, 8 * leaf.detach())
