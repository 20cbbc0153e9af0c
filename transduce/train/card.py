"""The model card: README.md of a model directory, written for whoever is handed the folder.

In: what training knows. Out: Markdown. It names files, not their folders: a model directory travels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transduce.config import RunConfig


USE = (
    "```",
    "transduce predict THIS_FOLDER --input sources.txt --output predictions.txt",
    "```",
    "",
    "```python",
    "from transduce import Predictor",
    "",
    'print(Predictor.load("THIS_FOLDER").predict(["a source"])[0].text)',
    "```",
)
LANGUAGE_MODEL_USE = (
    "```",
    "transduce evaluate THIS_FOLDER --target texts.txt",
    "transduce predict ANOTHER_MODEL --input sources.txt --language-model THIS_FOLDER",
    "```",
)


def model_card(model: nn.Module, config: "RunConfig", metrics: Mapping[str, object]) -> str:
    """Markdown: what it is, how to use it, what it was trained on, what it scored."""
    size = sum(parameter.numel() for parameter in model.parameters())
    corpora = [corpus.name for corpus in config.data.train]
    scores = [f"| {name} | {_figure(value)} |" for name, value in metrics.items()]
    return "\n".join(
        [
            "# A language model" if config.data.source_codec.kind == "none" else "# A sequence-to-sequence model",
            "",
            f"{config.model.encoder.kind} encoder, {config.model.decoder.kind} decoder, {size:,} parameters, trained with transduce"
            + (f" from the preset `{config.preset}`." if config.preset else "."),
            "",
            "## Use",
            "",
            *(LANGUAGE_MODEL_USE if config.data.source_codec.kind == "none" else USE),
            "",
            "## Training",
            "",
            *[f"- data: {name}" for name in corpora],
            f"- codecs: {config.data.source_codec.kind} (source), {config.data.target_codec.kind} (target)",
            f"- seed {config.seed}; all settings are in `config.yaml`",
            "",
            "## Validation",
            "",
            *(["| measure | value |", "|---|---|", *scores] if scores else ["Not validated."]),
            "",
            "The model repeats what its training data holds, errors and biases included. It was measured on the",
            "validation data above only; measure it on your own text before you rely on it.",
            "",
        ]
    )


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
