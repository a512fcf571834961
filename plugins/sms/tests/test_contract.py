"""SMS keeps the notifiers' contract against a fake Kannel, and a real one in the whole story."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from rso_sms.plugin import Sms, SmsConfig

from rso.core.errors import ConfigError, PermanentTransportError, TransientTransportError
from rso.plugins import Message, Notifier, Secret
from rso.testing.contracts import NotifierContract
from rso.testing.site import free_port


class Kannel(BaseHTTPRequestHandler):
    """Answers as told, and remembers what it was asked."""

    status: ClassVar[int] = 202
    asked: ClassVar[list[dict[str, list[str]]]] = []

    def do_GET(self) -> None:
        """Take a message."""
        self.asked.append(parse_qs(urlsplit(self.path).query))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"0: Accepted for delivery")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where it listens."""
    server = HTTPServer(("127.0.0.1", 0), Kannel)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def notifier(port: int) -> Sms:
    """One that uses it."""
    url = f"kannel://rso:secret@127.0.0.1:{port}/{{address}}?from=RSO"
    return Sms(SmsConfig(url=Secret(url)))


def text(words: str = "STAT exam ...M4TX needs you.") -> Message:
    """A message."""
    return Message(key="1", event="manual", address="+12025550100", subject="x", text=words)


class TestSms(NotifierContract):
    """Contract."""

    @pytest.fixture(autouse=True)
    def _port(self, port: int) -> None:
        self.port = port
        Kannel.status = 202
        Kannel.asked.clear()

    def make(self) -> Notifier:
        """At the fake."""
        return notifier(self.port)

    def make_broken(self) -> Notifier:
        """At nobody."""
        return notifier(free_port())

    def message(self) -> Message:
        """Any."""
        return text()

    async def test_encoding_is_known(self) -> None:
        """7 bits where they suffice, else UCS-2; the text arrives as it is."""
        for words, coding in (("Exam ...M4TX? 100% & more", "0"), ("Untersuchung für Ω…", "2")):
            await notifier(self.port).send(text(words))
            asked = Kannel.asked[-1]
            assert asked["text"] == [words]
            assert asked["coding"] == [coding]
            assert asked["to"] == ["+12025550100"]
            assert asked["from"] == ["RSO"]

    async def test_answers_are_told_apart(self) -> None:
        """403 is for a person, 503 for later; no answer repeats the number or the secret."""
        Kannel.status = 403
        with pytest.raises(PermanentTransportError, match="answered 403") as refused:
            await notifier(self.port).send(text())
        Kannel.status = 503
        with pytest.raises(TransientTransportError, match="answered 503"):
            await notifier(self.port).send(text())
        assert "secret" not in str(refused.value)
        assert "2025550100" not in str(refused.value)


def test_numbers() -> None:
    """As people write them, and as E.164 does."""
    sms = notifier(1)
    assert sms.check_address("00 1 (202) 555-0100") == "+12025550100"
    for wrong in ("202 555 0100", "+0123456789", "+1202555010a", "", "+1" + "2" * 20):
        with pytest.raises(ConfigError, match="country's code"):
            sms.check_address(wrong)


def test_a_url_needs_a_place_for_the_number() -> None:
    """Said when it is used, by name."""
    from rso.plugins.carrier import fill_address  # noqa: PLC0415

    with pytest.raises(ConfigError, match=r"no \{address\}"):
        fill_address("kannel://host/", "+12025550100")
    assert fill_address("x://h/{digits}", "+12025550100") == "x://h/12025550100"


class Eagle(BaseHTTPRequestHandler):
    """An SMSEagle, which is a device with an interface in JSON of its own."""

    answer: ClassVar[bytes] = b'{"result":{"message_id":1,"status":"ok"}}'
    status: ClassVar[int] = 200
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """Take a message."""
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_another_service_by_its_url() -> None:
    """One that Apprise knows: the number and the text arrive, refusals are told apart."""
    server = HTTPServer(("127.0.0.1", 0), Eagle)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"smseagle://a-token@127.0.0.1:{server.server_port}/{{address}}"
        sms = Sms(SmsConfig(url=Secret(url)))
        assert await sms.send(text("Untersuchung ...TX9C wartet")) == "accepted"
        (asked,) = Eagle.asked
        assert asked["params"]["to"].lstrip("+") == "12025550100"
        assert asked["params"]["message"].strip() == "Untersuchung ...TX9C wartet"
        Eagle.status = 503
        with pytest.raises(TransientTransportError, match="503"):
            await sms.send(text())
        Eagle.status = 403
        with pytest.raises(PermanentTransportError, match="403"):
            await sms.send(text())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
