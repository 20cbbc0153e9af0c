"""Write docs/configuration.md from the settings classes: every key, what it may be, its default and its meaning.

In: the classes. Out: the page. With --check it writes nothing and fails where the page is out of date.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from transduce.config import RunConfig, preset_names
from transduce.schema import Group, Setting, settings_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

INTRODUCTION = """# Configuration

This page is made from the settings classes by `python scripts/make_configuration_page.py`.

A configuration is a YAML 1.2 file (`1e-4` is a number, `no` is text). A short one is enough:

```yaml
preset: transformer-small
run_dir: runs/en-de
data:
  train: {source: train.en, target: train.de}
  valid: {source: val.en, target: val.de}
train:
  max_minutes: 40
```

- **Precedence**, lowest first: the defaults below, the preset, the file, words on the command line
  (`transduce train config.yaml train.max_steps=1000 model.tie=output`; values are YAML too).
- **Groups** are merged key by key. Where a group of another `kind` is named, it replaces the group below it as a whole.
- **Paths** are relative to the current directory.
- `transduce config FILE` prints everything that a file amounts to, documented.
- An unknown key or a value that is not allowed stops the command before anything runs, with the nearest spelling.
"""


def main() -> int:
    """Write or check the page; the exit code."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, f"Presets: {', '.join(f'`{name}`' for name in preset_names())}.\n"]
    seen: set[Group] = set()
    parts += ["\n".join(_section(RunConfig, "", seen))]
    return "\n".join(parts) + "\n"


def _section(group: Group, key: str, seen: set[Group]) -> Iterator[str]:
    """One table per settings class, then those of the groups inside it; a class that was shown before is pointed to."""
    seen.add(group)
    title = f"`{key}`" if key else "The whole file"
    yield f"## {title}{_kinds(group)}"
    yield ""
    yield " ".join((group.__doc__ or "").split())
    yield ""
    yield "| key | may be | default | meaning |"
    yield "| --- | --- | --- | --- |"
    prefix = f"{key}." if key else ""
    rows = list(settings_of(group, prefix))
    yield from (_row(setting) for setting in rows)
    yield ""
    for setting in rows:
        for inner in setting.inner:
            if inner not in seen:
                yield from _section(inner, setting.key, seen)
            else:
                yield f"`{setting.key}`{_kinds(inner)}: the same keys as above.\n"


def _kinds(group: Group) -> str:
    kind = next((setting for setting in settings_of(group) if setting.key == "kind"), None)
    return f", kind {kind.allowed}" if kind else ""


def _row(setting: Setting) -> str:
    allowed = "a group, see below" if setting.inner else setting.allowed
    default = f"`{setting.default}`" if setting.default not in ("", "required") else setting.default
    return f"| `{setting.key}` | {_cell(allowed)} | {_cell(default)} | {_cell(setting.meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
