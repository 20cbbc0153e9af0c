"""Toolkits that are run by their own command: JoeyNMT, eole and OpenNMT-py, with the model of benchmarks/shape.py.

In: prepared pairs, a shape, the interpreter of a peer. Out: a `Side` whose configuration file has been written beside the pairs, and
which reads the toolkit's own progress lines: target tokens a second, padding not counted, as all three report them.

The decision to question: sentences are the ids as words, so each of them is told a vocabulary of digits and no tokenizer. Batches are
filled as each toolkit does at 4,096 tokens; JoeyNMT does not sort by length, and half of what it computes is padding.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from alternate import Record, Side
from pairs import UNK, Pairs
from runners.plan import LONGEST
from shape import Shape

NEVER = 10**9
VOCABULARY = "vocabulary.txt"
SPECIAL = {
    "joeynmt": ("<unk>", "<pad>", "<s>", "</s>"),
    "opennmt": ("<unk>", "<blank>", "<s>", "</s>"),
    "eole": ("<unk>", "<blank>", "<s>", "</s>"),
}


def toolkit_side(name: str, python: Path, *, pairs: Pairs, shape: Shape, steps: int, every: int) -> Side:
    """A training run of `steps` updates."""
    place = pairs.folder / name
    place.mkdir(exist_ok=True)
    write_vocabulary(name, pairs, place / VOCABULARY)
    tree = TREES[name](pairs, shape, place)
    progress(name, tree, steps=steps, every=every)
    config = place / f"{shape.kind}-{steps}.yaml"
    config.write_text(json.dumps(tree, indent=1), encoding="utf-8")  # JSON is YAML
    return Side(name, command(name, python, config), read=READERS[name])


def write_vocabulary(name: str, pairs: Pairs, path: Path) -> Path:
    """Its special tokens in its order, then our ids as words. OpenNMT's format has a count beside each."""
    words = [*SPECIAL[name], *map(str, range(UNK + 1, pairs.vocabulary))]
    count = "" if name == "joeynmt" else "\t1"
    path.write_text("".join(f"{word}{count}\n" for word in words), encoding="utf-8")
    return path


def command(name: str, python: Path, config: Path) -> tuple[str, ...]:
    """How the toolkit is started."""
    quiet = (str(python), "-W", "ignore")
    if name == "joeynmt":
        return (*quiet, "-m", "joeynmt", "train", str(config), "--skip-test")
    if name == "opennmt":
        return (*quiet, str(python.parent / "onmt_train"), "-config", str(config))
    return (*quiet, str(python.parent / "eole"), "train", "-config", str(config))


def progress(name: str, tree: Record, *, steps: int, every: int) -> None:
    """Write into the configuration when it reports and ends."""
    if name == "joeynmt":
        tree["training"] |= {"updates": steps, "logging_freq": every, "validation_freq": NEVER}
    elif name == "opennmt":
        tree |= {"train_steps": steps, "report_every": every, "valid_steps": NEVER, "save_checkpoint_steps": NEVER}
    else:
        tree["report_every"] = every
        tree["training"] |= {"train_steps": steps, "valid_steps": NEVER, "save_checkpoint_steps": NEVER}


