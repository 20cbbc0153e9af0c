"""Recurrent cells: LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers 2000) and GRU (Cho 2014).

In: gate inputs, that is everything that does not depend on the recurrence, computed for all steps by one product. Out:
the outputs of all steps and the last state. A cell's state is a tuple: (h, c) for an LSTM, (h,) for a GRU.

The decision to question: there is no nn.LSTM here. One loop serves encoder, decoder, attention inside the recurrence and
single steps of a search, so they agree by construction; the cell's element-wise part has its own backward and the
recurrent weight's gradient is one product (`shared_products`). c (and the h of a GRU) stay float32 under autocast.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from transduce.model.layers import Dropout
from transduce.model.products import Linear
from transduce.model.shared_products import Shared

CellKind = Literal["lstm", "gru"]
CellState = tuple[Tensor, ...]
CLOSED = 1e4
"""A gate input whose sigmoid is exactly 1 (or, negated, 0) in every number format."""


class Cell(nn.Module, ABC):
    """One recurrent layer's weights. `num_states` tensors of width D, `num_gates` blocks of D gate inputs."""

    num_states: int
    num_gates: int

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.inputs = Linear(input_size, self.num_gates * size)
        self.recurrent = nn.Parameter(torch.empty(self.num_gates * size, size))
        initialise_gates(self.inputs.weight, self.num_gates)
        nn.init.zeros_(self.inputs.bias)
        with torch.no_grad():
            for block in self.recurrent.chunk(self.num_gates):
                nn.init.orthogonal_(block)

    def zeros(self, like: Tensor) -> CellState:
        """The all-zero state for as many rows as `like` (N, ...) has."""
        return tuple(like.new_zeros(like.shape[0], self.size, dtype=torch.float32) for _ in range(self.num_states))

    def share(self) -> Shared:
        """The recurrent weight, ready for many steps."""
        return Shared(self.recurrent.t())

    @abstractmethod
    def advance(self, gates: Tensor, state: CellState, recurrent: Shared, keep: Tensor | None = None) -> CellState:
        """One step. gates: (N, num_gates * D); keep: (N, D), a mask of the recurrent input (Gal 2016), or None."""

    @abstractmethod
    def hold(self, gates: Tensor, padding: Tensor) -> Tensor:
        """Gate inputs (..., num_gates * D) that leave the memory as it is where `padding` (..., 1) is True."""


class LSTMCell(Cell):
    """Gates in the order input, forget, output, candidate. The forget gate starts open (bias 1, Jozefowicz 2015)."""

    num_states, num_gates = 2, 4

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__(input_size, size)
        nn.init.ones_(self.inputs.bias.data[size : 2 * size])

    def advance(self, gates: Tensor, state: CellState, recurrent: Shared, keep: Tensor | None = None) -> CellState:
        """See `Cell.advance`; h has the number format of the gates, c is float32."""
        hidden, cell = state
        gates = recurrent.product(hidden if keep is None else hidden * keep, added=gates)
        if gates.requires_grad or cell.requires_grad:
            return _LSTMUpdate.apply(gates, cell)  # type: ignore[no-any-return, no-untyped-call]
        return _lstm_update(gates, cell)[:2]

    def hold(self, gates: Tensor, padding: Tensor) -> Tensor:
        """Nothing enters and nothing is forgotten: c stays."""
        frozen = gates.new_zeros(4, self.size)
        frozen[0], frozen[1] = -CLOSED, CLOSED
        return torch.where(padding, frozen.view(-1), gates)


class GRUCell(Cell):
    """Gates in the order reset, update, candidate; the reset gate acts after the product, as in cuDNN, without a second bias."""

    num_states, num_gates = 1, 3

    def advance(self, gates: Tensor, state: CellState, recurrent: Shared, keep: Tensor | None = None) -> CellState:
        """See `Cell.advance`; h is float32."""
        (hidden,) = state
        fed_back = recurrent.product(hidden if keep is None else hidden * keep)
        if gates.requires_grad or fed_back.requires_grad or hidden.requires_grad:
            return (_GRUUpdate.apply(gates, fed_back, hidden),)  # type: ignore[no-untyped-call]
        return (_gru_update(gates, fed_back, hidden)[0],)

    def hold(self, gates: Tensor, padding: Tensor) -> Tensor:
        """The update gate keeps all of h."""
        frozen = gates.new_zeros(3, self.size)
        frozen[1] = CLOSED
        return torch.where(padding, frozen.view(-1), gates)


CELLS: dict[str, type[LSTMCell] | type[GRUCell]] = {"lstm": LSTMCell, "gru": GRUCell}


def initialise_gates(weight: Tensor, num_gates: int) -> None:
    """Xavier-uniform (Glorot & Bengio 2010) for each gate's block of rows."""
    with torch.no_grad():
        for block in weight.chunk(num_gates):
            nn.init.xavier_uniform_(block)


def sweep(cell: Cell, gates: Tensor, state: CellState, *, keep: Tensor | None = None, backwards: bool = False) -> tuple[Tensor, CellState]:
    """Run a cell over time. gates: (T, N, num_gates * D) -> h of all steps (T, N, D) at their places, and the last state."""
    recurrent = cell.share()
    outputs = []
    steps = gates.unbind(0)
    for inputs in reversed(steps) if backwards else steps:
        state = cell.advance(inputs, state, recurrent, keep)
        outputs.append(state[0])
    if backwards:
        outputs.reverse()
    return torch.stack(outputs), state  # (T, N, D)


