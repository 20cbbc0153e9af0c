"""docs/results-media.md: speech and captions.

In: the records that results_media.py makes. Out: the page. A figure that was not measured is printed as "not measured yet". The
decision to question: published figures stand apart with their source, because nobody here has run those systems.
"""

from pathlib import Path
from typing import Any

from results_run import MISSING, Records

SPEECH_ROWS = (
    ("an4-las", "AN4, listen-attend-spell: pyramid of LSTMs, location-aware attention, CTC"),
    ("an4-las-no-ctc", "AN4, listen-attend-spell, trained and searched without CTC"),
    ("an4-transformer", "AN4, Transformer, CTC"),
    ("an4-conformer", "AN4, Conformer, CTC"),
    ("fsdd", "Spoken digits (FSDD), Conformer, CTC"),
)
CAPTION_ROWS = (
    ("flickr8k-show-tell", "Show and Tell: no attention"),
    ("flickr8k-attend", "Show, Attend and Tell"),
    ("flickr8k-transformer", "Transformer"),
)
HEAD = """# Results on speech and pictures

Written by `python scripts/results_media.py table` from docs/results/*.json; made by `make results-media`. The checkpoint and every setting
were chosen on the validation set only. The data sets are not part of this repository.
"""
SPEECH = """## Speech

AN4: 848 recordings (38 minutes) to train on, 91 of the test set's 130 (three speakers of the official test are not in this copy), no
language model, characters. Published on the whole test set: ESPnet's Transformer with CTC 7.4 to 9.2 % WER with speed perturbation and
BPE; a DeepSpeech2-like CTC model 9.6 %. FSDD: takes 0 to 2 of each digit and speaker are the test.

| data, model | WER % val | WER % test | CER % test | sub / ins / del | real-time factor | training | machine |
|---|---|---|---|---|---|---|---|
"""
CTC = """### The effect of CTC

In training: the row of listen-attend-spell without CTC above has the same minutes, seed and settings as the one with it. In search: the
same models, searched with the decoder alone, with both (0.4 of the score from CTC, as above), and with the CTC layer alone (WER %).

| model | val: decoder | both | CTC | test: decoder | both | CTC |
|---|---|---|---|---|---|---|
"""
FUSION = """### A language model in search

`transduce train examples/speech/an4-lm.yaml data.target_codec.path=RUN` learns from the 848 training transcripts, as the decoder did:
perplexity 2.87 a character after four minutes. In the Conformer's search (`--language-model`) it helped nothing: on validation 14.0 % WER
without it, 14.9, 14.5, 14.4 and 15.1 with weights of 0.1, 0.2, 0.3 and 0.5. Scores per token (`search.length_penalty=average`) gave 13.4
without and 13.5 with it (0.3), and on test 9.0 and 8.8. It would take more text of the kind than the transcripts.
"""
CAPTIONS = """## Captions

Flickr8k at 128 x 128 pixels, 6,000 photographs, everything learned from scratch; 500 test photographs, five references each. CIDEr-D in
percent. "With other pictures" is the control: CIDEr-D of the same model, shown the photograph that stands half the set away. Copied: the
share of captions that stand word for word in the training data.

| model | BLEU-1 | BLEU-4 | ROUGE-L | CIDEr-D | with other pictures | different captions | copied | training | machine |
|---|---|---|---|---|---|---|---|---|---|
"""


def write_pages(records: Records, root: Path) -> list[Path]:
    """Write docs/results-media.md. -> what was written."""
    page = root / "docs" / "results-media.md"
    speech = "\n".join(_speech_row(records.get(name), label) for name, label in SPEECH_ROWS)
    captions = "\n".join(_caption_row(records.get(name), label) for name, label in CAPTION_ROWS)
    ctc = "\n".join(_ctc_row(records[name], label) for name, label in SPEECH_ROWS if "searches" in records.get(name, {}).get("test", {}))
    commands = "\n".join(f"### {name}\n\n```\n{record['command']}\n```\n" for name, record in records.items())
    speech = f"{SPEECH}{speech}\n\n{CTC}{ctc}\n\n{FUSION}"
    page.write_text(f"{HEAD}\n{speech}\n{CAPTIONS}{captions}\n\n## Commands\n\n{commands}", encoding="utf-8")
    return [page]


def _speech_row(record: dict[str, Any] | None, label: str) -> str:
    if record is None:
        return f"| {label} | {MISSING} |" + " |" * 6
    test = record["test"]
    wer = test["scores"]["wer"]
    counts = " / ".join(f"{wer[name]:.0f}" for name in ("substitutions", "insertions", "deletions"))
    cells = [
        f"{record['valid']['scores']['wer']['value']:.1f}",
        f"{wer['value']:.1f}",
        f"{test['scores']['cer']['value']:.1f}",
        counts,
        f"{test['seconds'] / test['sound_seconds']:.3f}",
        *_circumstances(record),
    ]
    return f"| {label} | {' | '.join(cells)} |"


def _ctc_row(record: dict[str, Any], label: str) -> str:
    """WER of the three searches on both splits."""
    cells = []
    for split in ("valid", "test"):
        others, own = record[split]["searches"], record[split]["scores"]
        cells += [f"{scores['wer']['value']:.1f}" for scores in (others["attention"]["scores"], own, others["ctc"]["scores"])]
    return f"| {label} | {' | '.join(cells)} |"


def _caption_row(record: dict[str, Any] | None, label: str) -> str:
    if record is None:
        return f"| {label} | {MISSING} |" + " |" * 8
    scores = {name: score["value"] for name, score in record["test"]["scores"].items()}
    blind = next(test["baseline"] for test in record["test"]["control"] if test["metric"] == "cider")
    originality = record["test"]["originality"]
    cells = [
        *(f"{scores[name]:.1f}" for name in ("coco_bleu1", "coco_bleu4", "coco_rougeL", "cider")),
        f"{blind:.1f}",
        f"{originality['distinct_captions']:.0f}",
        f"{100 * originality['reused_captions']:.0f} %",
        *_circumstances(record),
    ]
    return f"| {label} | {' | '.join(cells)} |"


def _circumstances(record: dict[str, Any]) -> list[str]:
    bf16 = ", bf16" if record["bf16"] else ""
    return [f"{record['train_minutes']:.0f} min, seed {record['seed']}", f"{record['processor']}, {record['threads']} threads{bf16}"]
