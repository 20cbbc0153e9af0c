"""What the settings classes allow, in words: read off the pydantic fields, for messages, for `config` and for the docs.

In: settings classes. Out: sentences and dotted keys. The one decision to question: a value's meaning is written only
once, as the string under its field, and everything that people read is made from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from transduce.tree import Tree, listed, scalar_text

Group = type[BaseModel]

_PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path", NoneType: "null"}


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union without None, `Annotated` around the union taken off; a tuple of one for anything else."""
    if get_origin(annotation) is Annotated and get_origin(get_args(annotation)[0]) in (Union, UnionType):
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(inner for part in get_args(annotation) if part is not NoneType for inner in members(part))
    return (annotation,)


def groups(annotation: Any) -> tuple[Group, ...]:
    """The settings classes among the members of an annotation, and those of its lists."""
    found: list[Group] = []
    for member in members(annotation):
        if isinstance(member, type) and get_origin(member) is None and issubclass(member, BaseModel):
            found.append(member)
        elif get_origin(member) in (list, tuple):
            found.extend(group for part in get_args(member) if part is not Ellipsis for group in groups(part))
    return tuple(dict.fromkeys(found))


def kinds(annotation: Any) -> dict[str, Group]:
    """For a union told apart by `kind`: each kind and its class. Empty for every other annotation."""
    return {kind: group for group in groups(annotation) for kind in _kinds_of(group)}


def _kinds_of(group: Group) -> tuple[str, ...]:
    field = group.model_fields.get("kind")
    return () if field is None else tuple(str(choice) for choice in get_args(field.annotation))


def scalar_types(annotation: Any) -> set[Any]:
    """The types that a value of this annotation may have, literals and members of unions included; `object` for anything."""
    if annotation is Any:
        return {object}
    if get_origin(annotation) is Literal:
        return {type(choice) for choice in get_args(annotation)}
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return {kind for part in inner for kind in scalar_types(part)} if inner else {annotation}


def group_for(annotation: Any, value: Any) -> Group | None:
    """The settings class that the mapping `value` is meant for, by its `kind` where there are several."""
    named = kinds(annotation)
    if named:
        return named.get(str(value.get("kind")))
    return next(iter(groups(annotation)), None)


def field_words(field: FieldInfo) -> str:
    """What a field allows: `a whole number >= 1 or null`."""
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, limits: list[Any]) -> str:
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        return _words(inner, [*own, *limits])
    if get_origin(annotation) in (Union, UnionType):
        parts = [_words(part, [] if part is NoneType else limits) for part in get_args(annotation)]
        return listed(list(dict.fromkeys(parts)))
    if get_origin(annotation) is Literal:
        return listed([scalar_text(choice) for choice in get_args(annotation)])
    if get_origin(annotation) in (list, tuple):
        item = _words(get_args(annotation)[0], []) if get_args(annotation) else "values"
        return f"a list, each entry {item}"
    if get_origin(annotation) is dict or annotation is dict:
        return "a mapping"
    if annotation in _PLAIN:
        return _PLAIN[annotation] + _limit_words(limits)
    if groups(annotation):
        return f"a group with the keys {', '.join(groups(annotation)[0].model_fields)}"
    return str(annotation)


def _limit_words(limits: list[Any]) -> str:
    found: list[str] = []
    for limit in limits:
        match limit:
            case annotated_types.Ge(ge=bound):
                found.append(f">= {bound}")
            case annotated_types.Gt(gt=bound):
                found.append(f"> {bound}")
            case annotated_types.Le(le=bound):
                found.append(f"<= {bound}")
            case annotated_types.Lt(lt=bound):
                found.append(f"< {bound}")
            case annotated_types.MinLen(min_length=bound):
                found.append(f"of at least {bound} characters")
    return " " + " and ".join(found) if found else ""


def default_tree(group: Group) -> Tree:
    """The defaults that are groups themselves, as plain values, so that a file may name one key of them."""
    tree: Tree = {}
    for name, field in group.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel):
            tree[name] = default.model_dump(mode="json")
        elif field.is_required() and len(members(field.annotation)) == 1 and len(groups(field.annotation)) == 1:
            inner = default_tree(groups(field.annotation)[0])
            tree.update({name: inner} if inner and get_origin(field.annotation) is not list else {})
    return tree


def merge(base: Tree, top: Tree, group: Group | None) -> Tree:
    """`top` over `base`, mapping by mapping. Where `top` names another kind than `base`, it replaces the whole branch."""
    merged = dict(base)
    for key, value in top.items():
        below = base.get(key)
        field = None if group is None else group.model_fields.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merge_branch(below, value, None if field is None else field.annotation)
        else:
            merged[key] = value
    return merged


def _merge_branch(base: Tree, top: Tree, annotation: Any) -> Tree:
    old = group_for(annotation, base)
    new = group_for(annotation, {"kind": base.get("kind"), **top})
    if kinds(annotation) and old is not new:
        return top
    return merge(base, top, new)


@dataclass(frozen=True)
class Setting:
    """One documented key. `group` names the class that holds it, `default` is YAML or "required"."""

    key: str
    group: Group
    allowed: str
    default: str
    meaning: str
    inner: tuple[Group, ...]


def settings_of(group: Group, prefix: str = "") -> Iterator[Setting]:
    """The keys of one group in the order of their definition, groups inside not opened."""
    for name, field in group.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        inner = groups(field.annotation)
        if field.is_required():
            shown_default = "required"
        elif isinstance(default, BaseModel):
            shown_default = str(dict(default).get("kind", ""))
        else:
            shown_default = scalar_text(default)
        meaning = " ".join((field.description or "").split())
        yield Setting(prefix + name, group, field_words(field), shown_default, meaning, inner)


def all_keys(group: Group, prefix: str = "") -> Iterator[str]:
    """Every dotted key at any depth, those of all kinds included."""
    for setting in settings_of(group, prefix):
        yield setting.key
        for inner in setting.inner:
            yield from all_keys(inner, setting.key + ".")
