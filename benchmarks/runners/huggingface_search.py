"""Hugging Face transformers' side of a search comparison: `generate` of MarianMTModel with a model of the same shape.

In: a shape, prepared pairs, a plan whose settings are sentences in a batch. Out: JSON lines. Runs in the environment of that peer. The
weights are random: what a step costs does not depend on them, and the length of each output is given (--force, --lengths).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_train import build
from ids import EOS, PAD, padded, read_rows
from plan import LONGEST, Translate, arguments, run_plan
from torch import Tensor
from transformers import LogitsProcessorList


class EndAt:
    """A logits processor that ends each output after a length of its own.

    lengths: tokens of each sentence of a batch, the end included. beam: rows of each.
    """

    def __init__(self, lengths: Sequence[int], beam: int, device: str) -> None:
        self.lengths = torch.tensor(lengths, device=device).repeat_interleave(beam)

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """tokens (B W, 1 + T), the first one starts -> scores (B W, V) that leave nothing but the end, or anything but the end."""
        scores[:, EOS] = -torch.inf
        ends = self.lengths <= tokens.shape[1]
        scores[ends] = -torch.inf
        scores[ends, EOS] = 0
        return scores


def read_lengths(words: argparse.Namespace, beam: int, count: int) -> list[int]:
    """Tokens of each output, the end included."""
    if words.lengths is None:
        return [words.force or LONGEST] * count
    return [int(line) for line in Path(f"{words.lengths}.{beam}.lengths").read_text(encoding="ascii").split()]


def main() -> None:
    """Generate and tell how fast."""
    parser = arguments(__doc__)
    parser.add_argument("--shape", type=json.loads, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--lengths", help="LENGTHS.BEAM.lengths has the tokens of each output")
    words = parser.parse_args()
    torch.manual_seed(1)
    model, sources = build(words.shape).eval().to(words.device), read_rows(words.pairs, "test", "en")[: words.limit]

    def make(beam: int, setting: str) -> Translate:
        lengths = read_lengths(words, beam, len(sources))
        options = {"num_beams": beam, "do_sample": False, "early_stopping": beam > 1, "length_penalty": 1.0, "max_new_tokens": LONGEST + 1}

        def translate(numbers: Sequence[int]) -> int:
            order, size, tokens = sorted(numbers, key=lambda number: -len(sources[number])), int(setting), 0
            for first in range(0, len(order), size):
                batch = order[first : first + size]
                source = padded([sources[number] for number in batch]).to(words.device)
                ends = LogitsProcessorList([EndAt([lengths[number] for number in batch], beam, words.device)])
                with torch.inference_mode():
                    model.generate(input_ids=source, attention_mask=source.ne(PAD).long(), logits_processor=ends, **options)
                tokens += sum(lengths[number] for number in batch)
            return tokens

        return translate

    run_plan(words, make, count=len(sources))
    print(json.dumps({"engine": "transformers", "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
