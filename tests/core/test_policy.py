"""Delivery policy, routing, egress and sources."""

from datetime import UTC, datetime

import pytest
from msgspec import structs

from rso.core.delivery import BACKOFF_CAP_SECONDS, backoff, classify_dimse, reason_words
from rso.core.egress import coercion_for, default_egress
from rso.core.exam import Exam, ExamStatus, Origin, Patient
from rso.core.header import Header
from rso.core.routing import Attachment, Conditions, Destination, Hours, route_exam
from rso.core.source import check_sources, explain_refusal, identify_source
from rso.core.transport import Connection, Kind, Source

EXAM = Exam(
    id="1",
    number="7Q2KM4TX9C",
    facility="NORTH",
    origin=Origin.REQUEST,
    status=ExamStatus.REQUESTED,
    patient=Patient(name="DOE^JANE", patient_id="P1", birth_date="19700131", sex="F"),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    modality="CT",
)
HEADER = Header(
    sop_class_uid="1.2",
    sop_instance_uid="1.2.3",
    study_instance_uid="1.2.4",
    series_instance_uid="1.2.5",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    patient=Patient(name="ROE^ANN", patient_id="7Q2KM4TX9C", birth_date="19700131"),
)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, "acknowledged"),
        (0xB000, "acknowledged"),
        (0xB007, "acknowledged"),
        (0x0111, "acknowledged"),
        (0xA700, "retry"),
        (0xA701, "retry"),
        (0x0110, "retry"),
        (0x0213, "retry"),
        (0xA900, "stopped"),
        (0xC000, "stopped"),
        (0x0122, "stopped"),
    ],
)
def test_statuses(status: int, outcome: str) -> None:
    """Every class of C-STORE status means one thing."""
    assert classify_dimse(status).value == outcome


@pytest.mark.parametrize(
    ("code", "comment", "words"),
    [
        ("A700", "", "out of resources there"),
        ("A7FF", "disk full", "disk full"),
        ("A900", "", "the dataset does not match its SOP Class there"),
        ("C001", "", "cannot understand this image"),
        ("B007", "", "taken with a warning"),
        ("0122", "", "this SOP Class is not taken there"),
        ("0999", "", ""),
        ("context", "", ""),
        ("507", "", ""),
    ],
)
def test_an_answer_in_words(code: str, comment: str, words: str) -> None:
    """Its peer's own before those of its class; no other channel's code is taken for DICOM's."""
    assert reason_words(code, comment) == words


def test_backoff_grows_to_its_cap() -> None:
    """Waiting doubles and never passes a quarter of an hour."""
    waits = [backoff(n) for n in range(1, 40)]
    assert waits == sorted(waits)
    assert max(backoff(n, 1.0) for n in range(1, 40)) == BACKOFF_CAP_SECONDS


def test_routing_by_condition_says_why() -> None:
    """Modality and hours decide, and the route explains itself."""
    destination = Destination(code="D", radiologist="R", sender="dicom_scu")
    night = Hours(start="22:00", end="06:00", days=(1,))
    attachments = [
        Attachment(facility="NORTH", radiologist="R", destinations=(destination,),
                   conditions=Conditions(modalities=("CT",), hours=(night,))),
        Attachment(facility="NORTH", radiologist="S", conditions=Conditions(modalities=("MR",))),
    ]  # fmt: skip
    monday_night = datetime(2026, 11, 23, 23, 0, tzinfo=UTC)
    tuesday_early = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)
    tuesday_night = datetime(2026, 11, 24, 23, 0, tzinfo=UTC)
    assert route_exam(EXAM, attachments, monday_night).destinations == (destination,)
    assert route_exam(EXAM, attachments, tuesday_early).destinations == (destination,)
    refused = route_exam(EXAM, attachments, tuesday_night)
    assert not refused.destinations
    assert "outside their hours" in refused.because[0]
    assert "modality CT is not MR" in refused.because[1]


def test_egress_modes() -> None:
    """Passthrough touches nothing, qualify adds the issuer, restore brings the own ID back."""
    assert default_egress(1) == "passthrough"
    assert default_egress(2) == "qualify"
    assert coercion_for(EXAM, "NORTH", HEADER, "passthrough", correct=False) is None
    qualified = coercion_for(EXAM, "NORTH", HEADER, "qualify", correct=False)
    assert qualified is not None
    assert qualified.issuer_of_patient_id == "NORTH"
    assert qualified.patient_id is None
    restored = coercion_for(EXAM, "NORTH", HEADER, "restore", correct=False)
    assert restored is not None
    assert (restored.patient_id, restored.accession_number) == ("P1", EXAM.number)
    own = structs.replace(EXAM, origin=Origin.IMAGES)
    with_accession = structs.replace(HEADER, accession_number="A7")
    kept = coercion_for(own, "NORTH", with_accession, "restore", correct=False)
    assert kept is not None
    assert kept.accession_number is None


