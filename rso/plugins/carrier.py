"""Handing a message to a provider by Apprise, and learning from it whether to try again."""

import asyncio
import contextlib
import logging
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apprise

from rso.core.errors import ConfigError, PermanentTransportError, TransientTransportError
from rso.core.transport import Health

__all__ = ["add_scheme", "check_phone_number", "fill_address", "hand_over", "open_url", "reach"]

# Apprise loads its plugins on first use, and not for two threads at once.
_LOADING = threading.Lock()
# It tells a provider's words to its log only. They may repeat an address: nobody else reads them.
_LOG = logging.getLogger("apprise")
_SMTP = re.compile(r"\((\d{3}),|: (\d{3}) b|refused: (\d{3})")
_HTTP = re.compile(r"error=(\d{3})|\b(?:HTTP|answered) (\d{3})")
_NETWORKED = frozenset({"mailto", "mailtos", "kannel", "kannels", "hylafax"})


def add_scheme(kind: type[Any], *schemas: str) -> None:
    """Make a ``NotifyBase`` subclass known to Apprise; again is harmless."""
    manager = apprise.manager_plugins.NotificationManager()
    if not any(schema in manager for schema in schemas):
        manager.add(kind, schemas=list(schemas))


def fill_address(url: str, address: str) -> str:
    """A provider's URL with the recipient in its place: ``{address}``, or ``{digits}`` alone.

    A mail URL without a place gets ``to=``.
    """
    digits = re.sub(r"\D", "", address)
    if "{address}" not in url and "{digits}" not in url:
        if not url.startswith(("mailto:", "mailtos:")):
            raise ConfigError("the url has no {address} for the recipient")
        url += ("&" if "?" in url else "?") + "to={address}"
    return url.replace("{address}", quote(address, safe="")).replace("{digits}", digits)


def open_url(url: str) -> Any:
    """Apprise's object for a filled URL.

    Raises:
        ConfigError: Apprise does not know its scheme, or it is written wrongly.
    """
    asset = apprise.AppriseAsset(
        app_id="RSO",
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        secure_logging=True,
        html_notify_map={},
    )
    with _LOADING:
        found = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if found is None:
        scheme = url.partition(":")[0]
        raise ConfigError(f"Apprise cannot read the url of scheme {scheme}")
    return found


class _Words(logging.Handler):
    """Keeps what Apprise says in one thread: a provider that hangs holds up no other."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, if it is of this thread."""
        if record.thread == self._thread:
            self.said.append(record.getMessage())


@contextlib.contextmanager
def _own_words() -> Iterator[list[str]]:
    words = _Words()
    _LOG.propagate = False
    _LOG.setLevel(logging.DEBUG)
    _LOG.addHandler(words)
    try:
        yield words.said
    finally:
        _LOG.removeHandler(words)


async def hand_over(
    url: str, *, subject: str, text: str, html: str = "", files: Sequence[Path] = ()
) -> str:
    """Send one message; returns what the provider is known to have said: ``accepted``.

    Raises:
        TransientTransportError: Not now.
        PermanentTransportError: The provider will never take this.
    """
    return await asyncio.to_thread(_hand_over, url, subject, text, html, files)


def _hand_over(url: str, subject: str, text: str, html: str, files: Sequence[Path]) -> str:
    try:
        target = open_url(url)
    except ConfigError as exc:
        raise PermanentTransportError(str(exc)) from exc
    attach = apprise.AppriseAttachment([str(file) for file in files]) if files else None
    form = apprise.NotifyFormat.HTML if html else apprise.NotifyFormat.TEXT
    with _own_words() as words:
        taken = target.notify(
            body=html or text, title=subject, body_format=form, attach=attach,
        )  # fmt: skip
    said = "\n".join(words)
    if taken:
        return "accepted"
    code = _code(said)
    # What the provider wrote may repeat the address: only its number is passed on.
    reason = f"the provider answered {code}" if code else "the provider cannot be reached"
    if _is_permanent(code, mail=url.startswith(("mailto:", "mailtos:"))):
        raise PermanentTransportError(reason)
    raise TransientTransportError(reason)


def _code(said: str) -> int:
    found = [*_SMTP.findall(said), *_HTTP.findall(said)]
    codes = [int(text) for groups in found for text in groups if text]
    return codes[-1] if codes else 0


def _is_permanent(code: int, *, mail: bool) -> bool:
    if mail:
        return code >= 500  # RFC 5321 4.2.1: 4yz may pass
    return 400 <= code < 500 and code not in {408, 425, 429}


async def reach(url: str) -> Health:
    """Whether the provider's host answers; a service behind an API is only read."""
    try:
        target = open_url(fill_address(url, "+12025550100"))
    except ConfigError as exc:
        return Health(ok=False, detail=str(exc))
    scheme = url.partition(":")[0]
    if scheme not in _NETWORKED:
        return Health(ok=True, detail=f"{scheme}: not asked, sending costs")
    host = getattr(target, "smtp_host", None) or target.host
    port = target.port or (25 if scheme == "mailto" else 0)
    try:
        connection = await asyncio.to_thread(socket.create_connection, (host, port), 5)
    except OSError as exc:
        return Health(ok=False, detail=f"{host}:{port}: {exc.strerror or exc}")
    connection.close()
    return Health(ok=True, detail=f"{host}:{port}")


def check_phone_number(address: str) -> str:
    """A phone number as E.164 writes it: ``+12025550100``.

    Raises:
        ConfigError: It is not one.
    """
    plain = re.sub(r"[\s().\-/]", "", address)
    if plain.startswith("00"):
        plain = f"+{plain[2:]}"
    if not re.fullmatch(r"\+[1-9]\d{6,14}", plain):
        raise ConfigError("a phone number is written as +12025550100, with the country's code")
    return plain
