"""Numbers at equal time steps at both ends of the model: frames of C numbers to vectors, and hidden states to frames.

In: frames as a codec has normalised them. Out: vectors for an encoder or decoder, or what the next frame is: a value, or a
distribution, and whether it is the last one. The decision to question: a previous frame goes into the decoder with one more
number, 1 at the beginning and 0 after it, so that "nothing yet" has a learned vector of its own and teacher forcing and
search share one path. Both ends compute in fp32 also under autocast: bf16 keeps three digits, which is no position.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.errors import ConfigError
from transduce.model.layers import Dropout
from transduce.model.mixture import MixtureLayout
from transduce.model.modes import ModesLayout
from transduce.settings import Settings


class StepsConfig(Settings):
    """Frames of numbers, lifted to the width of the embeddings."""

    kind: Literal["steps"] = "steps"
    hidden_size: int = Field(default=0, ge=0)
    """Hidden units (ReLU) between a frame's numbers and its vector; 0 = one linear layer."""


class StepsHeadConfig(Settings):
    """How frames are predicted, and how the previous one is fed back. For targets of numbers only."""

    kind: Literal["regression", "mixture", "modes"] = "regression"
    """regression: one value per frame. mixture: a distribution, a mixture of Gaussians, from which samples can be drawn. modes: one value
    and, beside it, several whole tracks with probabilities, trained so that the nearest one is near (Cui 2019); needs feedback = none."""
    modes: int = Field(default=20, ge=1)
    """Whole tracks of `modes`."""
    components: int = Field(default=5, ge=1)
    """Gaussians of the mixture."""
    covariance: Literal["full", "diagonal"] = "full"
    """full: in each Gaussian the numbers of a frame depend on one another (n * (n - 1) / 2 parameters more); diagonal: they do not."""
    smallest_scale: float = Field(default=1e-2, gt=0)
    """Lower bound of every standard deviation of the mixture, in the units of the normalised frames. A lower one lets the gradients
    of sharp components drown those of the weights."""
    stop: bool = False
    """Predict with every frame whether it is the last one, for outputs of variable length."""
    hidden_size: int = Field(default=0, ge=0)
    """Hidden units (ReLU) between the decoder and the prediction; 0 = one linear layer."""
    feedback: Literal["previous", "none"] = "previous"
    """previous: the decoder sees the frame before. none: it rolls on by itself (Srivastava 2015, 2.2), so that a regression has nothing but
    the source to look at and meets in training what it meets in prediction."""
    previous_hidden_size: int = Field(default=0, ge=0)
    """Hidden units (ReLU) between the previous frame and the decoder; 0 = one linear layer."""


