"""A mixture of Gaussians: over frames of C numbers (mixture density networks, Bishop 1994; pairs of coordinates: Graves 2013, 4.1).

In: raw numbers of a linear layer. Out: densities, means and samples. The decision to question: a component is not written
with correlations but as a chain, each coordinate's deviation a Gaussian around a linear function of the deviations before
it. This is every full covariance for any C (the factor of its inverse is `mixing` / `scales`), needs no matrix inverse for a
density and no bound on any parameter: whatever the layer gives is a proper density.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_UNIFORM = 2.0**-54  # what a draw of 0 becomes: -8.3 standard deviations instead of minus infinity


@dataclass(frozen=True)
class MixtureLayout:
    """How the raw numbers of one mixture are laid out: weights, means, scales and, with `full`, what is below the diagonal.

    size: C. components: M. smallest_scale: added to every standard deviation, so that no density grows without end.
    """

    size: int
    components: int
    full: bool
    smallest_scale: float

    @property
    def num_mixing(self) -> int:
        """Numbers below the diagonal of one component."""
        return self.size * (self.size - 1) // 2 if self.full else 0

    @property
    def num_parameters(self) -> int:
        """Raw numbers of one mixture."""
        return self.components * (1 + 2 * self.size + self.num_mixing)

    def read(self, raw: Tensor) -> "Mixture":
        """raw: (..., num_parameters) fp32 -> the mixture."""
        kinds = [count * self.components for count in (1, self.size, self.size, self.num_mixing)]
        weights, means, scales, mixing = torch.split(raw, kinds, dim=-1)
        shape = (*raw.shape[:-1], self.components, self.size)
        positive = functional.softplus(scales.reshape(shape)) + self.smallest_scale
        chain = self._below_diagonal(mixing) if self.num_mixing else None
        return Mixture(weights.log_softmax(-1), means.reshape(shape), positive, chain)

    def _below_diagonal(self, mixing: Tensor) -> Tensor:
        """(..., M * num_mixing) -> (..., M, C, C), zero on and above the diagonal."""
        rows, columns = torch.tril_indices(self.size, self.size, -1, device=mixing.device).unbind(0)
        lead = (*mixing.shape[:-1], self.components)
        chain = mixing.new_zeros((*lead, self.size * self.size))
        places = (rows * self.size + columns).expand(*lead, -1)
        return chain.scatter(-1, places, mixing.reshape(*lead, self.num_mixing)).view(*lead, self.size, self.size)


@dataclass(frozen=True)
class Mixture:
    """Mixtures of M Gaussians over C numbers, one per leading index.

    log_weights: (..., M). means: (..., M, C). scales: (..., M, C) standard deviation of each coordinate given those before it.
    mixing: (..., M, C, C) strictly lower triangular, None = independent coordinates: coordinate c lies around
    means[c] - mixing[c] . (deviations of the coordinates before it).
    """

    log_weights: Tensor
    means: Tensor
    scales: Tensor
    mixing: Tensor | None

    def log_probability(self, values: Tensor) -> Tensor:
        """values: (..., C) -> (...), log density in nats."""
        deviations = values[..., None, :] - self.means  # (..., M, C)
        if self.mixing is not None:
            deviations = deviations + (self.mixing * deviations[..., None, :]).sum(-1)
        log_density = -0.5 * (deviations / self.scales).square() - self.scales.log() - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(self.log_weights + log_density.sum(-1), dim=-1)

    def mean(self) -> Tensor:
        """(..., C): the expectation."""
        return (self.log_weights.exp()[..., None] * self.means).sum(-2)

    def sample(self, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        """uniform: (..., 1 + C) float64 in [0, 1), the first chooses the component -> (..., C).

        The logits of the components are divided by the temperature and all variances multiplied by it (Ha & Eck 2017, 3.3).
        """
        cumulated = (self.log_weights / temperature).double().softmax(-1).cumsum(-1)
        target = uniform[..., :1] * cumulated[..., -1:]
        chosen = torch.searchsorted(cumulated, target, right=True).clamp_max(cumulated.shape[-1] - 1)  # (..., 1)
        noise = torch.special.ndtri(uniform[..., 1:].clamp_min(SMALLEST_UNIFORM)).to(self.means)  # (..., C)
        deviations: Tensor = noise * _pick(self.scales, chosen) * temperature**0.5
        if self.mixing is not None:
            mixing = _pick(self.mixing.flatten(-2), chosen).view(*deviations.shape, -1)  # (..., C, C)
            column = torch.linalg.solve_triangular(mixing, deviations[..., None], upper=False, unitriangular=True)
            deviations = column[..., 0]  # (..., C)
        return _pick(self.means, chosen) + deviations


def _pick(table: Tensor, chosen: Tensor) -> Tensor:
    """table: (..., M, X), chosen: (..., 1) -> (..., X)."""
    places = chosen[..., None].expand(*chosen.shape, table.shape[-1])
    return table.gather(-2, places)[..., 0, :]
