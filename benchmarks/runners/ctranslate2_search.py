"""CTranslate2's side of a search comparison, with a model that `transduce export --format ctranslate2` wrote.

In: the exported folder, sentences as ids, a plan whose settings are `WORKERSxTHREADS:BATCH UNIT`, as in `2x1:64 examples`. Out: JSON lines;
with --output the ids of the last pass of each beam width. Runs in the environment of that peer. Sentences come as tokens: nothing is
tokenized or joined in the time that is measured.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
from plan import LONGEST, Translate, arguments, run_plan

EOS = 2


def vocabulary_of(model: Path, end: str) -> list[str]:
    """Names by id."""
    shared, own = model / "shared_vocabulary.json", model / f"{end}_vocabulary.json"
    names: list[str] = json.loads((own if own.exists() else shared).read_text(encoding="utf-8"))
    return names


def main() -> None:
    """Translate and tell how fast."""
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True, help="a sentence in ids of the model's codec on each line")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--output", help="write ids to OUTPUT.BEAM.ids")
    words = parser.parse_args()
    names = vocabulary_of(words.model, "source")
    written = {name: number for number, name in enumerate(vocabulary_of(words.model, "target"))}
    lines = words.sources.read_text(encoding="ascii").splitlines()[: words.limit]
    sources = [[names[int(word)] for word in line.split()] + [names[EOS]] for line in lines]
    limits = {"max_decoding_length": LONGEST}
    if words.force is not None:
        limits = {"min_decoding_length": words.force, "max_decoding_length": words.force}
    found: dict[int, list[list[str]]] = {}

    def make(beam: int, setting: str) -> Translate:
        split, _, batch = setting.partition(":")
        workers, threads = map(int, split.split("x"))
        size, unit = batch.split()
        where = {"device": "cpu", "compute_type": words.compute_type, "inter_threads": workers, "intra_threads": threads}
        translator = ctranslate2.Translator(str(words.model), **where)
        options = {"beam_size": beam, "max_batch_size": int(size), "batch_type": unit, **limits}

        def translate(numbers: Sequence[int]) -> int:
            results = translator.translate_batch([sources[number] for number in numbers], **options)
            found[beam] = [result.hypotheses[0] for result in results]
            return sum(len(row) + 1 for row in found[beam])

        return translate

    run_plan(words, make, count=len(sources))
    for beam, rows in found.items() if words.output else ():
        text = "".join(" ".join(str(written[name]) for name in row) + "\n" for row in rows)
        Path(f"{words.output}.{beam}.ids").write_text(text, encoding="ascii")
    print(json.dumps({"engine": f"ctranslate2 {ctranslate2.__version__}", "compute_type": words.compute_type}))


if __name__ == "__main__":
    main()
