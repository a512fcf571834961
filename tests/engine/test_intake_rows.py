"""Whatever a header says, its instance gets its rows, on both databases."""

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from rso.core.exam import Patient
from rso.core.transport import Kind, Provenance
from rso.dicom.elements import IMPLICIT_LITTLE
from rso.dicom.header import _WANTED, scan_header
from rso.dicom.part10 import build_file_meta
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import create_exam
from rso.engine.intake import take_records
from rso.engine.spool_reader import InstanceRecord
from rso.engine.spool_segment import StoredProvenance
from rso.ledger import Ledger, new_id
from rso.ledger.exams import now
from rso.ledger.site import load_site
from rso.plugins import load_plugins
from rso.settings import load_settings

SITE: dict[str, Any] = {"facility": [{"code": "NORTH", "radiologists": [{"code": "R"}]}],
                        "radiologist": [{"code": "R"}]}  # fmt: skip
UIDS = {0x00080016: b"1.2.3", 0x00080018: b"1.2.4", 0x0020000D: b"1." + b"2" * 62,
        0x0020000E: b"1.2.6"}  # fmt: skip
GROWS = "\u00df"  # two letters when folded
GROWS_MOST = "\ufdfa"  # eighteen


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """An engine on either database with an empty archive."""
    (tmp_path / "rso.toml").write_text("")
    loaded = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, SITE)
    archive = LocalArchive(tmp_path / "archive")
    archive.prepare()
    return Engine(ledger=ledger, plugins=load_plugins(loaded), settings=loaded, archive=archive)


def record(text: bytes, kind: Kind, **said: str) -> InstanceRecord:
    """An instance whose every text is this one, in UTF-8, as the spool hands it over."""
    body = b""
    for tag in sorted(_WANTED):
        value = UIDS.get(tag, text)
        if tag == 0x00080005:
            value = b"ISO_IR 192"
        if tag == 0x00100030:
            value = text[:10]  # a longer birth date is read as none
        value += b"\0" * (len(value) % 2)
        body += struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value
    body += struct.pack("<HHLH", 0x0028, 0x0010, 2, 1)
    provenance = Provenance(
        channel="dicom_scp", facility="NORTH", source="x", kind=kind, peer_address="127.0.0.1",
        opened_at=now(),
    )  # fmt: skip
    header, batch = scan_header(body, IMPLICIT_LITTLE), new_id()
    meta = build_file_meta(
        sop_class_uid="1.2.3", sop_instance_uid="1.2.4", transfer_syntax_uid=IMPLICIT_LITTLE,
        private_information=msgspec.json.encode(
            StoredProvenance(batch=batch, provenance=provenance)
        ),
    )  # fmt: skip
    return InstanceRecord(
        record_id=new_id(), batch_id=batch, provenance=provenance,
        header=structs.replace(header, **said), part10=memoryview(meta + body), path=None,
        dataset_offset=len(meta), size=len(body), received_at=now(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    "text",
    [
        GROWS.encode() * 201,
        GROWS.encode() * 5000,
        GROWS_MOST.encode() * 300,
        "\U00020bb7".encode() * 1000,
        b"A" * 5000,
        b"A\0B\x1b\x7f\xc2\x85" * 3,
        b"\0" * 40,
        b"\xff\xed\xa0\x80" * 200,
    ],
    ids=["grows", "grows long", "grows most", "four bytes", "long", "controls", "NUL", "no UTF-8"],
)
async def test_every_text_of_a_header_fits_its_column(
    engine: Engine, kind: Kind, text: bytes
) -> None:
    """Longer than its column, longer once it is folded, with NUL, or no text at all."""
    assert await take_records(engine, [record(text, kind)]) == 1
    rows = await engine.ledger.fetch(
        "SELECT s.state FROM instance i JOIN study s ON s.id = i.study"
    )
    assert len(rows) == 1
    assert rows[0]["state"] in {"matched", "held"}


@pytest.mark.parametrize("odd", ["", "1." + "2" * 80, "1.2\0.3", "1.2.840.\ufffd"])
async def test_a_record_of_before_the_check(engine: Engine, odd: str) -> None:
    """A Transfer Syntax and a SOP Class that are no UIDs are none, and hold intake up for nobody."""
    taken = record(b"A", Kind.TECHNICIAN, transfer_syntax_uid=odd, sop_class_uid=odd)
    assert await take_records(engine, [taken]) == 1
    rows = await engine.ledger.fetch("SELECT sop_class_uid, transfer_syntax_uid FROM instance")
    assert rows == [{"sop_class_uid": "", "transfer_syntax_uid": ""}]


@pytest.mark.parametrize("letter", [GROWS, GROWS_MOST])
async def test_a_name_that_grows_when_it_is_folded(engine: Engine, letter: str) -> None:
    """An exam is made, and edited, and found by its beginning."""
    patient = Patient(name="A" + letter * 299)
    exam = await create_exam(engine, facility="NORTH", patient=patient, actor="t")
    other = structs.replace(patient, name="B" + letter * 299)
    await edit_exam(engine, exam, actor="t", patient=other)
    rows = await engine.ledger.fetch("SELECT name_key FROM exam WHERE name_key LIKE 'b%'")
    assert [len(row["name_key"]) for row in rows] == [400]
