"""Writing rso.toml: every default with its meaning, made from the configuration Structs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
from msgspec import Struct
from tomlkit.items import Table

from rso.core.errors import ConfigError
from rso.plugins.config import options_of
from rso.plugins.registry import Plugins, load_plugins
from rso.settings import Document

__all__ = ["write_config"]

# Plugins that run without a decision of the deployer's.
_STARTED = ("dicom_scp", "dicom_scu", "http_upload")


class _NoSettings:
    plugins: dict[str, dict[str, Any]] = {}  # noqa: RUF012  (empty, and never changed)
    disabled = ()


def write_config(path: Path, changes: Sequence[str]) -> None:
    """Write a complete rso.toml.

    Args:
        path: Where.
        changes: ``section.key=value``, the value as TOML writes it or plain text.

    Raises:
        ConfigError: A change is not written like that.
    """
    document = tomlkit.document()
    document.add(tomlkit.comment("RSO's settings. Relative paths start at this file's folder."))
    for name, section in ((o.name, o.default) for o in options_of(Document)):
        if isinstance(section, Struct):
            document.add(name, _table(type(section)))
    plugins = tomlkit.table()
    plugins.add("disabled", [])
    document.add("plugins", plugins)
    for change in changes:
        _apply(document, change)
    known = _kinds(load_plugins(_NoSettings()))
    for name in _STARTED:
        if name in known:
            _fill(plugins, name, known[name])
    for name, kind in known.items():
        if name in plugins and name not in _STARTED:
            _fill(plugins, name, kind)
    text = tomlkit.dumps(document)
    for name, kind in sorted(known.items()):
        if name not in plugins:
            text += "\n" + _commented(name, kind)
    path.write_text(text, "utf-8")
    path.chmod(0o600)


def _kinds(plugins: Plugins) -> dict[str, type[Struct]]:
    return plugins.config_types


def _fill(plugins: Table, name: str, kind: type[Struct]) -> None:
    made = _table(kind)
    for key, value in plugins.get(name, {}).items():
        made[key] = value
    plugins[name] = made


def _table(kind: type[Struct]) -> Table:
    made = tomlkit.table()
    for option in options_of(kind):
        if option.required or option.default is None or option.kind in {"secret", "table"}:
            made.add(tomlkit.comment(f"{option.name} =  # {option.description}"))
            continue
        item = tomlkit.item(list(option.default) if isinstance(option.default, tuple)
                            else option.default)  # fmt: skip
        if option.description:
            item.comment(option.description)
        made.add(option.name, item)
    return made


def _commented(name: str, kind: type[Struct]) -> str:
    document = tomlkit.document()
    document.add("x", _table(kind))
    body = tomlkit.dumps(document).splitlines()[1:]
    lines = [f"[plugins.{name}]", *(line.removeprefix("# ") for line in body)]
    return "\n".join(f"# {line}".rstrip() for line in lines) + "\n"


def _apply(document: Any, change: str) -> None:
    path, equals, text = change.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {change}: write section.key=value")
    try:
        value = tomlkit.parse(f"x = {text}")["x"]
    except Exception:  # not TOML: plain text
        value = tomlkit.item(text)
    place = document
    for key in keys[:-1]:
        if key not in place:
            place.add(key, tomlkit.table())
        place = place[key]
    place[keys[-1]] = value
