"""The file tree of README.md, in reading order, one line per module: the first sentence of its docstring.

    python scripts/readme_tree.py            # write it
    python scripts/readme_tree.py --check    # exit 1 if it is out of date

In: the package. Out: the part of README.md between its two marks. Decision to question: a module's line is what its own
docstring says first, so it cannot drift from the file; only the order is written down here.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- tree: written by scripts/readme_tree.py -->", "<!-- end of tree -->"
WIDTH = 132
# Folders in reading order, and what is read first inside them; all other files of a folder follow by name.
ORDER: dict[str, tuple[str, ...]] = {
    "": ("errors", "settings", "config", "cli"),
    "data": ("examples", "report", "text", "symbols", "subwords", "store", "cache", "plan", "loader", "batch"),
    "model": ("interface", "seq2seq", "layers", "frontends", "recurrent", "recurrent_decoder", "attention", "transformer", "ssru", "heads"),
    "train": ("settings", "loop", "trainer", "loss", "objective", "optim", "schedule", "validation", "checkpoint"),
    "decode": ("search", "options", "scorers", "constraints", "beam", "paths"),
    "metrics": ("score", "overlap", "edits"),
    "commands": (),
    "report": (),
}


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


def tree() -> str:
    """The tree as Markdown, without the marks."""
    package = ROOT / "transduce"
    folders = {path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py")}
    ordered = [name for name in ORDER if (name or ".") in folders] + sorted(folders - {".", *ORDER})
    lines = ["```"]
    for name in ordered:
        folder = package / name
        lines.append(f"transduce/{name}/" if name else "transduce/")
        lines += [f"  {path.name:<24} {first_sentence(path)}" for path in modules_of(folder, ORDER.get(name, ()))]
        if name == "":
            lines.append(f"  {'presets/*.yaml':<24} Tested settings by name")
    lines += [
        f"{'tests/':<26} Mirrors the package; tests/invariants/ holds the contract of every encoder with every decoder",
        f"{'examples/dates/':<26} The demo;  examples/text/: the configurations behind the results",
        f"{'scripts/, benchmarks/':<26} What writes the results, this tree and the reference of settings; measurements",
        "```",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description="Write the file tree of README.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    wanted = f"{before}{START}\n\n{tree()}\n\n{END}{after}"
    if check and wanted != text:
        sys.exit("the file tree of README.md is out of date: python scripts/readme_tree.py")
    if not check:
        readme.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
