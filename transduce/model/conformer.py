"""The Conformer encoder (Gulati 2020): self-attention for what is far away, convolution for what is near.

In: vectors (B, S, E) and lengths. Out: `Memory`. A layer is half a feed-forward block, self-attention, a convolution module and the
other half, each added to what came in, and a norm at the end (Gulati 2020, 2.4).

The decision to question: the convolution module has a norm over the features of each position (or an RMS norm) where the paper has a batch
norm. A batch norm mixes the rows of a batch, and its padding, into every answer, so that a sentence would be answered differently among
others; so would any norm over time where a row is padded. And padding is zeroed before the convolution, which is what a row alone sees
beyond its end.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from transduce.model.attention import SelfAttention, initialise_blocks, padding_bias
from transduce.model.depthwise import DepthwiseConvolution
from transduce.model.interface import Encoder, Memory, memory_with_mean, real_positions
from transduce.model.layers import Activation, Dropout, NormKind, make_norm
from transduce.model.positions import PositionKind, Rotation
from transduce.model.products import Linear
from transduce.model.stack import Residual, StackConfig, feed_forward, head_layout, lift, skipped
from transduce.model.transformer import Positions, check_positions


class ConformerConfig(StackConfig):
    """A stack of Conformer layers."""

    kind: Literal["conformer"] = "conformer"
    """Which architecture this is."""
    layers: int = Field(default=6, ge=1)
    """Number of layers."""
    width: int = Field(default=144, ge=1)
    """Numbers per position between layers (D), a multiple of `heads`. Inputs of another width are lifted by a linear layer."""
    feed_forward: int = Field(default=576, ge=1)
    """Inner width of the two feed-forward blocks of a layer (F)."""
    activation: Activation = "swish"
    """Non-linearity of the feed-forward blocks: swish (Gulati 2020), relu, gelu or swiglu."""
    kernel_size: int = Field(default=15, ge=1)
    """Positions that the convolution sees at once, an odd number; half of them lie before."""
    norm: NormKind = "layer_norm"
    """layer_norm (Ba 2016) or rms_norm (Zhang & Sennrich 2019), in the convolution module too (a batch norm would mix rows)."""
    norm_place: ClassVar[Literal["pre"]] = "pre"  # type: ignore[misc] # no setting: modules read what was normalised, as in the paper
    positions: PositionKind = "rope"
    """rope (Su 2021), relative (a bias per head and distance, Raffel 2020), sinusoidal (Vaswani 2017), learned (see `max_positions`)."""
    max_positions: int = Field(default=1024, ge=1)
    """Longest sequence in positions for learned positions; the other kinds have no limit."""
    relative_buckets: int = Field(default=32, ge=4, multiple_of=4)
    """Distances that relative positions tell apart, half of them in each direction."""
    relative_max_distance: int = Field(default=128, ge=2)
    """Distance in positions beyond which relative positions make no difference; more than half of `relative_buckets`."""

    @model_validator(mode="after")
    def _convolution_and_positions_fit(self) -> Self:
        check_positions(self)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} must be odd, so that it has a middle; {self.kernel_size + 1} would do")
        return self


class ConformerEncoder(Encoder):
    """Vectors (B, S, E) to `Memory`; the summary is the mean of the real states."""

    def __init__(self, config: ConformerConfig, input_size: int) -> None:
        super().__init__()
        self.output_size = self.summary_size = config.width
        self.layer_drop = config.layer_drop
        self.lift = lift(input_size, config.width)
        self.positions = Positions(config, both_ways=True)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.layers))

    def forward(self, inputs: Tensor, lengths: Tensor) -> Memory:
        """(B, S, E), (B,) -> Memory with states (B, S, D) and summary (B, D)."""
        mask = real_positions(lengths, inputs.shape[1])  # (B, S)
        padding = None if bool(mask.all()) else ~mask[:, :, None]  # (B, S, 1)
        states = self.positions.add(self.lift(inputs))
        bias = padding_bias(mask, states)
        relative = self.positions.bias(states)
        bias = bias if relative is None else bias + relative  # (B, H or 1, S or 1, S)
        rotation = self.positions.rotation(states)
        for layer in self.layers:
            if not skipped(self, self.layer_drop):
                states = layer(states, bias=bias, rotation=rotation, padding=padding)
        return memory_with_mean(states, mask)


class ConformerLayer(nn.Module):
    """Half a feed-forward block, self-attention, convolution, half a feed-forward block, norm."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.first = feed_forward(config)
        self.first_residual = Residual(config)
        self.attention = SelfAttention(head_layout(config), dropout=config.attention_dropout)
        self.attention_residual = Residual(config)
        self.convolution = ConvolutionModule(config)
        self.convolution_residual = Residual(config)
        self.second = feed_forward(config)
        self.second_residual = Residual(config)
        self.norm = make_norm(config.norm, config.width)

    def forward(self, inputs: Tensor, *, bias: Tensor, rotation: Rotation | None, padding: Tensor | None) -> Tensor:
        """(B, S, D) -> (B, S, D); padding: (B, S, 1) True = not real, None = nothing is padded."""
        hidden = self.first_residual.after(inputs, 0.5 * self.first(self.first_residual.before(inputs)))
        attended = self.attention(self.attention_residual.before(hidden), bias=bias, rotation=rotation)
        hidden = self.attention_residual.after(hidden, attended)
        hidden = self.convolution_residual.after(hidden, self.convolution(self.convolution_residual.before(hidden), padding))
        hidden = self.second_residual.after(hidden, 0.5 * self.second(self.second_residual.before(hidden)))
        return self.norm(hidden)  # type: ignore[no-any-return]


class ConvolutionModule(nn.Module):
    """A gated linear layer, a convolution per feature, norm, swish and a linear layer (Gulati 2020, 2.2)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        width = config.width
        self.gated = Linear(width, 2 * width)
        self.depthwise = DepthwiseConvolution(width, config.kernel_size)
        self.norm = make_norm(config.norm, width)
        self.output = Linear(width, width)
        self.dropout = Dropout(config.activation_dropout)
        initialise_blocks(self.gated, (width, width))
        initialise_blocks(self.output, (width,))

    def forward(self, inputs: Tensor, padding: Tensor | None) -> Tensor:
        """(B, S, D) -> (B, S, D); what comes from padding is zeroed before the convolution."""
        hidden = functional.glu(self.gated(inputs), dim=-1)
        if padding is not None:
            hidden = hidden.masked_fill(padding, 0)
        return self.output(self.dropout(functional.silu(self.norm(self.depthwise(hidden)))))  # type: ignore[no-any-return]
