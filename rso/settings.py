"""rso.toml: typed, complete, and strict about what it does not know.

Relative paths are taken from the folder of the file. A secret may be text, ``{ env = "NAME" }``
or ``{ file = "path" }``.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli
from msgspec import Meta, Struct, field

from rso.core.errors import ConfigError

__all__ = [
    "Archive",
    "Database",
    "Document",
    "Intake",
    "Notify",
    "Retention",
    "Settings",
    "Site",
    "Turnaround",
    "Web",
    "load_settings",
    "resolve_secrets",
]


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Site(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[site]``."""

    name: Annotated[str, Meta(description="shown on every page")] = "RSO"
    data_dir: Annotated[str, Meta(description="spool, archive, quarantine")] = "data"
    base_url: Annotated[
        str, Meta(description="where people reach it, for links; empty: from [web]")
    ] = ""


class Database(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[database]``."""

    url: Annotated[str, Meta(description="sqlite:FILE or postgresql://…")] = "sqlite:rso.sqlite"


class Archive(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[archive]``."""

    url: Annotated[str, Meta(description="file:FOLDER, below data_dir if relative")] = (
        "file:archive"
    )


class Intake(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[intake]``."""

    settle_seconds: Annotated[float, Meta(gt=0, description="quiet that settles an exam")] = 60.0
    open_days: Annotated[int, Meta(ge=1, description="an exam takes images for so long")] = 30


class Web(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[web]``."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on")] = 8080
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="networks whose X-Forwarded-For and -Proto count")
    ] = ()
    metrics_from: Annotated[
        tuple[str, ...], Meta(description="networks that may read /metrics without signing in")
    ] = ("127.0.0.0/8", "::1/128")
    idle_minutes: Annotated[float, Meta(gt=0, description="a session ends without use after")] = 30
    session_hours: Annotated[float, Meta(gt=0, description="a session ends at the latest")] = 12


class Notify(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[notify]``."""

    language: Annotated[str, Meta(description="language of messages: en, de")] = "en"
    templates: Annotated[str, Meta(description="folder of your own templates; empty: RSO's")] = ""
    expire_hours: Annotated[float, Meta(gt=0, description="an older message is not sent")] = 12.0
    per_minute: Annotated[
        int, Meta(ge=1, description="most messages a minute; STAT exams are told at once")
    ] = 120


class Turnaround(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[turnaround]``: minutes from the request to the last delivery."""

    stat_minutes: Annotated[int, Meta(ge=1, description="target of a STAT exam")] = 60
    urgent_minutes: Annotated[int, Meta(ge=1, description="target of an urgent exam")] = 240
    routine_minutes: Annotated[int, Meta(ge=1, description="target of a routine exam")] = 1440

    def minutes(self, rank: int) -> int:
        """The target of a priority, 0 for STAT."""
        return (self.stat_minutes, self.urgent_minutes, self.routine_minutes)[rank]

    def time(self, rank: int) -> timedelta:
        """The target of a priority as a length of time."""
        return timedelta(minutes=self.minutes(rank))


class Retention(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[retention]``; how long is said by each facility."""

    purge: Annotated[bool, Meta(description="purge once an hour by itself")] = False


class Document(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    site: Site = Site()
    database: Database = Database()
    archive: Archive = Archive()
    intake: Intake = Intake()
    web: Web = Web()
    notify: Notify = Notify()
    turnaround: Turnaround = Turnaround()
    retention: Retention = Retention()
    plugins: dict[str, Any] = field(default_factory=dict)


class Settings(Struct, frozen=True, kw_only=True):
    """The settings in force, every path absolute."""

    path: Path
    site: Site
    database: Database
    intake: Intake
    web: Web
    notify: Notify
    turnaround: Turnaround
    retention: Retention
    data_dir: Path
    archive_dir: Path
    plugins: dict[str, dict[str, Any]]
    disabled: tuple[str, ...] = ()

    @property
    def base_url(self) -> str:
        """Where people reach the web application."""
        return self.site.base_url or f"http://{self.web.host}:{self.web.port}"


# A section of either file, or a destination's options: never a secret as a whole.
_SECTION = re.compile(r"\$(\.\w+)?(\[\d+\])?|\$\.plugins\.[^.\[]+|.+\.options")


def load_settings(path: Path | None = None) -> Settings:
    """Read rso.toml: ``path``, else ``RSO_CONFIG``, else ./rso.toml.

    Raises:
        ConfigError: There is none, or it is wrong; names the file and the place inside it.
    """
    file = Path(path or os.environ.get("RSO_CONFIG") or "rso.toml").absolute()
    try:
        raw = tomli.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; rso init makes one") from None
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as exc:
        raise ConfigError(f"{file}: {exc}") from exc
    folder = file.parent
    try:
        document = msgspec.convert(resolve_secrets(raw, folder), Document)
    except (ConfigError, msgspec.ValidationError) as exc:
        raise ConfigError(f"{file}: {exc}") from exc
    disabled = document.plugins.pop("disabled", [])
    if not isinstance(disabled, list) or not all(isinstance(d, str) for d in disabled):
        raise ConfigError(f"{file}: a list of names is expected - at `$.plugins.disabled`")
    for name, section in document.plugins.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{file}: a table is expected - at `$.plugins.{name}`")
    _check_networks(document.web, file)
    data_dir = folder / document.site.data_dir
    return Settings(
        path=file,
        site=document.site,
        database=Database(url=_database_url(document.database.url, folder)),
        intake=document.intake,
        web=document.web,
        notify=_notify(document.notify, folder),
        turnaround=document.turnaround,
        retention=document.retention,
        data_dir=data_dir,
        archive_dir=data_dir / _archive_folder(document.archive.url, file),
        plugins=document.plugins,
        disabled=tuple(disabled),
    )


def _check_networks(web: Web, file: Path) -> None:
    """What every request would ask of them, asked at the start."""
    for name in ("trusted_proxies", "metrics_from"):
        for text in getattr(web, name):
            try:
                ip_network(text)
            except ValueError:
                raise ConfigError(f"{file}: {text!r} is no network - at `$.web.{name}`") from None


def _database_url(url: str, folder: Path) -> str:
    if url.startswith("sqlite:"):
        return f"sqlite:{folder / url.removeprefix('sqlite:')}"
    return url


def _notify(section: Notify, folder: Path) -> Notify:
    if not section.templates:
        return section
    return msgspec.structs.replace(section, templates=str(folder / section.templates))


def _archive_folder(url: str, file: Path) -> str:
    if not url.startswith("file:"):
        raise ConfigError(f"{file}: only file:FOLDER is supported - at `$.archive.url`")
    return url.removeprefix("file:")


def resolve_secrets(value: Any, folder: Path, place: str = "$") -> Any:
    """Replace every ``{ env = … }`` and ``{ file = … }`` by what it names.

    Raises:
        ConfigError: The variable is not set, or the file cannot be read; names the place.
    """
    if isinstance(value, list):
        return [resolve_secrets(item, folder, f"{place}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if _SECTION.fullmatch(place):
        pass  # its one option may be called so
    elif set(value) == {"env"}:
        name = str(value["env"])
        if name not in os.environ:
            raise ConfigError(f"the environment variable {name} is not set - at `{place}`")
        return os.environ[name]
    elif set(value) == {"file"}:
        try:
            return (folder / str(value["file"])).read_text("utf-8").strip()
        except OSError as exc:
            raise ConfigError(f"the secret's file cannot be read: {exc} - at `{place}`") from exc
    return {key: resolve_secrets(item, folder, f"{place}.{key}") for key, item in value.items()}
