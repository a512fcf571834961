"""The header scan, the completeness walk, coercion and stamping, on real and on hostile bytes."""

import contextlib
import io
import struct
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rso.core.coercion import Coercion
from rso.core.errors import IntakeError, NotDicomError, RefusedError
from rso.dicom.coerce import CoercionError, splice
from rso.dicom.header import _scan, _scan_usual, scan_beginning, scan_header
from rso.dicom.part10 import build_file_meta, read_file_meta, walk, walk_bytes
from rso.dicom.stamp import stamp_file

EXPLICIT = "1.2.840.10008.1.2.1"
SAMPLES = sorted(
    p
    for p in (Path(pydicom.__file__).parent / "data").rglob("*")
    if p.is_file() and p.stat().st_size > 200 and p.read_bytes()[128:132] == b"DICM"
)


def readable() -> list[tuple[Path, bytes, str]]:
    """Dataset and Transfer Syntax of every sample that has the needed identifiers."""
    found = []
    for path in SAMPLES:
        data = path.read_bytes()
        try:
            meta = read_file_meta(data[: 1 << 17])
            scan_header(data[meta.dataset_offset :], meta.transfer_syntax_uid)
        except IntakeError:
            continue
        found.append((path, data[meta.dataset_offset :], meta.transfer_syntax_uid))
    return found


READABLE = readable()


def test_agrees_with_pydicom_on_every_sample() -> None:
    """Identifiers and the patient read as pydicom reads them."""
    assert len(READABLE) > 100
    for path, dataset, syntax in READABLE:
        header = scan_header(memoryview(dataset), syntax)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = pydicom.dcmread(path, stop_before_pixels=True)
            name = str(expected.get("PatientName", "") or "")
        assert header.sop_instance_uid == expected.SOPInstanceUID, path
        assert header.study_instance_uid == expected.StudyInstanceUID, path
        assert header.patient.patient_id == str(expected.get("PatientID", "") or ""), path
        if not header.undecodable:
            assert header.patient.name.rstrip("=") == name.strip().rstrip("="), path


