"""The notifier: fax through HylaFAX, an email-to-fax gateway, or a fax service of Apprise's."""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct

from rso.plugins import (
    MESSAGES,
    MESSAGES_TILE,
    TELL_SOMEBODY,
    ConfigError,
    ExamAction,
    Health,
    Message,
    Notifier,
    Page,
    RsoError,
    Secret,
    Tile,
    hookimpl,
)

__all__ = [
    "Fax",
    "FaxConfig",
    "rso_register_exam_actions",
    "rso_register_notifiers",
    "rso_register_pages",
    "rso_register_tiles",
]

_HYLAFAX = "hylafax"


class FaxConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.fax]``."""

    url: Annotated[
        Secret,
        Meta(
            description="hylafax://user@host:4559/{address}, mailtos://…?to={digits}@gateway,"
            " or notifyre://…/{address}?mode=fax"
        ),
    ]
    sender: Annotated[str, Meta(max_length=60, description="who the cover says it is from")] = "RSO"


class Fax(Notifier):
    """A cover and a sheet with the exam's number, as a PDF, to one number."""

    name = "fax"
    config_type = FaxConfig
    config: FaxConfig
    follows = True

    def __init__(self, config: FaxConfig) -> None:
        super().__init__(config)
        self._url = config.url.reveal()
        if self._url.startswith(f"{_HYLAFAX}:"):
            from rso.plugins.carrier import add_scheme  # noqa: PLC0415
            from rso_fax.hylafax import NotifyHylafax  # noqa: PLC0415

            add_scheme(NotifyHylafax, _HYLAFAX)

    def check_address(self, address: str) -> str:
        """A number as E.164 writes it."""
        from rso.plugins.carrier import check_phone_number  # noqa: PLC0415

        return check_phone_number(address)

    def _hylafax(self) -> Any:
        from rso_fax.hylafax import Hylafax  # noqa: PLC0415

        parts = urlsplit(self._url.partition("{")[0])
        if not parts.hostname:
            raise ConfigError("the url names no host - at `$.plugins.fax.url`")
        return Hylafax(
            parts.hostname,
            parts.port or 4559,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
        )

    async def send(self, message: Message) -> str:
        """Hand the fax over; with HylaFAX the answer is the job's id."""
        from rso_fax.sheet import draw_fax  # noqa: PLC0415

        document = await asyncio.to_thread(draw_fax, message, self.config.sender)
        if self._url.startswith(f"{_HYLAFAX}:"):
            server = self._hylafax()
            tag = f"{self.config.sender} {message.exam_number}".strip()
            job: str = await asyncio.to_thread(server.submit, message.address, document, tag)
            return f"job {job}"
        from rso.plugins.carrier import fill_address, hand_over  # noqa: PLC0415

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "fax.pdf"
            file.write_bytes(document)
            url = fill_address(self._url, message.address)
            return await hand_over(url, subject=message.subject, text=message.text, files=[file])

    async def follow(self, ticket: str) -> str:
        """Whether HylaFAX has delivered it; other ways do not tell."""
        if not ticket.startswith("job "):
            return ""
        found: str = await asyncio.to_thread(self._hylafax().state, ticket[4:])
        return found

    async def health(self) -> Health:
        """Whether the server answers."""
        if not self._url.startswith(f"{_HYLAFAX}:"):
            from rso.plugins.carrier import reach  # noqa: PLC0415

            return await reach(self._url)
        try:
            await asyncio.to_thread(self._hylafax().probe)
        except RsoError as exc:
            return Health(ok=False, detail=str(exc))
        return Health(ok=True, detail="HylaFAX answers")


@hookimpl
def rso_register_notifiers() -> list[type[Notifier]]:
    """Fax."""
    return [Fax]


@hookimpl
def rso_register_pages() -> list[Page]:
    """What became of every message."""
    return [MESSAGES]


@hookimpl
def rso_register_exam_actions() -> list[ExamAction]:
    """Telling people of an exam."""
    return [TELL_SOMEBODY]


@hookimpl
def rso_register_tiles() -> list[Tile]:
    """Messages of the last day."""
    return [MESSAGES_TILE]
