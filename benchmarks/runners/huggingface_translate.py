"""The test sentences as a saved MarianMTModel translates them with a beam of 5: ids in, ids out, one line for each sentence.

In: prepared pairs and the folder of a model. Out: a file. Runs in the environment of that peer.
"""

import argparse
from pathlib import Path

import torch
from ids import EOS, PAD, padded, read_rows
from plan import LONGEST
from transformers import MarianMTModel

BATCH = 32


def main() -> None:
    """Translate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    words = parser.parse_args()
    model, sources = MarianMTModel.from_pretrained(words.model).eval(), read_rows(words.pairs, "test", "en")
    order = sorted(range(len(sources)), key=lambda number: -len(sources[number]))
    lines = [""] * len(sources)
    for first in range(0, len(order), BATCH):
        numbers = order[first : first + BATCH]
        source = padded([sources[number] for number in numbers])
        with torch.inference_mode():
            found = model.generate(input_ids=source, attention_mask=source.ne(PAD).long(), num_beams=5, max_new_tokens=LONGEST)
        for number, row in zip(numbers, found[:, 1:].tolist(), strict=True):
            lines[number] = " ".join(str(token) for token in row if token not in (EOS, PAD))
    words.output.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    print('{"engine": "transformers"}')


if __name__ == "__main__":
    main()
