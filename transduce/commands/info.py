"""`transduce info`: a model directory in, what a person asks about a model out."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import nn

from transduce.export.choice import export_folder
from transduce.export.record import ParityRecord, read_record
from transduce.model.seq2seq import DecoderConfig, EncoderConfig
from transduce.train.checkpoint import LoadedModel, load_model, resolve_model

MEBIBYTE = 2**20


def describe_model(path: Path) -> None:
    """Print a model's architecture, size, codecs, search settings and scores. Raises CheckpointError."""
    directory = resolve_model(path)
    for line in model_lines(directory, load_model(directory)):
        print(line)


def model_lines(directory: Path, loaded: LoadedModel) -> Iterator[str]:
    """The description, one line each."""
    config = loaded.config
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    yield f"model:      {directory} ({size / MEBIBYTE:.1f} MiB, verified)"
    yield f"preset:     {config.preset or 'none'}, seed {config.seed}"
    yield f"encoder:    {_part(config.model.encoder)}"
    yield f"decoder:    {_part(config.model.decoder)}"
    yield f"parameters: {_parameters(loaded.model)}; embeddings of {config.model.embedding_size}, tie {config.model.tie}"
    for end, codec in (("source", loaded.source_codec), ("target", loaded.target_codec)):
        yield f"{end}:     {codec.describe()}"
    yield f"lengths:    source <= {config.model.max_source_length}, target <= {config.model.max_target_length} tokens"
    yield f"search:     beam {config.search.beam_size}, length penalty {config.search.length_penalty}"
    for corpus in config.data.train:
        yield f"trained on: {corpus.name}"
    yield f"scores:     {_scores(loaded.metrics)}"
    if (folder := export_folder(directory)).exists():
        yield f"export:     {_export(read_record(folder))}"


def _export(record: ParityRecord) -> str:
    """`ctranslate2 4.8.5; passed the parity check: greedy int8, beam float32`."""
    passed = ", ".join(f"{one.kind} {one.compute_type}" for one in record.agreements if one.passed)
    return f"{record.format} {record.engine_version}; passed the parity check: {passed or 'nothing'}"


def _part(part: EncoderConfig | DecoderConfig) -> str:
    """`lstm, layers 2, width 512, ...`: the settings that differ from their defaults behind the essential ones."""
    changed = part.model_dump(exclude_defaults=True)
    rest = [f"{name} {value}" for name, value in changed.items() if name not in ("kind", "layers", "width")]
    essential = [] if part.kind == "none" else [f"layers {part.layers}", f"width {part.width}"]
    return ", ".join([part.kind, *essential, *rest])


def _parameters(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()):,}"


def _scores(metrics: Mapping[str, object]) -> str:
    parts = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics.items()]
    return ", ".join(parts) or "not validated"
