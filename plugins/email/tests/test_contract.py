"""Email keeps the notifiers' contract against a real SMTP server that also refuses and delays."""

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from rso_email.plugin import Email, EmailConfig

from rso.core.errors import ConfigError, PermanentTransportError, TransientTransportError
from rso.plugins import Message, Notifier, Secret
from rso.plugins.config import decode_section
from rso.testing.contracts import NotifierContract
from rso.testing.site import free_port


class Post:
    """Takes mail, except for those it knows."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        """550 for one, 451 for another."""
        if address.startswith("gone@"):
            return "550 No such user"
        if address.startswith("grey@"):
            return "451 Greylisted, try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep it."""
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 Kept"


@pytest.fixture(scope="module")
def post() -> Iterator[tuple[Post, int]]:
    """A running server."""
    handler = Post()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield handler, controller.port
    controller.stop()


def notifier(port: int) -> Email:
    """One that uses it."""
    return Email(EmailConfig(url=Secret(f"mailto://127.0.0.1:{port}?from=rso@example.org")))


def mail(address: str = "tech@example.org", subject: str = "STAT exam requested") -> Message:
    """A message."""
    return Message(
        key="1", event="manual", address=address, subject=subject,
        text="Exam ...M4TX: http://rso.example.org/exams/7Q2KM4TX9C",
        html='<p>Exam ...M4TX: <a href="http://rso.example.org/exams/7Q2KM4TX9C">here</a></p>',
    )  # fmt: skip


class TestEmail(NotifierContract):
    """Contract."""

    @pytest.fixture(autouse=True)
    def _post(self, post: tuple[Post, int]) -> None:
        self.post, self.port = post
        self.post.mails.clear()

    def make(self) -> Notifier:
        """At the server."""
        return notifier(self.port)

    def make_broken(self) -> Notifier:
        """At nobody."""
        return notifier(free_port())

    def message(self) -> Message:
        """Any."""
        return mail()

    async def test_what_arrives(self) -> None:
        """Text and HTML, marked as a machine's."""
        await notifier(self.port).send(mail())
        got = self.post.mails[0]
        assert got["To"].addresses[0].addr_spec == "tech@example.org"
        assert got["From"].addresses[0].addr_spec == "rso@example.org"
        assert got["Subject"] == "STAT exam requested"
        assert got["Auto-Submitted"] == "auto-generated"
        kinds = {part.get_content_type() for part in got.walk()}
        assert {"text/plain", "text/html"} <= kinds

    async def test_refusals_are_told_apart(self) -> None:
        """550 is final for this address, 451 passes; neither repeats the address."""
        with pytest.raises(PermanentTransportError, match="550") as refused:
            await notifier(self.port).send(mail("gone@example.org"))
        assert "gone" not in str(refused.value)
        with pytest.raises(TransientTransportError, match="451"):
            await notifier(self.port).send(mail("grey@example.org"))
        assert not self.post.mails

    async def test_headers_cannot_be_added(self) -> None:
        """A line break in a subject is a blank."""
        await notifier(self.port).send(mail(subject="a\r\nBcc: evil@example.org\r\n\r\nbody"))
        got = self.post.mails[0]
        assert got["Bcc"] is None
        assert "evil" in str(got["Subject"])


@pytest.mark.parametrize("url", [
    "mailto://host?from=a@b.c", "mailtos://host?from=a@b.c&verify=no", "mailtos://host?mode=insecure",
    "mailtos://host?VERIFY=False", "sendgrid://key:a@b.c/",
])  # fmt: skip
def test_patient_data_needs_tls(url: str) -> None:
    """The opt-in is refused, with its place, unless TLS is verified; and it is off by default."""
    section = {"url": url, "patient_data": True}
    with pytest.raises(ConfigError, match=r"mailtos.*\$"):
        decode_section(EmailConfig, section, "plugins.email")
    plain = decode_section(EmailConfig, {"url": url}, "plugins.email")
    assert not Email(plain).carries_patient_data
    safe = {"url": "mailtos://u:p@host?from=a@b.c", "patient_data": True}
    assert Email(decode_section(EmailConfig, safe, "plugins.email")).carries_patient_data


@pytest.mark.parametrize("tls", [False, True])
async def test_tls_is_enforced(tls: bool, tmp_path: Path) -> None:
    """A server without TLS, or with a certificate of its own making, gets nothing."""
    handler = Post()
    context = own_certificate(tmp_path) if tls else None
    controller = Controller(handler, hostname="127.0.0.1", port=free_port(), tls_context=context)
    controller.start()
    try:
        url = f"mailtos://127.0.0.1:{controller.port}?from=rso@example.org"
        with pytest.raises(TransientTransportError):
            await Email(EmailConfig(url=Secret(url), patient_data=True)).send(mail())
    finally:
        controller.stop()
    assert not handler.mails


def own_certificate(folder: Path) -> ssl.SSLContext:
    """TLS with a certificate that nobody vouches for."""
    key, pem = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-keyout", key, "-out", pem],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return context


async def test_a_server_that_hangs_holds_up_nobody(post: tuple[Post, int]) -> None:
    """It takes the connection and says nothing: given up in time, and nothing is lost."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mailto://127.0.0.1:{server.getsockname()[1]}?from=rso@example.org&cto=3&rto=3"
        began = time.monotonic()
        hanging = asyncio.create_task(Email(EmailConfig(url=Secret(url))).send(mail()))
        await asyncio.sleep(0.2)
        await notifier(post[1]).send(mail())  # nobody waits for it
        assert post[0].mails
        assert not hanging.done()
        with pytest.raises(TransientTransportError):
            await hanging
        assert time.monotonic() - began < 20


def test_addresses() -> None:
    """One address, nothing else."""
    email = notifier(1)
    assert email.check_address(" tech@example.org ") == "tech@example.org"
    for wrong in ("a@b@c", "a b@c", "a@b,c@d", "a@b\r\nBcc: c@d", "", "@"):
        with pytest.raises(ConfigError, match=r"name@example\.org"):
            email.check_address(wrong)
