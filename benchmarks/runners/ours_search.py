"""transduce's side of a search comparison: `Predictor`, raw sentences in, texts out.

In: a model, prepared pairs, a plan whose settings are `search.batch_tokens`. Out: JSON lines; with --output the texts of the last pass of
each beam width. The decision to question: tokenizing and joining texts is timed too, as a user's call does it; other engines get ids.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from plan import LONGEST, Translate, arguments, run_plan

from transduce.config import change_settings
from transduce.predict import Prediction, Predictor


def load(model: Path, threads: int, engine: str) -> Predictor:
    """The engine is named only where it is not the default."""
    return Predictor.load(model, threads=threads) if engine == "auto" else Predictor.load(model, threads=threads, engine=engine)


def main() -> None:
    """Predict and tell how fast."""
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--output", help="write texts to OUTPUT.BEAM.txt")
    words = parser.parse_args()
    predictor = load(words.model, torch.get_num_threads(), words.engine)
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
    print(json.dumps({"engine": words.engine, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