def test_a_released_mismatch_leaves_corrected_whatever_the_mode() -> None:
    """The exam's identity replaces what differs, with the reason CORRECT."""
    corrected = coercion_for(EXAM, "NORTH", HEADER, "passthrough", correct=True)
    assert corrected is not None
    assert (corrected.patient_name, corrected.patient_id, corrected.sex) == ("DOE^JANE", "P1", "F")
    assert corrected.birth_date is None  # the same already
    assert corrected.reason == "CORRECT"


def source(facility: str, *networks: str, **more: str) -> Source:
    """A source called CT."""
    return Source(
        facility=facility,
        channel="dicom_scp",
        identity="CT",
        kind=Kind.TECHNICIAN,
        networks=networks,
        **more,  # type: ignore[arg-type]
    )


def connection(address: str, **more: object) -> Connection:
    """A peer that calls itself CT."""
    return Connection(channel="dicom_scp", identity="CT", peer_address=address, **more)  # type: ignore[arg-type]


def test_the_same_ae_title_on_two_networks_is_two_facilities() -> None:
    """The network tells them apart, and an unknown one is refused with a reason."""
    sources = [source("NORTH", "10.1.0.0/16"), source("SOUTH", "10.2.0.0/16")]
    assert not check_sources(sources)
    found = identify_source(connection("10.2.3.4"), sources)
    assert found is not None
    assert found.facility == "SOUTH"
    assert identify_source(connection("10.3.0.1"), sources) is None
    assert "none of its networks" in explain_refusal(connection("10.3.0.1"), sources)


def test_a_stranger_does_not_choose_how_long_a_reason_is() -> None:
    """What was claimed stands in it, cut."""
    said = explain_refusal(structs.replace(connection("10.3.0.1"), identity="A" * 5000), [])
    assert "A" * 60 in said
    assert len(said) < 120


def test_overlaps_and_unbound_sources_are_refused() -> None:
    """Two sources that one connection could be, and one bound to nothing, are errors."""
    assert check_sources([source("NORTH", "10.0.0.0/8"), source("SOUTH", "10.2.0.0/16")])
    assert check_sources([source("NORTH")])
    assert check_sources([source("NORTH", "not a network")])


def test_a_password_tells_a_source_only_where_it_is_asked_for() -> None:
    """Anybody can claim an AE title: over TLS from anywhere, without a certificate, it is none."""
    lax = source("NORTH", password_hash="$argon2id$x")
    (problem,) = check_sources([lax])
    for word in ("dicom_scp/CT of NORTH", "needs networks or a certificate", "password"):
        assert word in problem
    peer = connection("8.8.8.8", tls=True)
    assert identify_source(peer, [lax]) is None
    assert "password" in explain_refusal(peer, [lax])
    bound = source("NORTH", "8.8.8.0/24", password_hash="$argon2id$x")
    assert not check_sources([bound])
    assert identify_source(peer, [bound]) is not None
    for channel in ("ftp", "http_upload"):
        account = structs.replace(lax, channel=channel)
        assert not check_sources([account])
        assert identify_source(structs.replace(peer, channel=channel), [account]) is not None


def test_public_networks_need_tls_unless_the_source_says_cleartext() -> None:
    """Without TLS only private addresses are let in."""
    sources = [source("NORTH", "0.0.0.0/0")]
    assert identify_source(connection("8.8.8.8"), sources) is None
    assert identify_source(connection("8.8.8.8", tls=True), sources) is not None
    assert identify_source(connection("10.8.8.8"), sources) is not None


def test_a_pinned_certificate_is_needed() -> None:
    """A source bound to a certificate is only who shows it."""
    sources = [source("NORTH", certificate_fingerprint="AA:BB")]
    assert identify_source(connection("8.8.8.8", tls=True), sources) is None
    shown = connection("8.8.8.8", tls=True, certificate_fingerprint="aabb")
    assert identify_source(shown, sources) is not None
