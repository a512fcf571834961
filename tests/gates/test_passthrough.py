"""R15: what leaves is what came in, in every Transfer Syntax; coerced, only what was asked for.

The oracle is a digest of the dataset's bytes at the PACS against the file that was sent, and for
coerced datasets pydicom's reading of both.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import AllTransferSyntaxes, generate_uid

from rso.core.errors import RsoError
from rso.dicom.part10 import read_file_meta
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for
from rso.testing.storage import Ours

IMPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
# Refused on the public port: deflated ones can be bombs, and a JPIP one refers to pixels elsewhere.
REFUSED = {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95",
           "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205"}  # fmt: skip
ORIGINAL_ATTRIBUTES, ISSUER = 0x04000561, 0x00100021
RESTORED = {0x00080050, 0x00100020, ISSUER, ORIGINAL_ATTRIBUTES}


def dataset_of(path: Path) -> tuple[str, str, bytes]:
    """SOP Instance UID, Transfer Syntax and the dataset's bytes of a Part 10 file."""
    data = path.read_bytes()
    meta = read_file_meta(data[: 1 << 17])
    return meta.sop_instance_uid, meta.transfer_syntax_uid, data[meta.dataset_offset :]


def generated(source: Path, folder: Path) -> Iterator[Path]:
    """One CT slice in every Transfer Syntax; encapsulated bytes are noise, which nobody decodes."""
    for syntax in AllTransferSyntaxes:
        if syntax in REFUSED or syntax.is_deflated:
            continue
        swapped = source.with_name("MR_small_bigendian.dcm")
        dataset = pydicom.dcmread(swapped if syntax == BIG else source)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID = generate_uid()
        dataset.PatientID, dataset.PatientName = "GATE15", "GATE^FIFTEEN"
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax.is_encapsulated:
            dataset.PixelData = encapsulate([bytes(range(256)) * 40, b"\x01\x02\x03\x04" * 999])
            dataset["PixelData"].VR = "OB"
        path = folder / f"{syntax}.dcm"
        dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax != BIG)
        yield path


def real(samples: Path, folder: Path) -> Iterator[Path]:
    """Pydicom's samples that are instances, each with a UID of its own and otherwise untouched."""
    seen: set[str] = set()
    for path in sorted(samples.glob("*.dcm")):
        try:
            uid, syntax, body = dataset_of(path)
        except (RsoError, OSError):
            continue
        if uid in seen or not uid or syntax in REFUSED or uid.encode() not in body:
            continue
        seen.add(uid)
        copy = folder / path.name
        copy.write_bytes(path.read_bytes())
        yield copy


def test_every_transfer_syntax_leaves_as_it_came(
    running: Site, modes: dict[str, Pacs], samples: Path, tmp_path: Path
) -> None:
    """Passthrough: equal digests. Qualify and restore: only the listed elements differ."""
    files = list(generated(samples / "CT_small.dcm", tmp_path))
    syntaxes = {dataset_of(path)[1] for path in files}
    assert len(syntaxes) > 30
    answers: dict[str, int] = {}
    ours = Ours(running, "EASTPACS")
    for path in files:
        ours.send([path], answers)
    assert set(answers.values()) == {0}
    for pacs in modes.values():
        wait_for(lambda pacs=pacs: answers.keys() <= pacs.by_uid().keys(), 60)
    wait_for(lambda: answers.keys() <= modes["restore"].by_uid().keys(), 60)
    for path in files:
        uid, syntax, body = dataset_of(path)
        got = modes["passthrough"].by_uid()[uid]
        assert got.transfer_syntax_uid == syntax
        assert sha256(got.dataset).digest() == sha256(body).digest(), syntax
        qualified = differences(body, modes["qualify"].by_uid()[uid].dataset, syntax)
        assert qualified == {ISSUER, ORIGINAL_ATTRIBUTES}, syntax
        restored = differences(body, modes["restore"].by_uid()[uid].dataset, syntax)
        assert ORIGINAL_ATTRIBUTES in restored
        assert restored <= RESTORED, syntax


def test_real_files_leave_as_they_came(
    running: Site, modes: dict[str, Pacs], samples: Path, tmp_path: Path
) -> None:
    """Pydicom's own samples, from many makers: whatever is passed on is passed on unchanged."""
    files = list(real(samples, tmp_path))
    assert len(files) > 30
    answers: dict[str, int] = {}
    ours = Ours(running, "EASTPACS")
    for path in files:
        ours.send([path], answers)
    sent = {uid: (syntax, body) for uid, syntax, body in map(dataset_of, files)
            if answers.get(uid) == 0}  # fmt: skip
    assert len(sent) > 20
    # Some are held for a person: their identifiers are unusual. The archive has them all.
    archive = running.folder / "site" / "data" / "archive"

    def kept() -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for path in archive.rglob("*.dcm"):
            uid, _, body = dataset_of(path)
            found.setdefault(uid, []).append(body)
        return found

    wait_for(lambda: sent.keys() <= kept().keys(), 60)
    archived = kept()
    for uid, (_, body) in sent.items():
        assert body in archived[uid]

    def arrived() -> dict[str, bytes]:
        got = modes["passthrough"].by_uid()
        return {uid: got[uid].dataset for uid in sent if uid in got}

    wait_for(lambda: len(arrived()) > 10, 60)
    for uid, dataset in arrived().items():
        assert sha256(dataset).digest() == sha256(sent[uid][1]).digest()


def read(data: bytes, syntax: str) -> Dataset:
    """Pydicom's reading of a dataset's bytes."""
    from pydicom.filebase import DicomBytesIO  # noqa: PLC0415
    from pydicom.filereader import read_dataset  # noqa: PLC0415

    return read_dataset(DicomBytesIO(data), syntax == IMPLICIT, syntax != BIG)


def differences(before: bytes, after: bytes, syntax: str) -> set[int]:
    """The tags of elements that are not the same in both, byte for byte."""
    old, new = read(before, syntax), read(after, syntax)
    tags = {int(tag) for tag in [*old.keys(), *new.keys()]}
    return {
        tag for tag in tags
        if tag not in old or tag not in new or old.get_item(tag).value != new.get_item(tag).value
    }  # fmt: skip