class Lift(nn.Module):
    """Numbers to numbers in fp32, by one linear layer or by two with ReLU between them. (..., input_size) -> (..., output_size)."""

    def __init__(self, input_size: int, output_size: int, *, hidden_size: int = 0) -> None:
        super().__init__()
        self.inner = nn.Linear(input_size, hidden_size) if hidden_size else None
        self.outer = nn.Linear(hidden_size or input_size, output_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., input_size) -> (..., output_size) fp32."""
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs.float()
            return self.outer(inputs if self.inner is None else functional.relu(self.inner(inputs)))  # type: ignore[no-any-return]


class StepsFrontend(nn.Module):
    """Source frames to vectors. size: C."""

    def __init__(self, config: StepsConfig, size: int, *, output_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.output_size = output_size
        self.lift = Lift(size, output_size, hidden_size=config.hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, source: Padded) -> tuple[Tensor, Tensor]:
        """Padded (B, S, C) -> (B, S, E), (B,). What stands in the padding, even NaN, never matters."""
        return self.dropout(self.lift(_clean(source))), source.lengths

    def as_written(self, weights: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """(B, T, S): sources are read in their own order."""
        return weights


class StepsEmbedding(nn.Module):
    """Previous target frames to vectors. A previous frame is C + 1 numbers; the last one is 1 at the beginning, else 0."""

    def __init__(self, size: int, output_size: int, *, hidden_size: int = 0, dropout: float = 0.0, feeds: bool = True) -> None:
        super().__init__()
        self.size = size
        self.feeds = feeds
        self.output_size = output_size
        self.lift = Lift(size + 1, output_size, hidden_size=hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, previous: Tensor) -> Tensor:
        """(..., C + 1) -> (..., E)."""
        return self.dropout(self.lift(previous))  # type: ignore[no-any-return]

    def begin(self, rows: int, device: torch.device) -> Tensor:
        """(rows, 1, C + 1): before the first frame."""
        return functional.pad(torch.zeros(rows, 1, self.size, device=device), (0, 1), value=1.0)

    def after(self, frames: Tensor) -> Tensor:
        """Frames (..., C) as previous ones (..., C + 1); without feedback each looks like the beginning."""
        return functional.pad(frames, (0, 1)) if self.feeds else functional.pad(torch.zeros_like(frames), (0, 1), value=1.0)

    def previous(self, target: Padded) -> Tensor:
        """Padded (B, T, C) -> (B, T, C + 1): the target shifted right behind its beginning. Padding counts as zeros."""
        shifted = self.after(_clean(target)[:, :-1].float())
        return torch.cat([self.begin(len(shifted), shifted.device), shifted], dim=1)


class StepsHead(nn.Module):
    """Hidden states to the parameters of the next frame. size: C.

    The parameters are one tensor (..., P): the value (regression) or the raw numbers of the mixture or of the modes, then the stop
    logit if there is one. Only the methods here know what stands where. modes: their layout, None = another kind of head.
    """

    def __init__(self, config: StepsHeadConfig, input_size: int, *, size: int) -> None:
        super().__init__()
        self.size = size
        self.stops = config.stop
        full = config.covariance == "full" and size > 1
        layout = MixtureLayout(size, config.components, full=full, smallest_scale=config.smallest_scale)
        self.mixture = layout if config.kind == "mixture" else None
        self.modes = ModesLayout(size, config.modes) if config.kind == "modes" else None
        self.num_frame_parameters = next((known.num_parameters for known in (self.mixture, self.modes) if known is not None), size)
        self.num_parameters = self.num_frame_parameters + config.stop
        self.lift = Lift(input_size, self.num_parameters, hidden_size=config.hidden_size)

    @property
    def probabilistic(self) -> bool:
        """Whether frames have a density from which they can be drawn; a regression and modes have none."""
        return self.mixture is not None

    @property
    def num_guesses(self) -> int | None:
        """Tracks that can be asked for beside the expected one; None = any number."""
        return None if self.probabilistic else 0 if self.modes is None else self.modes.modes

    @property
    def num_uniform(self) -> int:
        """Random numbers that `sample` takes: one for the component, one for each coordinate."""
        return 1 + self.size

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., P) fp32."""
        return self.lift(hidden)  # type: ignore[no-any-return]

    def mean(self, parameters: Tensor) -> Tensor:
        """(..., P) -> (..., C): the value, or the expectation of the mixture."""
        frame = parameters[..., : self.num_frame_parameters]
        if self.modes is not None:
            return self.modes.expected(frame)
        return frame if self.mixture is None else self.mixture.read(frame).mean()

    def log_probability(self, parameters: Tensor, values: Tensor) -> Tensor:
        """(..., P), (..., C) -> (...): log density of the frames in nats. Raises ConfigError for a regression."""
        return self._layout().read(parameters[..., : self.num_frame_parameters]).log_probability(values.float())

    def sample(self, parameters: Tensor, uniform: Tensor, *, temperature: float = 1.0) -> Tensor:
        """(..., P), uniform (..., num_uniform) float64 in [0, 1) -> (..., C). Raises ConfigError for a regression."""
        return self._layout().read(parameters[..., : self.num_frame_parameters]).sample(uniform, temperature)

    def stop_logits(self, parameters: Tensor) -> Tensor | None:
        """(..., P) -> (...): logit of "this frame is the last one"; None where stops are not predicted."""
        return parameters[..., -1] if self.stops else None

    def _layout(self) -> MixtureLayout:
        if self.mixture is None:
            raise ConfigError("densities and draws need model.head.kind = mixture")
        return self.mixture


def steps_embedding(module: nn.Module) -> StepsEmbedding:
    """The embedding of a model whose target is numbers. Raises ConfigError for any other."""
    match module:
        case StepsEmbedding():
            return module
    raise ConfigError("the model's target is text, but this needs one that predicts numbers")


def steps_head(module: nn.Module) -> StepsHead:
    """The head of a model whose target is numbers. Raises ConfigError for any other."""
    match module:
        case StepsHead():
            return module
    raise ConfigError("the model's target is text, but this needs one that predicts numbers")


def _clean(frames: Padded) -> Tensor:
    """(B, T, C) with zeros in the padding: NaN there would survive a product with an attention weight of zero."""
    return frames.data.masked_fill(~frames.mask[..., None], 0.0)
