"""A Transformer as CTranslate2 reads it: the same tensors under that engine's names.

In: a model and its configuration. Out: the files model.bin, config.json and the vocabularies in a folder. The decision to
question: nothing is approximated. What CTranslate2 cannot hold exactly is refused with the name of the setting; what it holds
in another form is rewritten so that the function stays the same (a linear layer behind an embedding becomes part of its table,
sines and relative distances become tables). Weights stay float32: the engine makes them 8 bits wide when it loads them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from ctranslate2 import specs
from ctranslate2.specs import common_spec, transformer_spec
from torch import Tensor, nn

from transduce.data.tokens import TextCodec
from transduce.decode.shortlist import Shortlist
from transduce.errors import ExportError
from transduce.model.attention import HeadLayout, MemoryProjection, SelfAttention
from transduce.model.frontends import TokenEmbedding, TokenFrontend
from transduce.model.heads import TokenHead, token_head
from transduce.model.layers import FeedForward
from transduce.model.positions import LearnedPositions, RelativePositions, SinusoidalPositions, sinusoid
from transduce.model.seq2seq import ModelConfig, Seq2Seq
from transduce.model.stack import Residual
from transduce.model.transformer import Positions, TransformerConfig, TransformerDecoder, TransformerEncoder

ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "gelu": common_spec.Activation.GELU,
    "swish": common_spec.Activation.SWISH,
    "swiglu": common_spec.Activation.SWISH,
}
EPSILONS = {"layer_norm": 1e-5, "rms_norm": 1e-6}
PARTING = frozenset(" \t\r\n")
"""What a file of shortlists parts tokens by."""


def obstacles(config: ModelConfig) -> Iterator[str]:
    """What of a model CTranslate2 cannot hold, one sentence for each setting."""
    parts = {"frontend": config.frontend.kind, "encoder": config.encoder.kind, "decoder": config.decoder.kind}
    wanted = {"frontend": "tokens", "encoder": "transformer", "decoder": "transformer"}
    for part, kind in parts.items():
        if kind != wanted[part]:
            yield f"model.{part}.kind is {kind}, and it holds {wanted[part]} only"
    norms = {part.norm for part in (config.encoder, config.decoder) if part.kind == "transformer"}
    if len(norms) > 1:
        yield "model.encoder.norm and model.decoder.norm differ, and it holds one kind of norm"


def write_model(
    folder: Path, model: Seq2Seq, config: ModelConfig, *, codecs: tuple[TextCodec, TextCodec], shortlist: Shortlist | None = None
) -> bool:
    """Write the files of an export into `folder`. -> whether the shortlist is among them. Raises ExportError with what cannot be held."""
    spec = make_spec(model, config)
    spec.register_source_vocabulary(vocabulary_of(codecs[0]))
    spec.register_target_vocabulary(vocabulary_of(codecs[1]))
    special = codecs[1].vocabulary
    names = vocabulary_of(codecs[1])
    spec.config.bos_token = spec.config.decoder_start_token = names[special.bos_id]
    spec.config.eos_token, spec.config.unk_token = names[special.eos_id], names[special.unk_id]
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    lines = [] if shortlist is None else list(shortlist_lines(shortlist, vocabulary_of(codecs[0]), names))
    if lines:
        (folder / "vmap.txt").write_text("".join(lines), encoding="utf-8")
    return bool(lines)


def shortlist_lines(shortlist: Shortlist, sources: Sequence[str], targets: Sequence[str]) -> Iterator[str]:
    """A source token, a tab and its target tokens, parted by blanks; in front a line without a source token, for every list. Nothing where
    names of tokens have blanks or ends of lines themselves; other spaces, as the one that does not break, part nothing."""
    if any(not name or not PARTING.isdisjoint(name) for name in (*sources, *targets)):
        return
    yield f"\t{' '.join(targets[token] for token in shortlist.always)}\n"
    for source, row in zip(sources, shortlist.candidates, strict=True):
        yield f"{source}\t{' '.join(targets[token] for token in row[row >= 0])}\n"


def vocabulary_of(codec: TextCodec) -> list[str]:
    """A name for each token id: its piece, or where two pieces look alike its number."""
    pieces = codec.pieces(range(codec.vocabulary.size))
    return pieces if len(set(pieces)) == len(pieces) else [f"#{number}" for number in range(len(pieces))]


def make_spec(model: Seq2Seq, config: ModelConfig) -> Any:
    """The model's tensors in a TransformerSpec. Raises ExportError."""
    problems = list(obstacles(config))
    match (config.encoder, config.decoder, model.encoder, model.decoder, model.frontend, model.embedding):
        case (
            TransformerConfig() as reading,
            TransformerConfig() as writing,
            TransformerEncoder() as encoder,
            TransformerDecoder() as decoder,
            TokenFrontend() as frontend,
            TokenEmbedding() as embedding,
        ) if not problems:
            reader = make_encoder(encoder, frontend.embedding, reading, longest=config.max_source_length)
            writer = make_decoder(decoder, embedding, writing, longest=config.max_target_length)
            put_head(writer, token_head(model.head))
            spec = specs.TransformerSpec(reader, writer)
            spec.config.layer_norm_epsilon = EPSILONS[reading.norm]
            return spec
    raise ExportError(f"CTranslate2 cannot hold this model: {'; '.join(problems)}")


