"""The file tree in reading order: in docs/code.md every module on a line, in README.md the later ones some to a line.

    python scripts/readme_tree.py            # write both
    python scripts/readme_tree.py --check    # exit 1 if one is out of date

In: the package. Out: the part of README.md between its two marks, and docs/code.md. Decision to question: a module's line is what
its own docstring says first, so it cannot drift from the file; only the order is written down here.
"""

import argparse
import ast
import re
import sys
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- tree: written by scripts/readme_tree.py -->", "<!-- end of tree -->"
WIDTH = 132
# Folders in reading order, and what is read first inside them; the other files of a folder follow by name (in README.md some to a line).
ORDER: dict[str, tuple[str, ...]] = {
    "": ("errors", "settings", "config", "cli", "predict", "evaluate", "forecast", "transcribe", "distill", "pictures"),
    "data": (
        *("examples", "values", "report", "codec", "text", "subwords", "media", "audio", "image", "frames"),
        *("tables", "windows"),
        *("store", "plan", "loader", "batch"),
    ),
    "model": (
        *("interface", "seq2seq", "layers", "frontends", "features", "sound", "cnn", "steps", "recurrent", "recurrent_decoder"),
        *("recurrent_attention", "attention", "stack", "transformer", "conformer", "ssru", "vit", "heads", "modes"),
    ),
    "train": (
        *("settings", "loop", "setup", "trainer", "loss", "objective", "optim", "schedule", "validation", "checkpoint", "storage"),
        *("signals", "progress", "precision", "finish"),
    ),
    "decode": ("search", "options", "scorers", "ctc", "constraints", "beam", "paths", "rollout", "forced"),
    "export": (),
    "metrics": ("score", "overlap", "edits", "captions", "tracks"),
    "commands": (),
    "report": (),
}
REST = (
    f"{'presets/*.yaml':<26} Tested settings by name",
    f"{'tests/':<26} Mirrors the package; tests/invariants/ holds the contract of every encoder with every decoder",
    f"{'examples/':<26} The demos, and the configurations behind the results",
    f"{'scripts/, benchmarks/':<26} What writes the results, these trees and the reference of settings; measurements",
)
PAGE = """# The code, file by file

Written by `python scripts/readme_tree.py`; do not edit by hand. The order in which data flows is the order in which one reads: the
files that are read first stand first in each folder, the others follow by name. Each line is what the file says of itself.
"""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line, cut at a word where it is very long."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.?])\s", text, maxsplit=1)[0].rstrip(".:")
    room = WIDTH - 27
    return sentence if len(sentence) <= room else sentence[:room].rsplit(" ", 1)[0].rstrip(",;:") + " ..."


def modules_of(folder: Path, first: tuple[str, ...]) -> list[Path]:
    """The modules of one folder: the named ones, then the others by name."""
    found = {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem not in ("__init__", "__main__")}
    return [found.pop(name) for name in first if name in found] + list(found.values())


def lines_of(name: str, *, whole: bool) -> list[str]:
    """One folder: a line for each module, or (not whole) for those that are read first, and a few words for each of the others."""
    folder, first = ROOT / "transduce" / name, ORDER.get(name, ())
    modules = modules_of(folder, first)
    shown = [path for path in modules if whole or path.stem in first]
    lines = [f"transduce/{name}/" if name else "transduce/"]
    lines += [f"  {path.name:<24} {first_sentence(path)}" for path in shown]
    others = "; ".join(few_words(path) for path in modules if path not in shown)
    return lines + wrap(others, WIDTH + 8, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def few_words(path: Path) -> str:
    """A module's name and the first clause of its first sentence; of a command its name alone, which says it."""
    clause = re.split(r"[:;,(]", first_sentence(path).removesuffix(" ..."), maxsplit=1)[0].strip()
    first = clause.split()[0]
    if first == "`transduce":
        return path.stem
    words = clause if first[1:] != first[1:].lower() or first.startswith("`") else first.lower() + clause[len(first) :]
    return f"{path.stem}: {words}"


def tree(*, whole: bool) -> str:
    """The tree as Markdown, without the marks."""
    package = ROOT / "transduce"
    folders = {path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py")}
    ordered = [name for name in ORDER if (name or ".") in folders] + sorted(folders - {".", *ORDER})
    lines = [line for name in ordered for line in lines_of(name, whole=whole)]
    return "\n".join(["```", *lines, *REST, "```"])


def pages() -> dict[Path, str]:
    """What README.md and docs/code.md should be."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    return {
        readme: f"{before}{START}\n\n{tree(whole=False)}\n\n{END}{after}",
        ROOT / "docs" / "code.md": f"{PAGE}\n{tree(whole=True)}\n",
    }


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description="Write the file trees of README.md and docs/code.md.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args().check
    for path, wanted in pages().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != wanted):
            sys.exit(f"the file tree of {path.name} is out of date: python scripts/readme_tree.py")
        if not check:
            path.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
