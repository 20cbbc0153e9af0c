"""Hugging Face transformers' side of a search comparison: `generate` of MarianMTModel with a model of the same shape.

In: a shape, prepared pairs, a plan whose settings are sentences in a batch. Out: JSON lines. Runs in the environment of that peer. The
weights are random: what a step costs does not depend on them, and the length of the output is forced (--force).
"""

import json
from collections.abc import Sequence

import torch
from huggingface_train import build
from ids import EOS, PAD, padded, read_rows
from plan import LONGEST, Translate, arguments, run_plan


def main() -> None:
    """Generate and tell how fast."""
    parser = arguments(__doc__)
    parser.add_argument("--shape", type=json.loads, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    words = parser.parse_args()
    torch.manual_seed(1)
    model, sources = build(words.shape).eval().to(words.device), read_rows(words.pairs, "test", "en")[: words.limit]
    lengths = {"max_new_tokens": LONGEST} if words.force is None else {"min_new_tokens": words.force, "max_new_tokens": words.force}

    def make(beam: int, setting: str) -> Translate:
        options = {"num_beams": beam, "do_sample": False, "early_stopping": beam > 1, "length_penalty": 1.0, **lengths}

        def translate(numbers: Sequence[int]) -> int:
            order, size, tokens = sorted(numbers, key=lambda number: -len(sources[number])), int(setting), 0
            for first in range(0, len(order), size):
                source = padded([sources[number] for number in order[first : first + size]]).to(words.device)
                with torch.inference_mode():
                    found = model.generate(input_ids=source, attention_mask=source.ne(PAD).long(), **options)
                tokens += int((found[:, 1:].ne(PAD) & found[:, 1:].ne(EOS)).sum()) + len(found)
            return tokens

        return translate

    run_plan(words, make, count=len(sources))
    print(json.dumps({"engine": "transformers", "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
