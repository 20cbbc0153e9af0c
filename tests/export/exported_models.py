"""Tiny random Transformers whose outputs end after a few tokens, exported, for the tests of this folder."""

from pathlib import Path
from typing import Any

import torch

from transduce.config import RunConfig, parse_config
from transduce.data.text import CharactersConfig, fit_text_codec
from transduce.decode.options import SearchConfig
from transduce.model.frontends import Vocabulary
from transduce.model.heads import token_head
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.model.transformer import TransformerConfig
from transduce.train.checkpoint import save_model

SOURCE = fit_text_codec(CharactersConfig(), ["abcdefgh "], seed=0)
TARGET = fit_text_codec(CharactersConfig(), ["stuvwxyz"], seed=0)
TEXTS = ["a", "abc", "hgfe dcba", "", "bad cab", "fed ", "abcdefgh abcdefgh", "hh", "a b c d", "cafe", "abc", "d?"]
LONGEST = 40
TINY = {"layers": 2, "width": 32, "heads": 4, "feed_forward": 48}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "learned": {"positions": "learned", "max_positions": LONGEST},
    "rope": {"positions": "rope"},
    "relative": {"positions": "relative", "relative_buckets": 8, "relative_max_distance": 6},
    "no positions": {"positions": "none"},
    "post-norm": {"norm_place": "post"},
    "rms": {"norm": "rms_norm"},
    "rms post-norm": {"norm": "rms_norm", "norm_place": "post"},
    "gelu": {"activation": "gelu"},
    "swish": {"activation": "swish"},
    "swiglu": {"activation": "swiglu"},
    "grouped": {"key_value_heads": 2},
    "multi-query rope": {"key_value_heads": 1, "positions": "rope"},
}
"""Settings of both stacks, by name."""
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "untied": ({}, {}, {"tie": "none"}),
    "narrow embeddings": ({}, {}, {"embedding_size": 20}),
    "narrow embeddings untied": ({}, {}, {"embedding_size": 20, "tie": "none"}),
    "wide encoder": ({"width": 64, "heads": 8, "layers": 1}, {}, {}),
    "unlike stacks": (
        {"positions": "rope", "norm_place": "post"},
        {"positions": "learned", "activation": "gelu", "key_value_heads": 1},
        {},
    ),
    "reversed": ({}, {}, {"reverse_source": True}),
}
"""Settings of the encoder, of the decoder and of the model around them, by name."""
LIVELY = {
    "learned": (3, 1.2),
    "rope": (2, 0.6),
    "relative": (3, 1.2),
    "no positions": (1, 1.2),
    "post-norm": (6, 1.2),
    "rms": (0, 0.6),
    "rms post-norm": (4, 1.2),
    "swiglu": (0, 0.6),
    "grouped": (4, 1.2),
    "multi-query rope": (3, 0.6),
    "untied": (3, 0.6),
    "narrow embeddings": (1, 0.6),
    "narrow embeddings untied": (6, 0.6),
    "wide encoder": (5, 0.6),
    "unlike stacks": (4, 0.6),
    "reversed": (0, 0.6),
}
"""Seeds, and how much the end is preferred, for which outputs have several lengths and are not all alike."""


def model_config(encoder: dict[str, Any], decoder: dict[str, Any], around: dict[str, Any]) -> ModelConfig:
    """Tiny stacks with some settings changed."""
    longest = {"max_source_length": LONGEST, "max_target_length": LONGEST}
    ends = TransformerConfig(**{**TINY, **encoder}), TransformerConfig(**{**TINY, **decoder})
    return ModelConfig(encoder=ends[0], decoder=ends[1], **{"embedding_size": 32, **longest, **around})


def named_config(name: str) -> ModelConfig:
    """The configuration of an entry of `OPTIONS` or `SHAPES`."""
    return model_config(OPTIONS[name], OPTIONS[name], {}) if name in OPTIONS else model_config(*SHAPES[name])


def random_model(config: ModelConfig, *, seed: int = 0, end: float = 1.2, source: Vocabulary = SOURCE.vocabulary) -> Seq2Seq:
    """Sublayers that outweigh the residual (else outputs repeat one token), biases that are not zero, special tokens that are rare.

    end: how much the end is preferred.
    """
    torch.manual_seed(seed)
    model = build_model(config, source, TARGET.vocabulary).eval()
    special, head = TARGET.vocabulary, token_head(model.head)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "relative" in name:
                parameter.copy_(torch.randn_like(parameter))
            elif "layers" in name or "pasts" in name or "memory" in name:
                parameter.mul_(4)
        head.weight.mul_(0.8)
        head.bias[special.eos_id] += end
        head.bias[[special.pad_id, special.bos_id, special.unk_id]] -= 15
    return model


def named_model(name: str) -> Seq2Seq:
    """The random model of an entry of `OPTIONS` or `SHAPES`."""
    seed, end = LIVELY.get(name, (0, 1.2))
    return random_model(named_config(name), seed=seed, end=end)


def save(directory: Path, config: ModelConfig, *, search: SearchConfig | None = None) -> Path:
    """A model directory whose validation data is not there."""
    pairs = {"path": str(directory / "nowhere.tsv")}
    lengths = {"max_source_tokens": LONGEST, "max_target_tokens": LONGEST}
    run: RunConfig = parse_config({"run_dir": "run", "data": {"train": pairs, "valid": pairs, **lengths}, "train": {"max_steps": 1}})
    run = run.model_copy(update={"model": config, "search": search or SearchConfig(early_stop="full", max_length=12)})
    save_model(directory, model=random_model(config, seed=3, end=0.6), config=run, codecs=(SOURCE, TARGET), metrics={})
    return directory