def drop(dropout: Dropout, inputs: Tensor) -> Tensor:
    """Dropout for (T, N, D), time first: one mask over time where the dropout says so."""
    if dropout.over_time:
        return dropout(inputs.transpose(0, 1)).transpose(0, 1)  # type: ignore[no-any-return]
    return dropout(inputs)  # type: ignore[no-any-return]


def recurrent_mask(dropout: Dropout, state: CellState) -> Tensor | None:
    """(N, D): the mask that the fed-back h keeps over all steps (Gal & Ghahramani 2016), None without variational dropout."""
    if not (dropout.over_time and dropout.training and dropout.threshold):
        return None
    return dropout(torch.ones_like(state[0])[:, None])[:, 0]  # type: ignore[no-any-return]


def _lstm_update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, 4 D) summed gate inputs, (N, D) float32 -> h, next c, activations (N, 4 D) float32, tanh of the next c."""
    size = cell.shape[1]
    active = gates.float()  # the sum of a step belongs to nobody else, so it may be overwritten
    active[:, : 3 * size].sigmoid_()
    active[:, 3 * size :].tanh_()
    enter, forget, show, candidate = active.chunk(4, dim=1)  # (N, D) each
    following = torch.addcmul(forget * cell, enter, candidate)
    squashed = torch.tanh(following)
    return (show * squashed).to(gates.dtype), following, active, squashed


class _LSTMUpdate(torch.autograd.Function):
    """The element-wise half of an LSTM step: (N, 4 D) gate inputs, (N, D) c -> h, next c."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        hidden, following, active, squashed = _lstm_update(gates.detach(), cell)
        ctx.save_for_backward(cell, active, squashed)
        ctx.dtype = gates.dtype
        ctx.set_materialize_grads(False)
        return hidden, following

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor | None, d_cell: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        cell, active, squashed = ctx.saved_tensors
        size = cell.shape[1]
        enter, forget, show, candidate = active.chunk(4, dim=1)
        back = torch.empty_like(active)  # (N, 4 D): first the gradients of the activations
        if d_hidden is None:
            back[:, 2 * size : 3 * size] = 0
            total = d_cell
        else:
            d_hidden = d_hidden.float()
            torch.mul(d_hidden, squashed, out=back[:, 2 * size : 3 * size])
            total = torch.ops.aten.tanh_backward(d_hidden * show, squashed)
            total = total if d_cell is None else total.add_(d_cell)
        if total is None:
            return None, None
        torch.mul(total, candidate, out=back[:, :size])
        torch.mul(total, cell, out=back[:, size : 2 * size])
        torch.mul(total, enter, out=back[:, 3 * size :])
        sigmoids, tanhs = back[:, : 3 * size], back[:, 3 * size :]
        torch.ops.aten.sigmoid_backward.grad_input(sigmoids, active[:, : 3 * size], grad_input=sigmoids)
        torch.ops.aten.tanh_backward.grad_input(tanhs, candidate, grad_input=tanhs)
        return back.to(ctx.dtype), total.mul_(forget)


def _gru_update(gates: Tensor, fed_back: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3 D) from the inputs, (N, 3 D) from h, (N, D) float32 -> next h, reset and update gates (N, 2 D), candidate."""
    size = hidden.shape[1]
    reset_update = torch.add(gates[:, : 2 * size], fed_back[:, : 2 * size]).float().sigmoid_()
    reset, update = reset_update.chunk(2, dim=1)  # (N, D) each
    candidate = torch.addcmul(gates[:, 2 * size :].float(), reset, fed_back[:, 2 * size :].float()).tanh_()
    return torch.lerp(candidate, hidden.float(), update), reset_update, candidate


class _GRUUpdate(torch.autograd.Function):
    """The element-wise half of a GRU step: gate inputs (N, 3 D), fed back (N, 3 D), h (N, D) -> next h."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, fed_back: Tensor, hidden: Tensor) -> Tensor:
        following, reset_update, candidate = _gru_update(gates, fed_back, hidden)
        ctx.save_for_backward(fed_back[:, 2 * hidden.shape[1] :], hidden, reset_update, candidate)
        ctx.dtype = gates.dtype
        return following

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_following: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory, hidden, reset_update, candidate = ctx.saved_tensors
        reset, update = reset_update.chunk(2, dim=1)
        memory = memory.float()
        d_candidate = torch.ops.aten.tanh_backward(torch.addcmul(d_following, d_following, update, value=-1), candidate)
        raw = torch.cat([d_candidate * memory, d_following * (hidden - candidate)], dim=1)  # (N, 2 D)
        d_reset_update = torch.ops.aten.sigmoid_backward(raw, reset_update)
        d_gates = torch.cat([d_reset_update, d_candidate], dim=1).to(ctx.dtype)  # (N, 3 D)
        d_fed_back = torch.cat([d_reset_update, d_candidate * reset], dim=1).to(ctx.dtype)
        return d_gates, d_fed_back, d_following * update
