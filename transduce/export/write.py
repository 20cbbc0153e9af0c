"""Exports, written and checked in one go: beside their place, compared with the model, renamed.

In: a model directory, and sources to compare on. Out: a folder with the files of the engine, parity.json and a manifest. The decision to
question: the check is part of writing. There is no export without a record, and a folder that was interrupted is not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from transduce import __version__
from transduce.commands.check import processor_name
from transduce.data.codec import as_text_codec
from transduce.engines import EngineChoice
from transduce.errors import ConfigError, DataError, ExportError
from transduce.export.choice import EngineRequest, export_folder, installed_version, load_engine, model_digest
from transduce.export.parity import Examples, compare_engines, generated_examples, validation_examples
from transduce.export.record import COMPUTE_TYPES, KINDS, PARITY, SHORTLISTED, ParityRecord
from transduce.predict import Predictor
from transduce.train.checkpoint import LoadedModel, load_model, resolve_model
from transduce.train.storage import write_folder, write_json


@dataclass(frozen=True)
class Exported:
    """What was written: the folder and the record of its check."""

    folder: Path
    record: ParityRecord


def export_model(
    model: Path | str,
    *,
    output: Path | None = None,
    sources: Sequence[str] | None = None,
    references: Sequence[Sequence[str]] | None = None,
    threads: int | None = None,
) -> Exported:
    """Export a Transformer to CTranslate2 and compare both engines.

    model: a run folder or model directory. output: None = inside the model directory, where `Predictor.load` finds it. sources: texts to
    compare on, with a list of references each where they are known; None = the validation data, or else texts of random tokens.
    Raises ExportError where the model cannot be held or CTranslate2 is missing, ConfigError, DataError, CheckpointError, StorageError.
    """
    version, directory = installed_version(), resolve_model(Path(model))
    loaded = load_model(directory)
    _refuse_what_cannot_be_held(loaded)
    folder = output or export_folder(directory)
    if output is not None and output.exists() and not (output / PARITY).is_file():
        raise ConfigError(f"--output {output} exists and is no export: name a new folder")
    predictor = Predictor.load(directory, threads=threads, engine="torch", probabilities=False)
    examples = _examples(loaded, sources, references)
    records: list[ParityRecord] = []

    def fill(place: Path) -> None:
        from transduce.export.ctranslate2 import write_model

        codecs = as_text_codec(loaded.source_codec, "source"), as_text_codec(loaded.target_codec, "target")
        short = write_model(place, loaded.model, loaded.config.model, codecs=codecs, shortlist=loaded.shortlist)
        request = EngineRequest("ctranslate2", threads=torch.get_num_threads(), probabilities=False)

        def load(compute_type: str) -> EngineChoice:
            shortlisted = frozenset(KINDS if compute_type == SHORTLISTED else ())
            numbers = "int8" if shortlisted else compute_type
            engine = load_engine(place, loaded, request, compute_type=numbers, kinds=(frozenset(KINDS), shortlisted))
            return EngineChoice(engine, "to be compared", forced=True)

        record = ParityRecord(
            format="ctranslate2",
            engine_version=version,
            transduce_version=__version__,
            torch_version=torch.__version__,
            processor=processor_name(),
            model_sha256=model_digest(directory),
            sources=examples.origin,
            agreements=compare_engines(predictor, load, examples, numbers=((SHORTLISTED,) if short else ()) + COMPUTE_TYPES),
        )
        write_json(place / PARITY, record.model_dump(mode="json"))
        records.append(record)

    write_folder(folder, fill)
    return Exported(folder, records[0])


def _refuse_what_cannot_be_held(loaded: LoadedModel) -> None:
    from transduce.export.ctranslate2 import obstacles

    if problems := list(obstacles(loaded.config.model)):
        raise ExportError(f"CTranslate2 cannot hold this model: {'; '.join(problems)}")


def _examples(loaded: LoadedModel, sources: Sequence[str] | None, references: Sequence[Sequence[str]] | None) -> Examples:
    """What to compare on."""
    if sources is None:
        codec = as_text_codec(loaded.source_codec, "source")
        return validation_examples(loaded.config.data) or generated_examples(codec, loaded.config.model.max_source_length)
    if not sources:
        raise DataError("there are no sources to compare the engines on")
    if references is not None and len(references) != len(sources):
        raise DataError(f"{len(sources)} sources and {len(references)} references: one list of references per source is needed")
    lists = None if references is None else [list(texts) for texts in references]
    return Examples(list(sources), lists, f"{len(sources)} sources that were given")