def test_every_cut_of_a_real_file_is_refused_or_read_alike(tmp_path: Path) -> None:
    """A file cut anywhere never raises anything else, and never counts as complete."""
    path = next(p for p in SAMPLES if p.name == "MR_small.dcm")
    data = path.read_bytes()
    meta = read_file_meta(data[: 1 << 17])
    cut = tmp_path / "cut.dcm"
    assert walk(path).complete
    for end in [*range(0, 2000, 7), *range(2000, len(data), 331)]:
        cut.write_bytes(data[:end])
        assert not walk(cut).complete
        dataset = data[meta.dataset_offset : end]
        with contextlib.suppress(NotDicomError):
            scan_header(dataset, meta.transfer_syntax_uid)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=400), st.sampled_from([EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"])
)
def test_hostile_bytes_are_refused(data: bytes, syntax: str) -> None:
    """Random bytes raise only what a receiver expects."""
    with pytest.raises((NotDicomError, RefusedError)):
        scan_header(data, syntax)


def test_deep_nests_and_lying_lengths_are_refused() -> None:
    """400 nested sequences, and an element of 4 GiB, end at once."""
    nest = b"".join(
        struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        for _ in range(400)
    )
    with pytest.raises(NotDicomError, match="deeper"):
        scan_header(nest, EXPLICIT)
    lying = struct.pack("<HH2sHL", 0x0008, 0x0001, b"UN", 0, 0xFFFFFFF0) + b"\0" * 64
    with pytest.raises(NotDicomError, match="past the end"):
        scan_header(lying, EXPLICIT)
    with pytest.raises(RefusedError):
        scan_header(b"", "1.2.840.10008.1.2.1.99")


def test_coercion_changes_only_what_it_says() -> None:
    """Every element but the coerced ones and Original Attributes stays byte for byte."""
    coercion = Coercion(patient_id="P1", patient_name="DOE^JANE", birth_date="19700131")
    coerced = {0x00100010, 0x00100020, 0x00100030, 0x04000561}
    changed = 0
    for path, dataset, syntax in READABLE:
        leading, resume = splice(dataset, syntax, coercion)
        meta = build_file_meta(
            sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax_uid=syntax
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = pydicom.dcmread(io.BytesIO(meta + dataset), force=True)
            after = pydicom.dcmread(io.BytesIO(meta + leading + dataset[resume:]), force=True)
            assert (after.PatientID, str(after.PatientName)) == ("P1", "DOE^JANE"), path
            kept = after.OriginalAttributesSequence[-1]
            assert kept.ReasonForTheAttributeModification == "COERCE"
            if "PatientID" in before:
                assert kept.ModifiedAttributesSequence[0].PatientID == before.PatientID
            for element in before:
                if element.tag in coerced or element.tag.element == 0:
                    continue
                assert after[element.tag].value == element.value, (path, element.tag)
        changed += 1
    assert changed > 100


def test_a_name_outside_the_character_set_is_refused_not_mangled() -> None:
    """A value that the declared set cannot write raises; an undeclared set becomes UTF-8."""
    by_name = {p.name: (d, s) for p, d, s in READABLE}
    dataset, syntax = by_name["J2K_pixelrep_mismatch.dcm"]
    with pytest.raises(CoercionError):
        splice(dataset, syntax, Coercion(patient_name="DOE^JÄNE"))


@pytest.mark.parametrize("content", [b"a" * 5000, b"\0" * 128 + b"DICM" + b"\xff" * 900])
def test_what_is_no_dicom_is_not_stamped(tmp_path: Path, content: bytes) -> None:
    """A read-me among a CD's files is named as such and leaves nothing behind."""
    source, target = tmp_path / "README.TXT", tmp_path / "out"
    source.write_bytes(content)
    with pytest.raises(NotDicomError):
        stamp_file(source, target, "7Q2KM4TX9C")
    assert not target.exists()


def test_stamp_changes_patient_id_alone(tmp_path: Path) -> None:
    """A stamped file differs in (0010,0020) only."""
    source = next(p for p in SAMPLES if p.name == "CT_small.dcm")
    target = tmp_path / "out.dcm"
    stamp_file(source, target, "7Q2KM4TX9C")
    before, after = pydicom.dcmread(source), pydicom.dcmread(target)
    assert after.PatientID == "7Q2KM4TX9C"
    after.PatientID = before.PatientID
    assert after == before
    original, stamped = source.read_bytes(), target.read_bytes()
    assert stamped.endswith(original[original.index(b"1CT1") + 4 :])


def test_file_meta_is_read_back_by_pydicom() -> None:
    """RSO's own file meta is valid Part 10, and its provenance survives."""
    data = build_file_meta(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=EXPLICIT,
        source_ae_title="NORTHCT",
        private_information=b'{"a":1}',
    )
    meta = pydicom.dcmread(io.BytesIO(data)).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.SourceApplicationEntityTitle == "NORTHCT"
    assert data[:128] == bytes(128)
    ours = read_file_meta(data)
    assert ours.private_information == b'{"a":1}'
    assert ours.dataset_offset == len(data)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=6))))
def test_the_quick_scan_finds_what_the_careful_one_finds(
    samples: Path, changes: list[tuple[int, bytes]]
) -> None:
    """On a real header damaged anywhere: the same elements, or nothing."""
    data = (samples / "CT_small.dcm").read_bytes()
    meta = read_file_meta(data[: 1 << 16])
    damaged = bytearray(data[meta.dataset_offset :])
    for at, what in changes:
        damaged[at : at + len(what)] = what
    quick = _scan_usual(bytes(damaged))
    try:
        careful = _scan(bytes(damaged), EXPLICIT, len(damaged), whole=True)
    except NotDicomError:
        careful = None
    assert quick is None or quick == careful
    if not changes:
        assert quick


@pytest.mark.parametrize("odd", ["", "1." + "2" * 63, "1.2.840.\ufffd", "1.2\0.3", "explicit"])
def test_a_transfer_syntax_that_is_no_uid_is_not_guessed_at(odd: str, samples: Path) -> None:
    """Whichever scan; and a file that names one is no cut file, more of it would not help."""
    data = (samples / "CT_small.dcm").read_bytes()
    dataset = data[read_file_meta(data).dataset_offset :]
    with pytest.raises(NotDicomError, match="Transfer Syntax is no UID"):
        scan_header(dataset, odd)
    with pytest.raises(NotDicomError, match="Transfer Syntax is no UID"):
        scan_beginning(dataset, odd, len(dataset))
    meta = build_file_meta(
        sop_class_uid="1.2",
        sop_instance_uid="1.3",
        transfer_syntax_uid=odd.encode("ascii", "replace").decode(),
    )
    assert walk_bytes(meta + dataset[:1000]).complete
