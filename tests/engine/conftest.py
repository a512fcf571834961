"""Fixtures of the engine's tests."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec import structs

from rso.core.exam import Exam, Patient, Priority
from rso.core.notifier import Notifier
from rso.dicom.part10 import read_file_meta
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.notify import exam_notifications
from rso.engine.notify_loop import send_due
from rso.ledger import Ledger
from rso.ledger.exams import now
from rso.ledger.site import load_site
from rso.plugins import Plugins, hookimpl, load_plugins
from rso.settings import Settings, load_settings
from rso.testing.notifier import FakeNotifier


@pytest.fixture
def dataset(samples: Path) -> tuple[bytes, str]:
    """A real dataset and its Transfer Syntax."""
    data = (samples / "CT_small.dcm").read_bytes()
    meta = read_file_meta(data[: 1 << 16])
    return data[meta.dataset_offset :], meta.transfer_syntax_uid


ONE_WAY: dict[str, Any] = {
    "facility": [{"code": "NORTH", "radiologists": [{"code": "R"}]}],
    "radiologist": [{"code": "R", "destinations": [
        {"code": "R-PACS", "sender": "dicom_scu", "options": {
            "ae_title": "PACS", "host": "127.0.0.1", "port": 1}}]}],
}  # fmt: skip


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """A facility with one destination, on either database."""
    (tmp_path / "rso.toml").write_text("")
    settings = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, ONE_WAY)
    archive = LocalArchive(tmp_path / "archive")
    archive.prepare()
    return Engine(ledger=ledger, plugins=load_plugins(settings), settings=settings, archive=archive)


SITE: dict[str, Any] = {
    "facility": [{"code": "NORTH"}, {"code": "SOUTH"}],
    "user": [
        {
            "email": "tech@example.org", "role": "technician", "facilities": ["NORTH"],
            "contacts": [
                {"channel": "sms", "address": "+12025550100"},
                {"channel": "email", "address": "tech@example.org"},
            ],
        },
        {
            "email": "south@example.org", "role": "technician", "facilities": ["SOUTH"],
            "contacts": [{"channel": "sms", "address": "+12025550199"}],
        },
        {
            "email": "boss@example.org", "role": "coordinator",
            "contacts": [{"channel": "email", "address": "boss@example.org",
                          "quiet": "22:00-07:00", "timezone": "UTC", "breaks_quiet": True}],
        },
    ],
}  # fmt: skip


class Sms(FakeNotifier):
    name = "sms"


class Email(FakeNotifier):
    name = "email"


class Fax(FakeNotifier):
    name = "fax"
    follows = True


class World:
    """An engine with three providers."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.ledger = engine, engine.ledger
        self.sms, self.email, self.fax = Sms(), Email(), Fax()
        self.at = now()

    async def exam(self, priority: Priority = Priority.ROUTINE, name: str = "DOE^JANE") -> Exam:
        """A requested exam."""
        return await create_exam(
            self.engine, facility="NORTH", patient=Patient(name=name, patient_id="P-77"),
            priority=priority, actor="customer@example.org",
        )  # fmt: skip

    async def run(self, at: datetime | None = None) -> None:
        """Send everything that is due."""
        notifiers = {n.name: n for n in (self.sms, self.email, self.fax)}
        while await send_due(self.engine, "test", notifiers, at=at or now()):
            pass

    async def states(self) -> list[str]:
        """Of all messages, the oldest first."""
        return [row["state"] for row in await exam_notifications(self.ledger)][::-1]


def settings_in(folder: Path) -> Settings:
    """Settings of a folder."""
    (folder / "rso.toml").write_text('[site]\nname = "RSO"\nbase_url = "https://rso.example.org"\n')
    return load_settings(folder / "rso.toml")


@pytest.fixture
def settings_of() -> Callable[[Path], Settings]:
    """Settings of a folder."""
    return settings_in


@pytest.fixture
async def world(ledger: Ledger, tmp_path: Path) -> World:
    """Loaded with the site."""
    settings = settings_in(tmp_path)
    plugins = Plugins(structs.replace(settings, plugins={"fakes": {}}))
    module = ModuleType("fakes")

    @hookimpl
    def rso_register_notifiers() -> list[type[Notifier]]:
        return [Sms, Email, Fax]

    module.rso_register_notifiers = rso_register_notifiers  # type: ignore[attr-defined]
    plugins.register(module, "fakes")
    engine = Engine(
        ledger=ledger, plugins=plugins, settings=settings, archive=LocalArchive(tmp_path / "a")
    )
    await load_site(ledger, SITE)
    return World(engine)
