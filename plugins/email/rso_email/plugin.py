"""The notifier: email through a mail server or any mail service that Apprise knows."""

import re
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

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
    Secret,
    Tile,
    hookimpl,
)

__all__ = [
    "Email",
    "EmailConfig",
    "rso_register_exam_actions",
    "rso_register_notifiers",
    "rso_register_pages",
    "rso_register_tiles",
]


_TLS_MODES = frozenset({"", "ssl", "starttls"})


def _is_safe(url: str) -> bool:
    """Whether Apprise would neither fall back to plain text nor skip the certificate's check."""
    parts = urlsplit(url)
    asked = {name.lower(): values[-1].lower() for name, values in parse_qs(parts.query).items()}
    verified = asked.get("verify", "yes") in {"yes", "true", "1", "on"}
    return parts.scheme == "mailtos" and verified and asked.get("mode", "") in _TLS_MODES


class EmailConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.email]``."""

    url: Annotated[
        Secret,
        Meta(description="Apprise URL: mailtos://user:password@host:port?from=rso@example.org"),
    ]
    patient_data: Annotated[
        bool, Meta(description="mails name the patient; refused without TLS that is verified")
    ] = False

    def __post_init__(self) -> None:
        if self.patient_data and not _is_safe(self.url.reveal()):
            raise ValueError("patient_data needs a mailtos:// url with TLS that is verified")


class Email(Notifier):
    """One email to one address, as HTML and as text."""

    name = "email"
    config_type = EmailConfig

    def __init__(self, config: EmailConfig) -> None:
        super().__init__(config)
        url = config.url.reveal()
        if url.startswith(("mailto:", "mailtos:")):
            # So that nobody's absence notice answers a machine (RFC 3834).
            url += ("&" if "?" in url else "?") + "+Auto-Submitted=auto-generated"
        self._url = url

    @property
    def carries_patient_data(self) -> bool:
        """As the deployer decided; the configuration was refused without TLS."""
        return bool(self.config.patient_data)

    def check_address(self, address: str) -> str:
        """One address, and nothing that a mail header could be made of."""
        plain = address.strip()
        if not re.fullmatch(r"[^\s@,;<>\"]{1,64}@[^\s@,;<>\"]{1,189}", plain):
            raise ConfigError("an email address is written as name@example.org")
        return plain

    async def send(self, message: Message) -> str:
        """Hand it to the mail server; 550 and the like are final, 451 and the like are not."""
        from rso.plugins.carrier import fill_address, hand_over  # noqa: PLC0415

        url = fill_address(self._url, message.address)
        return await hand_over(url, subject=message.subject, text=message.text, html=message.html)

    async def health(self) -> Health:
        """Whether the mail server answers."""
        from rso.plugins.carrier import reach  # noqa: PLC0415

        return await reach(self._url)


@hookimpl
def rso_register_notifiers() -> list[type[Notifier]]:
    """Email."""
    return [Email]


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
