"""Which engine a predictor uses: the one that the user names, else another than torch where an export is there and was checked.

In: model directories and what the user asks. Out: an `EngineChoice` with its reason. The decision to question: an export counts only
for the very weights and the very version of the engine that its parity check was made with; anything else is left to torch, and said.
"""

import importlib.metadata
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transduce.data.codec import as_text_codec
from transduce.engines import ENGINES, EngineChoice, EngineName
from transduce.errors import CheckpointError, ConfigError, ExportError
from transduce.export.record import COMPUTE_TYPES, KINDS, SHORTLISTED, ParityRecord, read_record
from transduce.processor import cpu_flags
from transduce.train.checkpoint import MODEL, LoadedModel
from transduce.train.precision import ProductKind
from transduce.train.storage import MANIFEST, verify_folder
from transduce.tree import listed, nearest

if TYPE_CHECKING:
    from transduce.export.engine import CTranslate2Engine

EXPORTS = "export"
CTRANSLATE2 = "ctranslate2"
INSTALL = "pip install 'transduce[export]'"
QUICK_INT8 = frozenset({"avx2", "asimd"})
"""Instruction sets with which products of 8-bit numbers were faster than those of float32."""


@dataclass(frozen=True)
class EngineRequest:
    """What the user asks. precision: of products, as for torch. probabilities: whether the probability of each token is wanted."""

    wanted: EngineName = "auto"
    precision: ProductKind = "auto"
    threads: int = 1
    probabilities: bool = True


def export_folder(model_directory: Path) -> Path:
    """Where `predict` looks for an export: inside the model directory, so that it is copied along."""
    return model_directory / EXPORTS / CTRANSLATE2


def model_digest(model_directory: Path) -> str:
    """SHA-256 of a model's weights, from its manifest, which `load_model` has verified."""
    manifest = json.loads((model_directory / MANIFEST).read_text(encoding="utf-8"))
    return str(manifest["files"][MODEL]["sha256"])


def installed_version() -> str:
    """Of CTranslate2. Raises ExportError where it is not installed."""
    if importlib.util.find_spec(CTRANSLATE2) is None:
        raise ExportError(f"ctranslate2 is not installed: {INSTALL}")
    return importlib.metadata.version(CTRANSLATE2)


def choose_engine(directories: Sequence[Path], loaded: Sequence[LoadedModel], request: EngineRequest) -> EngineChoice:
    """The engine for the models of an ensemble, mostly one.

    Raises ConfigError for an unknown name, ExportError where an engine is named that cannot be used.
    """
    if request.wanted not in ENGINES:
        raise ConfigError(f"--engine {request.wanted} is not allowed: {listed(ENGINES)}{nearest(request.wanted, ENGINES)}")
    if request.wanted == "torch":
        return EngineChoice(None, "asked for")
    if request.precision == "bf16":
        if request.wanted == CTRANSLATE2:
            raise ExportError("--engine ctranslate2: bf16 products are torch's; ctranslate2 has fp32 and int8")
        return EngineChoice(None, "bf16 products are torch's")
    if request.wanted == "auto" and not any(export_folder(directory).exists() for directory in directories):
        return EngineChoice()
    try:
        return _exported(directories, loaded[0], request)
    except (ExportError, CheckpointError) as error:
        if request.wanted == CTRANSLATE2:
            raise ExportError(f"--engine ctranslate2: {error}") from None
        return EngineChoice(None, str(error))


def _exported(directories: Sequence[Path], loaded: LoadedModel, request: EngineRequest) -> EngineChoice:
    """The engine of an export. Raises ExportError, CheckpointError with the reason why it cannot be used."""
    record, forced = usable_record(directories), request.wanted == CTRANSLATE2
    compute_type, checked = choose_numbers(record, request.precision)
    shortlisted = _shortlisted(record, compute_type)
    if not checked | shortlisted and not forced:
        raise ExportError(f"the export failed its parity check with {compute_type}")
    kinds = (checked if checked | shortlisted else frozenset(KINDS)), shortlisted
    engine = load_engine(export_folder(directories[0]), loaded, request, compute_type=compute_type, kinds=kinds)
    verdict = f"its export passed the parity check on {record.sources}" if checked else "its export FAILED the parity check"
    return EngineChoice(engine, f"asked for; {verdict}" if forced else verdict, forced)


def usable_record(directories: Sequence[Path]) -> ParityRecord:
    """The record of the one model's export. Raises ExportError, CheckpointError."""
    version, folder = installed_version(), export_folder(directories[0])
    if len(directories) > 1:
        raise ExportError("an ensemble is searched with torch only")
    if not folder.exists():
        raise ExportError(f"{folder} is not there: transduce export {directories[0]} makes it")
    verify_folder(folder)
    record = read_record(folder)
    if record.model_sha256 != model_digest(directories[0]):
        raise ExportError(f"{folder} is of other weights: transduce export {directories[0]} makes it anew")
    if record.engine_version != version:
        raise ExportError(f"{folder} was checked with ctranslate2 {record.engine_version}, installed is {version}: export again")
    return record


def choose_numbers(record: ParityRecord, precision: ProductKind) -> tuple[str, frozenset[str]]:
    """The numbers to compute with, and the kinds of search that passed with them. Raises ExportError where the processor lacks them.

    auto = those that passed most kinds of search, of equals 8 bits where they are quick.
    """
    import ctranslate2

    flags, supported = cpu_flags(), ctranslate2.get_supported_compute_types("cpu")
    quick = not flags or bool(flags & QUICK_INT8)
    known: dict[ProductKind, tuple[str, ...]] = {"fp32": ("float32",), "int8": ("int8",)}
    wanted = known.get(precision, COMPUTE_TYPES if quick else ("float32",))
    possible = [name for name in wanted if name in supported]
    if not possible:
        raise ExportError(f"ctranslate2 has no {' or '.join(wanted)} on this processor")
    best = max(possible, key=lambda name: len(record.passed(name) | _shortlisted(record, name)))
    return best, record.passed(best)


def _shortlisted(record: ParityRecord, compute_type: str) -> frozenset[str]:
    """The kinds of search that passed with these numbers and a shortlist."""
    return record.passed(SHORTLISTED) if compute_type == "int8" else frozenset()


def load_engine(
    folder: Path, loaded: LoadedModel, request: EngineRequest, *, compute_type: str, kinds: tuple[frozenset[str], frozenset[str]]
) -> "CTranslate2Engine":
    """The exported model in memory. kinds: `checked` and `shortlisted` of its options."""
    from transduce.export.engine import CTranslate2Engine, CTranslate2Options  # here: the engine is imported only where it is used

    options = CTranslate2Options(compute_type, request.threads, request.probabilities, loaded.config.model.reverse_source, *kinds)
    codecs = as_text_codec(loaded.source_codec, "source"), as_text_codec(loaded.target_codec, "target")
    return CTranslate2Engine(folder, codecs=codecs, options=options)
