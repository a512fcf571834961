"""The other ways a fax goes: a gateway that takes mail, and a fax service."""

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from aiosmtpd.controller import Controller
from hypothesis import given, settings
from hypothesis import strategies as st
from rso_fax.hylafax import _word
from rso_fax.plugin import Fax, FaxConfig
from rso_fax.sheet import draw_fax

from rso.core.errors import PermanentTransportError
from rso.plugins import Message, Secret
from rso.testing.site import free_port


def fax() -> Message:
    """A message."""
    return Message(
        key="1", event="manual", address="+12025550100", subject="STAT exam",
        text="STAT exam ...TX9C needs you.", exam_number="7Q2K-M4TX-9C",
    )  # fmt: skip


class Post:
    """Keeps the mails and whom they were for."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Take it."""
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.append((list(envelope.rcpt_tos), mail))  # type: ignore[arg-type]
        return "250 Kept"


async def test_by_a_mail_gateway() -> None:
    """The PDF goes as an attachment to the number at the gateway."""
    post = Post()
    controller = Controller(post, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        url = f"mailto://127.0.0.1:{controller.port}?from=rso@example.org&to={{digits}}@fax.example"
        notifier = Fax(FaxConfig(url=Secret(url), sender="North Clinic"))
        assert await notifier.send(fax()) == "accepted"
        assert await notifier.follow("accepted") == ""
    finally:
        controller.stop()
    ((to, mail),) = post.mails
    assert to == ["12025550100@fax.example"]
    (document,) = [p for p in mail.walk() if p.get_content_type() == "application/pdf"]
    assert document.get_payload(decode=True).startswith(b"%PDF")  # type: ignore[union-attr]


class Service(BaseHTTPRequestHandler):
    """Notifyre's fax interface, as far as it is used."""

    status: ClassVar[int] = 200
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """Take a fax."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(json.loads(body))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    """On loopback, where Apprise's own address of the service points to for now."""
    import apprise.plugins.notifyre as module  # noqa: PLC0415

    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(
        module, "NOTIFYRE_FAX_URL", f"http://127.0.0.1:{server.server_port}/fax/send"
    )
    Service.status = 200
    Service.asked.clear()
    yield Service
    server.shutdown()
    thread.join()
    server.server_close()


async def test_by_a_fax_service(service: type[Service]) -> None:
    """Number and PDF reach it; its refusal is final."""
    url = "notifyre://a-token/{address}?mode=fax"
    notifier = Fax(FaxConfig(url=Secret(url), sender="North Clinic"))
    assert await notifier.send(fax()) == "accepted"
    (asked,) = service.asked
    assert [r["value"].lstrip("+") for r in asked["recipients"]] == ["12025550100"]
    documents = [b64decode(d["base64Str"]) for d in asked["documents"] if "pdf" in d["contentType"]]
    assert [d[:4] for d in documents] == [b"%PDF"]
    service.status = 401
    with pytest.raises(PermanentTransportError, match="401"):
        await notifier.send(fax())


@given(st.text(max_size=300))
def test_no_text_ends_a_command(text: str) -> None:
    """What goes between quotes of HylaFAX's protocol cannot leave them."""
    word = _word(text)
    assert not set(word) & set('"\\\r\n\0')
    assert all(c.isprintable() or ord(c) > 0x7F for c in word)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=200), st.text(max_size=80))
def test_any_text_can_be_drawn(text: str, subject: str) -> None:
    """A page is made of it, whatever it is."""
    message = Message(key="1", event="manual", address="+1", subject=subject, text=text)
    assert draw_fax(message, subject).startswith(b"%PDF")