def _options(config: TransformerConfig) -> dict[str, Any]:
    """What the constructors of both stacks ask."""
    rope = config.positions == "rope"
    return {
        "num_layers": config.layers,
        "num_heads": config.heads,
        "pre_norm": config.norm_place == "pre",
        "activation": ACTIVATIONS[config.activation],
        "relative_attention_bias": config.positions == "relative",
        "ffn_glu": config.activation == "swiglu",
        "rms_norm": config.norm == "rms_norm",
        "num_heads_kv": config.key_value_heads if config.key_value_heads != config.heads else None,
        "rotary_dim": config.width // config.heads if rope else None,
        "rotary_interleave": False,
    }


def make_encoder(encoder: Any, embedding: TokenEmbedding, config: TransformerConfig, *, longest: int) -> Any:
    """A TransformerEncoderSpec of a `TransformerEncoder`. longest: of a source, in tokens with the end."""
    spec = transformer_spec.TransformerEncoderSpec(**_options(config))
    put_embedding(spec, spec.embeddings[0], embedding, lift=encoder.lift)
    put_positions(spec, encoder.positions, config, longest=longest)
    for layer, own in zip(spec.layer, encoder.layers, strict=True):
        put_self_attention(layer.self_attention, own.attention, own.attention_residual)
        put_feed_forward(layer.ffn, own.feed_forward, own.feed_forward_residual)
    if config.norm_place == "pre":
        put_norm(spec.layer_norm, encoder.norm)
    return spec


def make_decoder(decoder: Any, embedding: TokenEmbedding, config: TransformerConfig, *, longest: int) -> Any:
    """A TransformerDecoderSpec of a `TransformerDecoder`, without the output layer. longest: of a target, in tokens with the end."""
    spec = transformer_spec.TransformerDecoderSpec(**_options(config))
    put_embedding(spec, spec.embeddings, embedding, lift=decoder.stack.lift)
    put_positions(spec, decoder.positions, config, longest=longest)
    keys = memory_blocks(decoder.stack.memory, decoder.layout)
    for number, (layer, own, past) in enumerate(zip(spec.layer, decoder.stack.layers, decoder.pasts, strict=True)):
        put_self_attention(layer.self_attention, past, own.past_residual)
        put_linear(layer.attention.linear[0], own.cross.queries)
        layer.attention.linear[1].weight, layer.attention.linear[1].bias = keys[number]
        put_linear(layer.attention.linear[2], own.cross.output)
        put_norm(layer.attention.layer_norm, own.cross_residual.norm)
        put_feed_forward(layer.ffn, own.feed_forward, own.feed_forward_residual)
    if config.norm_place == "pre":
        put_norm(spec.layer_norm, decoder.stack.norm)
    return spec


