"""The ledger's tables of exams, and of what comes, leaves and is told of them.

Their migrations are written by hand in ``migrations/``. Keys are UUID7 (time-ordered). Times are
UTC. JSON columns hold msgspec-encoded Structs of ``rso.core`` or plain objects. Unique and partial
indexes are made by the migrations. Who is who is in ``site_tables``.
"""

from piccolo.columns import (
    JSON,
    UUID,
    BigInt,
    Boolean,
    Integer,
    SmallInt,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.table import Table

__all__ = [
    "AuditEntry",
    "Batch",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryItem",
    "DraftDocument",
    "Exam",
    "ExamDocument",
    "ExamNote",
    "Hold",
    "Instance",
    "Outbox",
    "RequestDraft",
    "RequestSent",
    "Study",
]


class ExamDocument(Table, tablename="exam_document"):
    """A PDF or picture that came with a request; its bytes are a file named by the key."""

    id = UUID(primary_key=True)
    exam = UUID()
    name = Varchar(200, default="")  # as the browser said; shown, never a path
    media_type = Varchar(32)  # by its content
    size = BigInt()
    digest = Varchar(64)  # BLAKE3
    created_by = Varchar(254, default="")
    created_at = Timestamptz()
    removed_at = Timestamptz(null=True, default=None)


class ExamNote(Table, tablename="exam_note"):
    """What somebody wrote on an exam, for those who sign in."""

    id = UUID(primary_key=True)
    exam = UUID()
    account = Varchar(254)
    note = Text()
    at = Timestamptz()


class RequestDraft(Table, tablename="request_draft"):
    """What somebody has typed into the request form and not yet sent."""

    account = Varchar(254, primary_key=True)
    facility = Varchar(64, default="")
    form = Text()
    saved_at = Timestamptz()
    draft = Varchar(36, default="")  # the key of the form


class DraftDocument(Table, tablename="draft_document"):
    """A document that was chosen for a request which is not sent yet; its file as an exam's."""

    id = UUID(primary_key=True)
    account = Varchar(254)
    draft = UUID()  # the key of the form
    name = Varchar(200, default="")
    media_type = Varchar(32)
    size = BigInt()
    digest = Varchar(64)  # BLAKE3
    created_at = Timestamptz()
    kept_until = Timestamptz()


class RequestSent(Table, tablename="request_sent"):
    """A form that has made its exam; unique by account, form and content."""

    id = UUID(primary_key=True)
    account = Varchar(254)
    draft = UUID()
    digest = Varchar(64)
    exam = UUID()
    sent_at = Timestamptz()


class Exam(Table, tablename="exam"):
    id = UUID(primary_key=True)
    number = Varchar(10)  # unique
    facility = Varchar(64)
    origin = Varchar(16)
    status = Varchar(16)
    priority = SmallInt(default=2)  # Priority.rank
    patient_name = Varchar(400, default="")
    patient_id = Varchar(128, default="")
    issuer_of_patient_id = Varchar(64, default="")
    birth_date = Varchar(8, default="")
    sex = Varchar(1, default="")
    name_key = Varchar(400, default="")  # ledger.exams.name_key(patient_name)
    accession_number = Varchar(64, default="")
    modality = Varchar(16, default="")
    body_part = Varchar(64, default="")
    request = JSON(default="{}")  # what people typed: indication, history, referrer, callback …
    flags = JSON(default="[]")
    expected_instances = Integer(null=True, default=None)
    instances = Integer(default=0)  # linked primary instances
    created_by = Varchar(254, default="")
    owner = Varchar(254, default="")
    created_at = Timestamptz()
    updated_at = Timestamptz()
    last_instance_at = Timestamptz(null=True, default=None)
    settled_at = Timestamptz(null=True, default=None)
    delivered_at = Timestamptz(null=True, default=None)
    due_at = Timestamptz(null=True, default=None)  # by the turnaround target; orders the list


class Batch(Table, tablename="batch"):
    id = UUID(primary_key=True)
    channel = Varchar(32)
    facility = Varchar(64)
    source = Varchar(128)
    kind = Varchar(16)
    peer_address = Varchar(64)
    calling_ae_title = Varchar(16, default="")
    called_ae_title = Varchar(16, default="")
    exam_number = Varchar(10, default="")
    account = Varchar(254, default="")
    opened_at = Timestamptz()
    closed_at = Timestamptz(null=True, default=None)


class Study(Table, tablename="study"):
    """One Study as one identity: the same Study with another identity is a row of its own."""

    id = UUID(primary_key=True)
    facility = Varchar(64)
    study_instance_uid = Varchar(64)
    identity = Varchar(64)  # digest of core.matching.identity_key(); unique with the two above
    exam = UUID(null=True, default=None)
    state = Varchar(16)  # pending | matched | held | stopped | rejected
    table_row = SmallInt(default=0)  # row of the matching table that decided
    patient_name = Varchar(400, default="")
    patient_id = Varchar(128, default="")
    issuer_of_patient_id = Varchar(64, default="")
    birth_date = Varchar(8, default="")
    sex = Varchar(1, default="")
    undecodable = Boolean(default=False)  # the name does not fit its declared character set
    name_key = Varchar(400, default="")
    accession_number = Varchar(64, default="")
    modality = Varchar(16, default="")
    body_part = Varchar(64, default="")
    study_date = Varchar(8, default="")
    description = Varchar(200, default="")
    kind = Varchar(16)  # of the source
    exam_number = Varchar(10, default="")  # asserted by a bound upload
    decision = JSON(default="{}")  # core.matching.Decision: the evidence
    correct_identity = Boolean(default=False)  # released: leaves with the exam's identity
    created_at = Timestamptz()
    updated_at = Timestamptz()


class Instance(Table, tablename="instance"):
    id = UUID(primary_key=True)  # the spool's record id; also the archive's key
    facility = Varchar(64)
    study = UUID()
    sop_instance_uid = Varchar(64)
    sop_class_uid = Varchar(64)
    series_instance_uid = Varchar(64)
    transfer_syntax_uid = Varchar(64)
    digest = Varchar(64)  # BLAKE3 over Transfer Syntax UID + dataset
    size = BigInt()  # bytes of the dataset
    dataset_offset = Integer(default=0)  # where the dataset begins in its archive file
    modality = Varchar(16, default="")
    series_number = Varchar(12, default="")
    series_description = Varchar(64, default="")
    instance_number = Varchar(12, default="")
    number_of_frames = Integer(default=1)
    conflict = Boolean(default=False)  # same SOP Instance UID, other digest: held on its own
    batch = UUID()
    received_at = Timestamptz()
    purged_at = Timestamptz(null=True, default=None)  # its file may go, nobody reads it any more
    removed_at = Timestamptz(null=True, default=None)  # its file is gone


class Hold(Table, tablename="hold"):
    id = UUID(primary_key=True)
    kind = Varchar(16)  # study | instance
    facility = Varchar(64)
    study = UUID()
    instance = UUID(null=True, default=None)
    table_row = SmallInt(default=0)
    reason = Varchar(64)
    alarm = Boolean(default=False)
    state = Varchar(16, default="open")  # open | released | created | rejected | recalled
    exam = UUID(null=True, default=None)  # where it was released to
    evidence = JSON(default="{}")
    first_person = Varchar(254, default="")  # of two, where two are asked
    resolved_by = Varchar(254, default="")
    resolution = Text(default="")
    opened_at = Timestamptz()
    resolved_at = Timestamptz(null=True, default=None)


class Delivery(Table, tablename="delivery"):
    """An exam's way to one destination."""

    id = UUID(primary_key=True)
    exam = UUID()
    destination = Varchar(64)  # destination code; unique with exam
    priority = SmallInt(default=2)
    state = Varchar(16)  # pending | sending | waiting | delivered | stopped
    acknowledged = Integer(default=0)
    total = Integer(default=0)
    last_error = Text(default="")
    created_at = Timestamptz()
    updated_at = Timestamptz()


class DeliveryItem(Table, tablename="delivery_item"):
    """One instance's way to one destination."""

    id = UUID(primary_key=True)
    delivery = UUID()
    destination = Varchar(64)
    instance = UUID()  # unique with delivery
    state = Varchar(16)  # pending | acknowledged | stopped | cancelled
    priority = SmallInt(default=2)
    attempts = Integer(default=0)
    code = Varchar(16, default="")
    reason = Varchar(200, default="")
    next_at = Timestamptz()
    lease_owner = Text(default="")
    lease_until = Timestamptz(null=True, default=None)
    acknowledged_at = Timestamptz(null=True, default=None)


class DeliveryAttempt(Table, tablename="delivery_attempt"):
    """How an attempt ended that the item does not tell of any more; same endings are one row."""

    id = UUID(primary_key=True)
    delivery = UUID()
    subject = UUID()  # the instance; the delivery itself where the connection failed
    # pending (will be tried again) | stopped | acknowledged (before a resend) | late (acknowledged,
    # but no lease stood for it any more: it was stopped or taken out on its way)
    state = Varchar(16)
    code = Varchar(16, default="")
    reason = Varchar(200, default="")
    times = Integer(default=1)
    first_at = Timestamptz()
    last_at = Timestamptz()


class Outbox(Table, tablename="outbox"):
    """What must happen after a commit: React hooks and notifications."""

    id = UUID(primary_key=True)
    kind = Varchar(16)  # hook | notify | matter
    event = Varchar(64)
    dedupe = Varchar(300)  # unique
    exam = UUID(null=True, default=None)
    facility = Varchar(64, default="")
    recipient = Varchar(254, default="")  # email, radiologist's code, or who acknowledged
    channel = Varchar(32, default="")
    ticket = Varchar(200, default="")  # what the provider said
    payload = JSON(default="{}")
    state = Varchar(16, default="queued")  # see docs/notifications.md
    attempts = Integer(default=0)
    history = JSON(default="[]")
    next_at = Timestamptz()
    lease_owner = Text(default="")
    lease_until = Timestamptz(null=True, default=None)
    created_at = Timestamptz()
    done_at = Timestamptz(null=True, default=None)


class AuditEntry(Table, tablename="audit"):
    id = BigInt(primary_key=True)  # 1, 2, 3 … without gaps
    at = Timestamptz()
    actor = Varchar(254)
    action = Varchar(64)
    facility = Varchar(64, default="")
    exam = Varchar(10, default="")
    facts = JSON(default="{}")
    previous = Varchar(64)
    hash = Varchar(64)