def joeynmt_tree(pairs: Pairs, shape: Shape, place: Path) -> Record:
    """JoeyNMT's configuration; the recurrent one is its Bahdanau model, which attends after the cell and feeds the result back."""
    side = {"max_length": 256, "level": "word", "voc_min_freq": 1, "voc_file": str(place / VOCABULARY)}
    special = {f"{key}_token": word for key, word in zip(("unk", "pad", "bos", "eos"), SPECIAL["joeynmt"], strict=True)}
    numbers = {f"{key}_id": number for number, key in enumerate(("unk", "pad", "bos", "eos"))}
    files = {split: str(pairs.folder / f"{name}.ids") for split, name in (("train", "train"), ("dev", "val"))}
    ends = {"src": {**side, "lang": "en"}, "trg": {**side, "lang": "de"}}
    return {
        "name": "benchmark",
        "joeynmt_version": "2.3.0",
        "model_dir": str(place / "model"),
        "use_cuda": False,
        "fp16": False,
        "random_seed": 1,
        "data": {**files, "dataset_type": "plain", **ends, "special_symbols": {**special, **numbers}},
        "testing": {"n_best": 1, "beam_size": 1, "batch_size": 64, "batch_type": "sentence", "max_output_length": 8, "eval_metrics": []},
        "training": {
            "optimizer": "adam",
            "adam_betas": [0.9, 0.98],
            "normalization": "tokens",
            "learning_rate": 0.001,
            "learning_rate_min": 0.0001,  # in digits: its YAML reader takes 1e-8 for a text
            "learning_rate_warmup": 400,
            "scheduling": "warmupinversesquareroot",
            "loss": "crossentropy",
            "label_smoothing": shape.label_smoothing,
            "batch_size": shape.batch_tokens,
            "batch_type": "token",
            "early_stopping_metric": "loss",
            "epochs": NEVER,
            "overwrite": True,
            "shuffle": True,
            "print_valid_sents": [],
            "keep_best_ckpts": -1,
        },
        "model": joeynmt_model(shape),
    }


def joeynmt_model(shape: Shape) -> Record:
    """The two ends, with all embeddings tied."""
    embeddings = {"embedding_dim": shape.width, "scale": shape.kind == "transformer", "dropout": shape.dropout}
    tied = {"initializer": "xavier_uniform", "tied_embeddings": True, "tied_softmax": True}
    if shape.kind == "transformer":
        sizes = {"num_layers": shape.layers, "num_heads": shape.heads, "hidden_size": shape.width, "ff_size": shape.feed_forward}
        end = {
            "type": "transformer",
            **sizes,
            "embeddings": embeddings,
            "dropout": shape.dropout,
            "layer_norm": "pre",
            "activation": "relu",
        }
        return {**tied, "encoder": end, "decoder": end}
    one = {
        "type": "recurrent",
        "rnn_type": "lstm",
        "num_layers": 1,
        "hidden_size": shape.width,
        "embeddings": embeddings,
        "dropout": shape.dropout,
    }
    feeding = {"attention": "bahdanau", "input_feeding": True, "init_hidden": "bridge", "hidden_dropout": shape.dropout}
    return {**tied, "encoder": {**one, "bidirectional": True}, "decoder": {**one, **feeding}}


def corpora(pairs: Pairs) -> Record:
    """Files of OpenNMT-py and eole."""
    splits = {"corpus_1": "train", "valid": "val"}
    return {
        key: {f"path_{end}": str(pairs.ids(split, lang)) for end, lang in (("src", "en"), ("tgt", "de"))} for key, split in splits.items()
    }


def opennmt_common(pairs: Pairs, shape: Shape, place: Path) -> tuple[Record, Record]:
    """What OpenNMT-py and its successor eole call the same: the outer settings, and those of training."""
    size, vocabulary = pairs.vocabulary, str(place / VOCABULARY)
    vocabularies = {"src_vocab": vocabulary, "tgt_vocab": vocabulary, "src_vocab_size": size, "tgt_vocab_size": size}
    outer = {**vocabularies, "vocab_size_multiple": 8, "share_vocab": True, "seed": 1, "overwrite": True, "save_data": str(place / "data")}
    batches = {"batch_type": "tokens", "batch_size": shape.batch_tokens, "valid_batch_size": shape.batch_tokens, "batch_size_multiple": 8}
    feeding = {"bucket_size": pairs.sentences, "num_workers": 0, "accum_count": [1], "accum_steps": [0], "normalization": "tokens"}
    rates = {"optim": "adam", "adam_beta2": 0.98, "learning_rate": 0.64, "warmup_steps": 400, "decay_method": "noam", "max_grad_norm": 0}
    loss = {
        "dropout": [shape.dropout],
        "attention_dropout": [shape.dropout],
        "dropout_steps": [0],
        "label_smoothing": shape.label_smoothing,
    }
    return {**outer, "data": corpora(pairs)}, {**batches, **feeding, **rates, **loss, "keep_checkpoint": -1}