def memory_blocks(projection: MemoryProjection, layout: HeadLayout) -> list[tuple[Tensor, Tensor]]:
    """Weight (2 G K, D) and bias of each layer's keys and values over the memory."""
    size = 2 * layout.key_size
    return list(zip(torch.split(projection.linear.weight.detach(), size), torch.split(projection.linear.bias.detach(), size), strict=True))


def put_head(spec: Any, head: TokenHead) -> None:
    """The output layer; a bridge in front of it becomes part of its matrix."""
    match head.bridge:
        case nn.Linear() as bridge:
            spec.projection.weight = (head.weight.double() @ bridge.weight.double()).float().detach()
        case _:
            spec.projection.weight = head.weight.detach()
    spec.projection.bias = head.bias.detach()


def put_embedding(spec: Any, table: Any, embedding: TokenEmbedding, *, lift: nn.Module) -> None:
    """The embedding, scaled by sqrt(E) as here; a lift behind it becomes part of its table, scale included."""
    table.weight = embedding.weight.detach()
    match lift:
        case nn.Linear():
            spec.scale_embeddings = False
            scaled = table.weight.double() * embedding.output_size**0.5
            table.weight = (scaled @ lift.weight.double().T + lift.bias.double()).float().detach()


def put_positions(spec: Any, positions: Positions, config: TransformerConfig, *, longest: int) -> None:
    """Where tokens stand: a table that is added, or a bias of the first layer that the others share. RoPE has no tensors."""
    match positions.added:
        case SinusoidalPositions():
            spec.position_encodings.encodings = sinusoid(0, longest, width=config.width, device=torch.device("cpu"))
        case LearnedPositions() as learned:
            spec.position_encodings.encodings = learned.weight.detach()
        case _ if config.positions == "none":
            spec.position_encodings.encodings = torch.zeros(longest, config.width)
    if positions.relative is not None:
        biases, distance = distance_table(positions.relative), positions.relative.max_distance
        for layer in spec.layer:
            layer.self_attention.relative_attention_bias = biases
            layer.self_attention.relative_attention_max_distance = torch.tensor(4 * distance, dtype=torch.int32).numpy()[()]


def distance_table(relative: RelativePositions) -> Tensor:
    """(buckets, H) with a bucket of its own for each distance up to the farthest that matters.

    CTranslate2 rounds the borders of logarithmic buckets in float32, torch here in float64; with a row for each distance there is
    nothing to round. Half of the rows (of each direction) are for distances beyond, all alike.
    """
    exact = relative.max_distance + 1
    distances = torch.arange(2 * exact)  # of keys before the query
    rows = relative.weight.detach()[relative.bucket(distances)]
    if not relative.both_ways:
        return rows
    return torch.cat([rows, relative.weight.detach()[relative.bucket(-distances)]])


def put_self_attention(spec: Any, attention: SelfAttention, residual: Residual) -> None:
    """Queries, keys and values are packed there as here."""
    put_linear(spec.linear[0], attention.packed)
    put_linear(spec.linear[1], attention.output)
    put_norm(spec.layer_norm, residual.norm)


def put_feed_forward(spec: Any, block: FeedForward, residual: Residual) -> None:
    """Two layers, or three where a gate is split off the first."""
    if block.activation == "swiglu":
        gate, value = block.inner.weight.detach().chunk(2)
        spec.linear_0.weight, spec.linear_0_noact.weight = gate, value
        spec.linear_0.bias, spec.linear_0_noact.bias = block.inner.bias.detach().chunk(2)
    else:
        put_linear(spec.linear_0, block.inner)
    put_linear(spec.linear_1, block.outer)
    put_norm(spec.layer_norm, residual.norm)


def put_linear(spec: Any, linear: nn.Linear) -> None:
    """Weight and bias."""
    spec.weight, spec.bias = linear.weight.detach(), linear.bias.detach()


def put_norm(spec: Any, norm: Any) -> None:
    """Gain, and shift where there is one."""
    spec.gamma = norm.weight.detach()
    if (shift := dict(norm.named_parameters()).get("bias")) is not None:
        spec.beta = shift.detach()
