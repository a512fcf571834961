"""Fax keeps the notifiers' contract against a real HylaFAX without a modem; the page is read."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rso_fax.plugin import Fax, FaxConfig
from rso_fax.sheet import draw_fax

from rso.core.errors import ConfigError
from rso.plugins import Message, Notifier, Secret
from rso.testing.contracts import NotifierContract
from rso.testing.hylafax import HylafaxServer
from rso.testing.site import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[HylafaxServer]:
    """HylaFAX's queue and its front, without a modem."""
    made = HylafaxServer()
    made.start()
    yield made
    made.stop()


def notifier(port: int) -> Fax:
    """One that uses it."""
    url = f"hylafax://rso@127.0.0.1:{port}/{{address}}"
    return Fax(FaxConfig(url=Secret(url), sender="North Clinic"))


def fax(**changes: str) -> Message:
    """A message."""
    values = {
        "key": "1", "event": "manual", "address": "+12025550100", "subject": "STAT exam",
        "text": "STAT exam ...X9CA needs you. Sign in: http://rso.example.org/exams/7Q2KM4TX9C",
        "exam_number": "7Q2K-M4TX-9C",
    }  # fmt: skip
    return Message(**{**values, **changes})


class TestFax(NotifierContract):
    """Contract."""

    @pytest.fixture(autouse=True)
    def _server(self, server: HylafaxServer) -> None:
        self.server = server

    def make(self) -> Notifier:
        """At HylaFAX."""
        return notifier(self.server.port)

    def make_broken(self) -> Notifier:
        """At nobody."""
        return notifier(free_port())

    def message(self) -> Message:
        """Any."""
        return fax()

    async def test_the_job_is_followed(self) -> None:
        """It stands in the queue with number, tag and our PDF; given up, it has failed."""
        notifier_ = notifier(self.server.port)
        ticket = await notifier_.send(fax())
        job = ticket.removeprefix("job ")
        queued = self.server.job(job)
        assert queued["number"] == "+12025550100"
        assert queued["jobtag"] == "North Clinic 7Q2K-M4TX-9C"
        assert self.server.document(queued).startswith(b"%PDF")
        assert await notifier_.follow(ticket) == ""
        self.server.give_up(job)
        assert await notifier_.follow(ticket) == "failed"

    async def test_commands_cannot_be_added(self) -> None:
        """Quotes and line ends in a number or tag stay words."""
        ticket = await notifier(self.server.port).send(
            fax(address='+1202"\r\nJKILL 1', exam_number='X"\r\nDELE a')
        )
        queued = self.server.job(ticket.removeprefix("job "))
        assert queued["number"] == "+12021"
        assert queued["jobtag"] == "North Clinic XDELE a"


def test_the_page_can_be_read(peer: Callable[[str], str], tmp_path: Path) -> None:
    """QR code and barcode decode to the number, as a fax shows them; any letters."""
    file = tmp_path / "fax.pdf"
    file.write_bytes(draw_fax(fax(text="Žluťoučký кôň Ελληνικά ...9CAB", language="de"), "Ålesund"))
    subprocess.run([peer("pdftoppm"), "-r", "196", "-mono", file, tmp_path / "page"], check=True)
    pages = sorted(tmp_path.glob("page*"))
    assert len(pages) == 2
    read = subprocess.run(
        [peer("zbarimg"), "-q", pages[1]], capture_output=True, text=True, check=False
    ).stdout.split()
    assert sorted(read) == ["CODE-128:7Q2KM4TX9C", "QR-Code:7Q2KM4TX9C"]
    cover = subprocess.run(
        [peer("pdftotext"), "-l", "1", file, "-"], capture_output=True, text=True, check=True
    ).stdout
    assert "Žluťoučký кôň Ελληνικά" in cover
    assert "7Q2K" not in cover
    assert "Vertraulich" in cover


def test_hostile_text_stays_on_the_page() -> None:
    """Endless words, control characters and nothing at all."""
    for text in ("x" * 5000, "\0\x1b[2J\u202e", "", "(\\) Tj ET"):
        assert draw_fax(fax(text=text, subject=text), text).startswith(b"%PDF")


def test_numbers() -> None:
    """As SMS takes them."""
    with pytest.raises(ConfigError):
        notifier(1).check_address("911")
