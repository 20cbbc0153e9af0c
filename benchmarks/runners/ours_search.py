"""transduce's side of a search comparison: `Predictor`, raw sentences in, texts out.

In: a model, prepared pairs, a plan whose settings are `search.batch_tokens`. Out: JSON lines; with --output the texts of the last pass of
each beam width and their lengths in tokens, ends included. The decision to question: tokenizing and joining texts is timed too, as a user's
call does it; other engines get ids.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from plan import LONGEST, Translate, arguments, run_plan

from transduce.config import change_settings
from transduce.predict import Prediction, Predictor


def load(words: argparse.Namespace) -> Predictor:
    """The model as the command line asks for it; an engine is named only where it is not the default."""
    asked = {"precision": words.precision, **({} if words.engine == "auto" else {"engine": words.engine})}
    predictor = Predictor.load(words.model, threads=torch.get_num_threads(), probabilities=False, **asked)  # as for plain lines
    predictor.workers = torch.get_num_threads()
    return predictor if words.device == "cpu" else predictor.to(words.device)


def main() -> None:
    """Predict and tell how fast."""
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto", help="of products: auto, as `transduce predict` has it, fp32 or int8")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", help="write texts to OUTPUT.BEAM.txt and lengths to OUTPUT.BEAM.lengths")
    words = parser.parse_args()
    predictor = load(words)
    lines = (words.pairs / "test.en").read_text(encoding="utf-8").removesuffix("\n").split("\n")[: words.limit]
    forced = {} if words.force is None else {"min_length": words.force, "max_length": words.force}
    found: dict[int, list[Prediction]] = {}

    def make(beam: int, setting: str) -> Translate:
        search = change_settings(predictor.search, {"beam_size": beam, "batch_tokens": int(setting), "max_length": LONGEST, **forced})

        def translate(numbers: Sequence[int]) -> int:
            found[beam] = predictor.predict([lines[number] for number in numbers], search=search)
            return sum(len(prediction.tokens) + 1 for prediction in found[beam])

        return translate

    run_plan(words, make, count=len(lines))
    for beam, predictions in found.items() if words.output else ():
        Path(f"{words.output}.{beam}.txt").write_text("".join(f"{one.text}\n" for one in predictions), encoding="utf-8")
        lengths = (len(one.tokens) + (not one.truncated) for one in predictions)
        Path(f"{words.output}.{beam}.lengths").write_text("".join(f"{length}\n" for length in lengths), encoding="ascii")
    print(json.dumps({"engine": words.engine, "precision": predictor.precision, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
