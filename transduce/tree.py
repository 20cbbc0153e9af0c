"""Trees of plain values: YAML text in, dicts, lists, numbers and text out, and back.

Only YAML 1.2 is read: `1e-4` is a number, `no` is text. The one decision to question: what looks like a date stays
text, because no setting is a date and `runs/2021-05-03` without its folder would otherwise become one.
"""

import difflib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from transduce.errors import ConfigError, StorageError

Tree = dict[str, Any]


class _PlainConstructor(SafeConstructor):
    """YAML scalars without dates."""


_PlainConstructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
_PlainConstructor.add_constructor("tag:yaml.org,2002:value", SafeConstructor.construct_yaml_str)


def parse_yaml(text: str) -> Any:
    """One YAML 1.2 document as plain values. Raises YAMLError."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _PlainConstructor
    return yaml.load(text)


def read_tree(path: Path) -> Tree:
    """The mapping in a YAML file. Raises ConfigError with the line, StorageError where the file cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; a configuration is a UTF-8 text file") from error
    try:
        tree = parse_yaml(text)
    except YAMLError as error:
        raise ConfigError(f"{path}:{_first_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {shown(tree)}; a configuration is a YAML mapping such as `run_dir: runs/en-de`")
    return checked_keys(tree, str(path))


def checked_keys(tree: Tree, where: str) -> Tree:
    """The tree itself. Raises ConfigError for a key that is not text, at any depth."""
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ConfigError(f"{where}: the key {shown(key)} is not text; put quotes around it")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                checked_keys(item, where)
    return tree


def parse_words(words: Sequence[str]) -> Tree:
    """Command-line words `a.b=c` as one tree. The value is YAML: `a.b=[1, 2]`, `a.b=null`, `a.b="007"`. Raises ConfigError."""
    tree: Tree = {}
    for word in words:
        key, separator, value = word.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise ConfigError(f"{word!r} is not a setting; write KEY=VALUE, for example train.max_steps=1000")
        try:
            parsed = parse_yaml(value)
        except YAMLError as error:
            raise ConfigError(f"{word!r}: the value is not YAML ({_first_line(error)}); put quotes around text") from error
        _put(tree, parts, parsed)
    return checked_keys(tree, "command line")


def _put(tree: Tree, parts: Sequence[str], value: Any) -> None:
    """Set tree[a][b][c] = value. Raises ConfigError where an earlier word set a plain value on the way."""
    for number, part in enumerate(parts[:-1], start=1):
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{'.'.join(parts)} and {'.'.join(parts[:number])} are both given; one is inside the other")
    if parts[-1] in tree:
        raise ConfigError(f"{'.'.join(parts)} is given twice on the command line")
    tree[parts[-1]] = value


def _first_line(error: YAMLError) -> str:
    """`3: found undefined alias`: line and problem of a YAML error, without its drawing."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())


def scalar_text(value: Any) -> str:
    """One value on one line of YAML 1.2, in the flow style where it is a list or mapping."""
    match value:
        case None | bool() | int():
            return json.dumps(value)
        case float():
            return repr(value) if math.isfinite(value) else f"{'-' if value < 0 else ''}.{'nan' if math.isnan(value) else 'inf'}"
        case dict():
            return "{" + ", ".join(f"{scalar_text(key)}: {scalar_text(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(scalar_text(item) for item in value) + "]"
    text = str(value)
    return text if _is_plain(text) else json.dumps(text, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Whether text needs no quotes: it has no character with a meaning in YAML and is read back as itself."""
    if not text or text != text.strip() or not text.isprintable() or set(text) & set(",:[]{}#&*!|>'\"%@`?"):
        return False
    try:
        return bool(parse_yaml(text) == text)
    except YAMLError:
        return False


def shown(value: Any) -> str:
    """A value as a message shows it: YAML on one line, cut where it is long."""
    text = scalar_text(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the choice spelled most like `word`, or nothing."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def listed(choices: Sequence[str]) -> str:
    """`a, b or c`."""
    return choices[0] if len(choices) == 1 else ", ".join(choices[:-1]) + " or " + choices[-1]
