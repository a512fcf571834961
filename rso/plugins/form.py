"""A plugin's options as a form has them: one control for each field of their Struct.

What a form cannot show (a table within a table) stays as it was.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import NODEFAULT, Struct, inspect

from rso.core.secret import Secret

__all__ = ["Control", "controls_of", "number_or_text", "read_options", "split_words"]

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SHAPES: tuple[tuple[type, str], ...] = (
    (inspect.BoolType, "switch"),
    (inspect.IntType, "number"),
    (inspect.FloatType, "number"),
    (inspect.StrType, "text"),
)


class Control(Struct, frozen=True, kw_only=True):
    """One field of a form.

    Attributes:
        shape: ``text``, ``number``, ``switch``, ``secret``, ``choice`` or ``words``.
        value: As it is shown; of a secret only whether there is one.
        default: What an empty field means, in words.
        on: Of a switch, whether it is on.
        choices: Of a choice.
    """

    name: str
    label: str
    shape: str
    value: str
    default: str
    required: bool
    description: str
    on: bool = False
    choices: tuple[str, ...] = ()


def controls_of(kind: type[Struct], options: Mapping[str, Any]) -> Iterator[Control]:
    """The controls of an options Struct in the order of its fields, with what they show."""
    described: Any = inspect.type_info(kind)
    for field in described.fields:
        type_, description = _plain(field.type)
        shape, choices = _shape(type_)
        if not shape:
            continue
        default = None if field.default is NODEFAULT else field.default
        value = options.get(field.encode_name)
        yield Control(
            name=field.encode_name,
            label=_label(field.encode_name),
            shape=shape,
            value=_shown(value, secret=shape == "secret"),
            default="" if shape == "secret" else _shown(default),
            required=field.required,
            description=description,
            on=bool(default if value is None else value),
            choices=choices,
        )


def read_options(
    kind: type[Struct], typed: Mapping[str, str], before: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that a form says.

    An untouched field stays exactly as it was, an emptied one goes back to its default, and what
    is no number stays as typed, to be refused with its place.

    Args:
        kind: The options' Struct.
        typed: The form's fields by the options' names; an absent switch is off.
        before: The options that the form showed.
    """
    found = dict(before)
    for control in controls_of(kind, before):
        name, text = control.name, typed.get(control.name)
        if control.shape == "switch":
            if bool(text) is not control.on:
                found[name] = bool(text)
        elif text is None or text == control.value or (control.shape == "secret" and not text):
            continue
        elif not text:
            found.pop(name, None)
        elif control.shape == "number":
            found[name] = number_or_text(text)
        elif control.shape == "words":
            found[name] = [number_or_text(word) for word in split_words(text)]
        else:
            found[name] = text
    return found


def _plain(type_: Any) -> tuple[Any, str]:
    """A type without its description and without ``None``."""
    description = ""
    if isinstance(type_, inspect.Metadata):
        description = (type_.extra_json_schema or {}).get("description", "")
        type_ = type_.type
    if isinstance(type_, inspect.UnionType):
        others = [t for t in type_.types if not isinstance(t, inspect.NoneType)]
        if len(others) == 1:
            inner, more = _plain(others[0])
            return inner, description or more
    return type_, description


def _shape(type_: Any) -> tuple[str, tuple[str, ...]]:
    if isinstance(type_, inspect.LiteralType) and all(isinstance(v, str) for v in type_.values):
        return "choice", tuple(map(str, type_.values))
    if isinstance(type_, inspect.EnumType):
        return "choice", tuple(str(member.value) for member in type_.cls)
    if isinstance(type_, inspect.ListType | inspect.VarTupleType):
        inner = _shape(_plain(type_.item_type)[0])[0]
        return ("words" if inner in {"text", "number"} else ""), ()
    if isinstance(type_, inspect.CustomType) and type_.cls is Secret:
        return "secret", ()
    return next((shape for kind, shape in _SHAPES if isinstance(type_, kind)), ""), ()


def _label(name: str) -> str:
    words = name.replace("_", " ")
    for short in ("ae", "ca", "tls", "url", "id"):
        words = " ".join(w.upper() if w == short else w for w in words.split())
    return words[:1].upper() + words[1:]


def _shown(value: Any, *, secret: bool = False) -> str:
    if secret:
        return "set" if value else ""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def number_or_text(text: str) -> int | float | str:
    """A number; what is none stays as it was typed, to be refused with its place."""
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


def split_words(text: str) -> list[str]:
    """What stands between spaces and commas."""
    return text.replace(",", " ").split()
