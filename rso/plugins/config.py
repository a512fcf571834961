"""A plugin's configuration: decoded into its Struct, and shown as a table."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from rso.core.errors import ConfigError
from rso.core.secret import Secret

__all__ = ["Option", "config_table", "decode_options", "decode_section", "options_of"]

_T = TypeVar("_T", bound=Struct)


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError


def decode_section(kind: type[_T], section: Mapping[str, Any], path: str) -> _T:
    """Decode a section of a configuration file into its Struct.

    Raises:
        ConfigError: With the path of what is wrong, such as ``$.plugins.ftp.port``.
    """
    try:
        return msgspec.convert(dict(section), kind, dec_hook=_decode_secret, strict=True)
    except msgspec.ValidationError as exc:
        message = str(exc)
        # msgspec counts its path from the section; people count from the file.
        text, at, inner = message.partition(" - at `$")
        where = f"$.{path}{inner.rstrip('`')}" if at else f"$.{path}"
        raise ConfigError(f"{text} - at `{where}`") from exc


def decode_options(kind: type[_T], options: Mapping[str, Any], whose: str) -> _T:
    """Decode a destination's options into its sender's Struct.

    Raises:
        ConfigError: With whose they are, and the path of what is wrong.
    """
    try:
        return msgspec.convert(dict(options), kind, dec_hook=_decode_secret, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{whose}, options: {exc}") from exc


class Option(Struct, frozen=True, kw_only=True):
    """One field of a configuration Struct, for people."""

    name: str
    kind: str
    default: Any
    required: bool
    description: str


def options_of(kind: type[Struct]) -> Iterator[Option]:
    """The fields of a configuration Struct in their order."""
    hints = get_type_hints(kind, include_extras=True)
    for info in msgspec.structs.fields(kind):
        required = info.required
        default = info.default
        if info.default_factory is not msgspec.NODEFAULT:
            default = info.default_factory()
        yield Option(
            name=info.encode_name,
            kind=_name(hints[info.name]),
            default=None if required else default,
            required=required,
            description=_description(hints[info.name]),
        )


def _description(hint: Any) -> str:
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, msgspec.Meta) and extra.description:
            return extra.description
    return ""


def _name(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _name(get_args(hint)[0])
    if get_origin(hint) in {Union, types.UnionType}:
        return " or ".join(_name(a) for a in get_args(hint) if a is not type(None))
    if get_origin(hint) in {tuple, list}:
        return f"list of {_name(get_args(hint)[0])}"
    if isinstance(hint, type) and issubclass(hint, Struct):
        return "table"
    names = {str: "text", int: "number", float: "number", bool: "true or false", Secret: "secret"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def config_table(kind: type[Struct]) -> str:
    """A Markdown table of a configuration Struct; READMEs hold it, a test keeps it current."""
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for option in options_of(kind):
        default = "required" if option.required else f"`{_shown(option.default)}`"
        lines.append(f"| `{option.name}` | {option.kind} | {default} | {option.description} |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, Secret) or value is None:
        return ""
    if isinstance(value, Struct):
        return "{}"
    return msgspec.json.encode(value).decode()
