"""What a plugin's author imports, and the machinery that finds and configures plugins."""

from rso.core.coercion import Coercion
from rso.core.contributions import ExamAction, Page, Tile
from rso.core.delivery import classify_dimse
from rso.core.errors import (
    ConfigError,
    IdentifierError,
    IntakeError,
    NoSpaceError,
    NotDicomError,
    PermanentTransportError,
    PluginError,
    QuotaError,
    RefusedError,
    RsoError,
    TransientTransportError,
    TransportError,
    VolumeError,
)
from rso.core.exam import Exam, ExamStatus, Patient, Priority
from rso.core.header import Header
from rso.core.hookspecs import hookimpl
from rso.core.matching import Action, Candidate, Decision, IncomingStudy
from rso.core.notifier import Message, Notifier
from rso.core.routing import Attachment, Destination, Route
from rso.core.secret import Secret
from rso.core.transport import (
    Batch,
    Buffer,
    Connection,
    Health,
    Kind,
    Outcome,
    Outgoing,
    Piece,
    Provenance,
    Receipt,
    Receiver,
    ReceiverContext,
    Sender,
    SenderSession,
    SendResult,
    Sink,
    Source,
    Spool,
    WriteAhead,
)
from rso.plugins.bans import Ban, Bans
from rso.plugins.config import config_table
from rso.plugins.messages import MESSAGES, MESSAGES_TILE, TELL_SOMEBODY
from rso.plugins.registry import PluginInfo, Plugins, load_plugins

__all__ = [
    "MESSAGES",
    "MESSAGES_TILE",
    "TELL_SOMEBODY",
    "Action",
    "Attachment",
    "Ban",
    "Bans",
    "Batch",
    "Buffer",
    "Candidate",
    "Coercion",
    "ConfigError",
    "Connection",
    "Decision",
    "Destination",
    "Exam",
    "ExamAction",
    "ExamStatus",
    "Header",
    "Health",
    "IdentifierError",
    "IncomingStudy",
    "IntakeError",
    "Kind",
    "Message",
    "NoSpaceError",
    "NotDicomError",
    "Notifier",
    "Outcome",
    "Outgoing",
    "Page",
    "Patient",
    "PermanentTransportError",
    "Piece",
    "PluginError",
    "PluginInfo",
    "Plugins",
    "Priority",
    "Provenance",
    "QuotaError",
    "Receipt",
    "Receiver",
    "ReceiverContext",
    "RefusedError",
    "Route",
    "RsoError",
    "Secret",
    "SendResult",
    "Sender",
    "SenderSession",
    "Sink",
    "Source",
    "Spool",
    "Tile",
    "TransientTransportError",
    "TransportError",
    "VolumeError",
    "WriteAhead",
    "classify_dimse",
    "config_table",
    "hookimpl",
    "load_plugins",
]
