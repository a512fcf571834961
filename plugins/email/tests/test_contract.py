"""Email keeps the notifiers' contract against a real SMTP server that also refuses and delays."""

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from rso_email.plugin import Email, EmailConfig

from rso.core.errors import ConfigError, PermanentTransportError, TransientTransportError
from rso.plugins import Message, Notifier, Secret
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


def test_addresses() -> None:
    """One address, nothing else."""
    email = notifier(1)
    assert email.check_address(" tech@example.org ") == "tech@example.org"
    for wrong in ("a@b@c", "a b@c", "a@b,c@d", "a@b\r\nBcc: c@d", "", "@"):
        with pytest.raises(ConfigError, match=r"name@example\.org"):
            email.check_address(wrong)
