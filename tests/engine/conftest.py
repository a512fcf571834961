"""Fixtures of the engine's tests."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec import structs

from rso.core.exam import Exam, Patient, Priority
from rso.core.header import Header
from rso.core.notifier import Notifier
from rso.core.transport import Kind, Provenance
from rso.dicom.part10 import read_file_meta
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.exams import create_exam
from rso.engine.intake import take_records
from rso.engine.notify import exam_notifications
from rso.engine.notify_loop import send_due
from rso.engine.settle import conclude, settle_exams
from rso.engine.spool_reader import InstanceRecord
from rso.ledger import Ledger, new_id
from rso.ledger.deliveries import Answer, claim_items, complete_items, deliveries_of
from rso.ledger.exams import exam_by_id, now
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


def arrived(patient: Patient, *, image: int, text: str = "", **said: Any) -> InstanceRecord:
    """An instance as the spool hands it over: an image of Study 1.2, by its last number.

    ``text`` makes other content of the same image; ``said`` is of the header or provenance.
    """
    record = new_id()
    data = f"{image} {patient.patient_id} {patient.name} {text}".encode()
    place = {key: said.pop(key) for key in ("kind", "exam_number") if key in said}
    batch = said.pop("batch", "") or new_id()
    return InstanceRecord(
        record_id=record, batch_id=batch, path=None, part10=memoryview(data),
        dataset_offset=0, size=len(data), received_at=now(),
        header=Header(**{
            "sop_class_uid": "1.2", "sop_instance_uid": f"1.2.{image}",
            "study_instance_uid": "1.2", "series_instance_uid": "1.2",
            "transfer_syntax_uid": "1.2", "patient": patient, **said,
        }),
        provenance=Provenance(**{
            "channel": "http_upload", "facility": "NORTH", "source": "x", "kind": Kind.TECHNICIAN,
            "peer_address": "127.0.0.1", "opened_at": now(), **place,
        }),
    )  # fmt: skip


class Clinic:
    """NORTH's exam of JANE, and the Studies that arrive."""

    def __init__(self, engine: Engine, exam: Exam) -> None:
        self.engine, self.ledger, self.exam = engine, engine.ledger, exam
        self.jane = Patient(name="DOE^JANE", patient_id=exam.number, birth_date="19700131")

    def record(self, image: int, **said: Any) -> InstanceRecord:
        """One of JANE's images, not taken in."""
        return arrived(self.jane, image=image, **said)

    async def arrive(self, *images: int, patient: Patient | None = None, **said: Any) -> str:
        """These images come in one group; the key of their row of ``study``."""
        records = [arrived(patient or self.jane, image=image, **said) for image in images]
        await take_records(self.engine, records)
        rows = await self.ledger.fetch(
            "SELECT study FROM instance WHERE digest IN (SELECT digest FROM instance WHERE id = ?)",
            records[0].record_id,
        )
        return str(rows[0]["study"]) if rows else ""

    async def send(self) -> int:
        """Whatever is due arrives, and quiet exams settle; how many images left."""
        rows = await claim_items(self.ledger, "R-PACS", "w", limit=999, seconds=60)
        async with self.ledger.transaction():
            await complete_items(self.ledger, "w", [
                Answer(item=r["item"], delivery=r["delivery"], instance=r["instance"],
                       state="acknowledged", code="0000", attempts=1)
                for r in rows
            ])  # fmt: skip
            await conclude(self.engine, sorted({r["exam"] for r in rows}))
        return len(rows)

    async def settle(self) -> str:
        """The exam falls quiet; its status then."""
        await self.ledger.execute(
            "UPDATE exam SET last_instance_at = ? WHERE id = ?",
            now() - timedelta(days=1), self.exam.id,
        )  # fmt: skip
        await settle_exams(self.engine)
        return (await self.now()).status.value

    async def now(self) -> Exam:
        """The exam as it stands."""
        exam = await exam_by_id(self.ledger, self.exam.id)
        assert exam is not None
        return exam

    async def way(self) -> tuple[str, int, int]:
        """Of the exam's one delivery: its state, what is acknowledged, and of how many."""
        (row,) = await deliveries_of(self.ledger, self.exam.id)
        return row["state"], row["acknowledged"], row["total"]

    async def state(self, study: str) -> str:
        """Of a Study."""
        rows = await self.ledger.fetch("SELECT state FROM study WHERE id = ?", study)
        return str(rows[0]["state"])

    async def hold(self, study: str) -> str:
        """The open hold of a Study."""
        (row,) = await self.ledger.fetch(
            "SELECT id FROM hold WHERE study = ? AND state = 'open' AND kind = 'study'", study
        )
        return str(row["id"])


@pytest.fixture
async def clinic(engine: Engine) -> Clinic:
    """On either database, nothing has come yet."""
    patient = Patient(name="DOE^JANE", birth_date="19700131")
    exam = await create_exam(engine, facility="NORTH", patient=patient, actor="t")
    return Clinic(engine, exam)
