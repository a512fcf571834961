"""The ledger's tables of who is who: facilities and sources, readers and destinations, people.

As in ``tables``.
"""

from piccolo.columns import JSON, UUID, BigInt, Boolean, Integer, Text, Timestamptz, Varchar
from piccolo.table import Table

__all__ = [
    "ApiToken",
    "Attachment",
    "Contact",
    "Destination",
    "Facility",
    "Login",
    "PasswordReset",
    "Radiologist",
    "Session",
    "Source",
    "User",
]


class Facility(Table, tablename="facility"):
    id = UUID(primary_key=True)
    code = Varchar(64)  # unique
    name = Varchar(200, default="")
    issuer_of_patient_id = Varchar(64, default="")
    settings = JSON(default="{}")  # turnaround targets, retention, settle_seconds, opt-ins


class Source(Table, tablename="source"):
    id = UUID(primary_key=True)
    facility = Varchar(64)  # facility code
    channel = Varchar(32)
    identity = Varchar(128)
    kind = Varchar(16)
    networks = JSON(default="[]")
    certificate_fingerprint = Varchar(128, default="")
    called_ae_title = Varchar(16, default="")
    password_hash = Text(default="")
    cleartext = Boolean(default=False)
    certificate = Text(default="")  # PEM
    quota = JSON(default="{}")  # core.quota.Quota
    last_instance_at = Timestamptz(null=True, default=None)


class Radiologist(Table, tablename="radiologist"):
    id = UUID(primary_key=True)
    code = Varchar(64)  # unique
    name = Varchar(200, default="")


class Destination(Table, tablename="destination"):
    id = UUID(primary_key=True)
    radiologist = Varchar(64)  # radiologist code
    code = Varchar(64)  # unique
    sender = Varchar(32)
    egress = Varchar(16, default="")  # passthrough | qualify | restore; empty: by default rule
    options = JSON(default="{}")
    paused = Boolean(default=False)
    failures = Integer(default=0)  # consecutive transport faults; drives the breaker
    open_until = Timestamptz(null=True, default=None)  # breaker
    last_success_at = Timestamptz(null=True, default=None)
    last_error = Text(default="")


class Attachment(Table, tablename="attachment"):
    id = UUID(primary_key=True)
    facility = Varchar(64)
    radiologist = Varchar(64)
    conditions = JSON(default="{}")  # core.routing.Conditions


class User(Table, tablename="user_account"):
    id = UUID(primary_key=True)
    email = Varchar(254)  # unique, lower case
    name = Varchar(200, default="")
    role = Varchar(16)
    facilities = JSON(default="[]")  # facility codes; empty with role admin/coordinator: all
    password_hash = Text(default="")
    totp_secret = Text(default="")
    totp_last_step = BigInt(default=0)  # replay block
    recovery_codes = JSON(default="[]")  # hashes
    disabled = Boolean(default=False)
    preferences = JSON(default="{}")
    created_at = Timestamptz()


class Contact(Table, tablename="contact"):
    id = UUID(primary_key=True)
    owner_kind = Varchar(16)  # user | radiologist
    owner = Varchar(254)  # email or code
    channel = Varchar(32)
    address = Varchar(254)
    verified_at = Timestamptz(null=True, default=None)
    opted_out = Boolean(default=False)
    events = Varchar(300, default="")  # names with blanks between; empty: the role's
    quiet = Varchar(16, default="")  # 22:00-07:00
    timezone = Varchar(64, default="")
    breaks_quiet = Varchar(3, default="")  # yes | no | empty: when on call
    position = Integer(default=0)  # the first that works is used
    code_hash = Varchar(64, default="")  # SHA-256 of the code that proves the address
    code_until = Timestamptz(null=True, default=None)
    code_tries = Integer(default=0)
    leave_key = Varchar(64, default="")  # of the link that ends messages


class Session(Table, tablename="web_session"):
    id = Varchar(64, primary_key=True)  # SHA-256 of the cookie
    account = Varchar(254, default="")
    data = Text(default="")
    address = Varchar(64, default="")
    agent = Varchar(200, default="")
    created_at = Timestamptz()
    seen_at = Timestamptz()
    expires_at = Timestamptz()


class Login(Table, tablename="login_attempt"):
    id = UUID(primary_key=True)
    subject = Varchar(300)  # account or address, prefixed
    at = Timestamptz()


class PasswordReset(Table, tablename="password_reset"):
    id = UUID(primary_key=True)
    token_hash = Varchar(64)  # unique, SHA-256
    account = Varchar(254)
    created_at = Timestamptz()
    expires_at = Timestamptz()
    used_at = Timestamptz(null=True, default=None)


class ApiToken(Table, tablename="api_token"):
    id = UUID(primary_key=True)
    token_hash = Varchar(64)  # unique, SHA-256
    account = Varchar(254, default="")
    source = Varchar(128, default="")  # identity of a source on channel http_upload
    name = Varchar(100, default="")
    created_at = Timestamptz()
    last_used_at = Timestamptz(null=True, default=None)
    revoked_at = Timestamptz(null=True, default=None)