def opennmt_tree(pairs: Pairs, shape: Shape, place: Path) -> Record:
    """OpenNMT-py's configuration."""
    outer, training = opennmt_common(pairs, shape, place)
    sizes = {"layers": shape.layers, "heads": shape.heads, "hidden_size": shape.width, "word_vec_size": shape.width}
    kinds = {"encoder_type": "transformer", "decoder_type": "transformer", "position_encoding": True, "transformer_ff": shape.feed_forward}
    tied = {"share_embeddings": True, "share_decoder_embeddings": True, "param_init": 0, "param_init_glorot": True}
    return {**outer, **training, **sizes, **kinds, **tied, "world_size": 1, "model_dtype": "fp32", "save_model": str(place / "model")}


def eole_tree(pairs: Pairs, shape: Shape, place: Path) -> Record:
    """eole's configuration."""
    outer, training = opennmt_common(pairs, shape, place)
    sizes = {"layers": shape.layers, "heads": shape.heads, "hidden_size": shape.width, "transformer_ff": shape.feed_forward}
    embeddings = {"word_vec_size": shape.width, "position_encoding_type": "SinusoidalInterleaved"}
    tied = {"share_embeddings": True, "share_decoder_embeddings": True}
    more = {
        "world_size": 0,
        "gpu_ranks": [],
        "model_path": str(place / "model"),
        "compute_dtype": "fp32",
        "param_init_method": "xavier_uniform",
    }
    model = {"architecture": "transformer", **sizes, **tied, "embeddings": embeddings}
    return {**outer, "n_sample": 0, "tensorboard": False, "transforms": [], "training": {**training, **more}, "model": model}


def eole_until(pairs: Pairs, shape: Shape, place: Path, *, warmup: int, save_every: int) -> Path:
    """A configuration of eole that goes on until it is stopped and keeps a model of every few updates as `place`/step_N. Its rate rises to
    0.001 during the warm-up and falls with the root of the updates."""
    write_vocabulary("eole", pairs, place / VOCABULARY)
    tree = eole_tree(pairs, shape, place)
    progress("eole", tree, steps=NEVER, every=save_every)
    rate = 0.001 * (shape.width * warmup) ** 0.5  # what `noam` divides by is in it
    tree["training"] |= {"model_path": str(place), "save_checkpoint_steps": save_every, "learning_rate": rate, "warmup_steps": warmup}
    config = place / "config.yaml"
    config.write_text(json.dumps(tree, indent=1), encoding="utf-8")
    return config


def eole_predict(pairs: Pairs, model: Path, output: Path) -> tuple[str, ...]:
    """The words with which eole translates the test sentences with beam 5, ids in, ids out."""
    files = ("-model_path", str(model), "-src", str(pairs.ids("test", "en")), "-output", str(output))
    return ("predict", *files, *f"-beam_size 5 -max_length {LONGEST} -batch_size 32 -batch_type sents -world_size 0".split())


def read_joeynmt(line: str) -> Record | None:
    """`Step:  20, Batch Loss: ..., Tokens per Sec:  690, Lr: ...`"""
    found = re.search(r"Step:\s+(\d+),.*Tokens per Sec:\s+([\d.]+)", line)
    return found and {"step": int(found[1]), "tokens_per_second": float(found[2])}


def read_opennmt(line: str) -> Record | None:
    """`Step 20/40; acc: ...; bsz: 3100/3400/210; 1520/1670 tok/s; 8 sec;`, source before target."""
    found = re.search(r"Step\s+(\d+)/.*?\s(\d+)/\s*(\d+) tok/s", line)
    return found and {"step": int(found[1]), "tokens_per_second": float(found[3])}


TREES: dict[str, Callable[[Pairs, Shape, Path], Record]] = {"joeynmt": joeynmt_tree, "opennmt": opennmt_tree, "eole": eole_tree}
READERS: dict[str, Callable[[str], Record | None]] = {"joeynmt": read_joeynmt, "opennmt": read_opennmt, "eole": read_opennmt}
