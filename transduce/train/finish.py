"""The end of a run: which weights become the model.

In: the run folder, the trainer at its last step, its data. Out: run/model and a summary. The decision to question: the mean of the best
checkpoints is measured like any other model and only taken when it is at least as good as the best one alone.
"""

import time
from pathlib import Path

from transduce.data.codec import Codec, as_text_codec
from transduce.data.loader import Loader
from transduce.decode.shortlist import Shortlist
from transduce.errors import CheckpointError
from transduce.train.averaging import mean_of_tensors
from transduce.train.checkpoint import MODEL, RunFolder, load_checkpoint, put_tensors, save_model
from transduce.train.lexicon import learn_shortlist
from transduce.train.storage import read_tensors, verify_folder
from transduce.train.trainer import Trainer
from transduce.train.validation import Validator


def finish_model(
    run: RunFolder, trainer: Trainer, *, loader: Loader, validator: Validator, codecs: tuple[Codec, Codec]
) -> dict[str, object]:
    """Write run/model from the best checkpoint, or the mean of the best; with a shortlist where search asks for one. -> what was taken and
    its figures."""
    folders = _whole([run.folder(step) for step, _ in trainer.state.best])
    model = trainer.evaluated
    metrics, chosen = dict(trainer.metrics), f"step {trainer.state.step}"
    if folders:
        put_tensors(model, read_tensors(folders[0] / MODEL), place=folders[0])
        metrics, chosen = load_checkpoint(folders[0]).metrics, folders[0].name
    averaged = folders[: trainer.settings.average_best]
    if len(averaged) > 1:
        put_tensors(model, mean_of_tensors(read_tensors(folder / MODEL) for folder in averaged), place=run.path)
        measured = validator.measure(model).metrics
        name, sign = trainer.settings.metric, 1 if validator.better == "lower" else -1
        if sign * measured[name] <= sign * metrics[name]:
            metrics, chosen = measured, "mean of " + ", ".join(folder.name for folder in averaged)
        else:
            put_tensors(model, read_tensors(folders[0] / MODEL), place=folders[0])
            chosen += f" (better than the mean of {len(averaged)}: {name} {metrics[name]:.4g}, mean {measured[name]:.4g})"
    began = time.monotonic()
    shortlist = _learned(loader, codecs) if trainer.config.search.shortlist else None
    listed = (
        {} if shortlist is None else {"shortlist": f"of {len(shortlist.candidates):,} source tokens, in {time.monotonic() - began:.1f} s"}
    )
    save_model(run.model, model=model, config=trainer.config, codecs=codecs, metrics=metrics, shortlist=shortlist)
    state = trainer.state
    return {"model": str(run.model), "weights": chosen, "step": state.step, "minutes": round(state.minutes, 2), **listed, **metrics}


def _learned(loader: Loader, codecs: tuple[Codec, Codec]) -> Shortlist:
    """The shortlist of the training pairs, which are texts (`contradictions.py`)."""
    source, target = as_text_codec(codecs[0], "source"), as_text_codec(codecs[1], "target")
    return learn_shortlist(loader.stores, source.vocabulary, target.vocabulary, shared=source.digest == target.digest)


def _whole(folders: list[Path]) -> list[Path]:
    """Those that are there and verify, in order."""
    whole = []
    for folder in folders:
        try:
            verify_folder(folder)
        except CheckpointError:
            continue
        whole.append(folder)
    return whole
