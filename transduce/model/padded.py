"""Padded rows: their count is a multiple, zeros behind, so that products have few sizes.

In: rows (M, K). Out: rows (M', K). The decision to question: what is made to be multiplied has room for the padding behind it in memory,
and so have the outputs of padded products; they are padded without a copy. Only memory that nobody else can see is room: see `has_room`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

STEP = 64
"""Rows of a product are a multiple of this; of 2,048 rows one in 60 is padding then."""
SMALL_STEP = 16
"""The same for fewer rows than `STEP`."""


def padded_count(count: int, *, step: int | None = None) -> int:
    """The number of rows that a product of `count` rows is computed with: a multiple of `step`; None = of one that suits their number."""
    step = step or (STEP if count > STEP else SMALL_STEP)
    return -(-count // step) * step


def padded_rows(rows: Tensor, kind: torch.dtype, *, step: int | None = None) -> Tensor:
    """(M, K) -> (M', K) in the number format `kind`, zeros behind; itself where nothing changes or there is room behind it. M' is a
    multiple of `step`; None = as `padded_count` has it."""
    count = len(rows)
    size = padded_count(count, step=step)
    if count == size:
        return rows.to(kind).contiguous()
    if rows.dtype == kind and has_room(rows, size):
        padded = rows.as_strided((size, rows.shape[1]), (rows.shape[1], 1))
    else:
        padded = rows.new_empty(size, rows.shape[1], dtype=kind)
        padded[:count].copy_(rows)
    padded.data[count:].zero_()  # what autograd has saved of these rows stays as it was, and must not seem changed
    return padded


def with_room(like: Tensor, shape: Sequence[int], *, kind: torch.dtype | None = None) -> Tensor:
    """A tensor (..., K) that is not filled, and on the CPU behind it in memory the room of the rows that `padded_rows` adds. Device and
    number format are those of `like`, or the format is `kind`."""
    if like.device.type != "cpu":
        return like.new_empty(shape, dtype=kind or like.dtype)
    return like.new_empty(padded_count(torch.Size(shape[:-1]).numel()), shape[-1], dtype=kind or like.dtype).resize_(shape)


def has_room(rows: Tensor, size: int) -> bool:
    """Whether rows (M, K) are all of a tensor `with_room` for `size` of them, or of the outputs of a padded product. A part of a larger
    tensor is none: what lies behind it belongs to others. Inference tensors do not know what they are a part of."""
    if rows.is_inference() or not rows.is_contiguous():
        return False
    whole = rows._base if rows._is_view() else rows
    return whole is not None and whole.numel() == rows.numel() and whole.untyped_storage().nbytes() == size * rows.shape[1] * rows.itemsize
