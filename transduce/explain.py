"""From pydantic's findings to sentences that a user can act on.

In: a tree and the settings class it is meant for. Out: the settings, or one line per problem that names the dotted
key, the value, what is allowed and the nearest spelling.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from transduce.errors import ConfigError
from transduce.schema import Group, all_keys, field_words, group_for, kinds, members, scalar_types
from transduce.tree import Tree, listed, nearest, shown

MOST_PROBLEMS = 10

GroupT = TypeVar("GroupT", bound=BaseModel)

# What a value of each plain type may stand for. A whole number is welcome where a number is wanted, and 1e3 where a whole one is.
_WELCOME: dict[type, tuple[type, ...]] = {str: (str, Path), bool: (bool,), int: (int, float), float: (int, float)}


def validated(tree: Tree, root: type[GroupT]) -> GroupT:
    """The settings in a tree of plain values. Raises one ConfigError for all its problems, at most ten of them."""
    problems = dict(_mixed_types(tree, root))
    try:
        settings = root.model_validate(tree)
    except ValidationError as error:
        for details in error.errors():
            place = _Place(details["loc"], tree, root)
            if place.meant:
                problems.setdefault(place.key, _sentence(details, place, root))
    except ConfigError as error:
        problems.setdefault("", str(error))
    else:
        if not problems:
            return settings
    lines = list(problems.values())
    if len(lines) > MOST_PROBLEMS:
        lines[MOST_PROBLEMS:] = [f"and {len(lines) - MOST_PROBLEMS} more"]
    raise ConfigError("\n".join(lines))


def _mixed_types(tree: Tree, group: Group, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys whose text, number or truth value stands where another of these is wanted, and a sentence for each."""
    for name, value in tree.items():
        field = group.model_fields.get(name)
        if field is None:
            continue
        wanted = scalar_types(field.annotation)
        welcome = _WELCOME.get(type(value))
        if welcome and object not in wanted and not wanted.intersection(welcome):
            yield prefix + name, _bad_value(prefix + name, value, field)
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            inner = group_for(field.annotation, item) if isinstance(item, dict) else None
            if inner is not None:
                yield from _mixed_types(item, inner, f"{prefix}{name}.{number}." if isinstance(value, list) else f"{prefix}{name}.")


class _Place:
    """Where in the tree and in the classes a finding lies. pydantic's path also names union members; they are left out.

    `holder` is the class that the last key was looked for in. `meant` is False for a finding about a union member that
    the value was not written for (a list where a mapping stands).
    """

    def __init__(self, path: Sequence[int | str], tree: Tree, root: Group) -> None:
        self.value: Any = tree
        self.group: Group | None = root
        self.holder: Group = root
        self.field: FieldInfo | None = None
        self.key = ""
        self.of_kind = ""
        self.meant = True
        annotation: Any = root
        steps = iter(path)
        for step in steps:
            self.holder = self.group or self.holder
            self.of_kind = f" of kind {self.value['kind']}" if isinstance(self.value, dict) and "kind" in self.value else ""
            self.field = None
            if self.group is not None and str(step) in self.group.model_fields:
                self.field = self.group.model_fields[str(step)]
                annotation = self.field.annotation
            elif isinstance(step, int):
                annotation = get_args(annotation)[0] if get_args(annotation) else Any
            self._enter(step)
            annotation = self._skip_union_tag(annotation, steps)
            self.group = group_for(annotation, self.value) if isinstance(self.value, dict) else None

    def _enter(self, step: int | str) -> None:
        if isinstance(step, int) and isinstance(self.value, dict):
            return  # one mapping where a list of one is meant
        inside = isinstance(self.value, dict) and step in self.value
        listed_inside = isinstance(self.value, list) and isinstance(step, int) and step < len(self.value)
        self.value = self.value[step] if inside or listed_inside else None
        self.key = f"{self.key}.{step}" if self.key else str(step)

    def _skip_union_tag(self, annotation: Any, steps: Iterator[int | str]) -> Any:
        """pydantic puts the member's name into the path of a union: take it, and see whether the value is that member."""
        parts = members(annotation)
        if len(parts) == 1:
            return parts[0]
        tag = next(steps, None)
        if tag is None or kinds(annotation):
            return annotation
        chosen = [part for part in parts if (get_origin(part) in (list, tuple)) == isinstance(self.value, list)]
        lists = any(get_origin(part) in (list, tuple) for part in parts)
        self.meant = not lists or str(tag).startswith(("list", "tuple")) == isinstance(self.value, list)
        return chosen[0] if chosen else annotation


def _sentence(details: ErrorDetails, place: _Place, root: Group) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        return _unknown_key(place, root)
    if kind == "missing":
        allowed = "" if place.field is None else f" ({_meaning(place.field)}: {field_words(place.field)})"
        return f"{place.key} is required{allowed}"
    if kind.startswith("union_tag"):
        choices = list(kinds(place.field.annotation)) if place.field else []
        given = str(place.value.get("kind")) if isinstance(place.value, dict) else shown(place.value)
        return f"{place.key}.kind = {given} is not allowed: {listed(choices)}{nearest(given, choices)}"
    if kind == "value_error":
        return f"{place.key or 'configuration'}: {details['msg'].removeprefix('Value error, ')}"
    if place.field is None:
        return f"{place.key} = {shown(place.value)} is not allowed: {details['msg']}"
    return _bad_value(place.key, place.value, place.field)


def _bad_value(key: str, value: Any, field: FieldInfo) -> str:
    choices = [str(choice) for member in members(field.annotation) for choice in get_args(member)]
    hint = nearest(str(value), choices) if isinstance(value, str) else ""
    return f"{key} = {shown(value)} is not allowed: {field_words(field)}{hint} ({_meaning(field)})"


def _meaning(field: FieldInfo) -> str:
    """The first sentence of a field's documentation, without its full stop."""
    words = " ".join((field.description or "no description").split())
    return words.split(". ")[0].rstrip(".")


def _unknown_key(place: _Place, root: Group) -> str:
    parent, _, name = place.key.rpartition(".")
    siblings = list(place.holder.model_fields)
    hint = nearest(name, siblings).replace("mean '", f"mean '{parent}." if parent else "mean '")
    if not hint:
        elsewhere = [repr(key) for key in dict.fromkeys(all_keys(root)) if key.rpartition(".")[2] == name and key != place.key]
        hint = f"; did you mean {listed(elsewhere[:3])}?" if elsewhere else ""
    return f"{place.key} is not a setting{place.of_kind}{hint} (known here: {', '.join(siblings)})"
