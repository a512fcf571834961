"""Every error RSO raises on purpose.

    RsoError
    +-- ConfigError               rso.toml, site.toml or a plugin's section is wrong
    +-- PluginError               a plugin failed; carries its name
    +-- BusyError                 too many ask at once; soon they may again   HTTP 429
    +-- ExamError                 an exam cannot be made, found or changed like that
    |   +-- OwnerError            somebody else looks after it, or nobody may
    |   +-- StaleError            somebody changed it since it was read
    |   +-- StateError            it stands where that is not done
    +-- MatchingError             a match cannot be decided or released like that
    +-- RoutingError              no radiologist or destination fits
    +-- IntakeError               an instance cannot be kept; carries a short code
    |   +-- NotDicomError         unparseable; the bytes go to quarantine    C000  HTTP 400
    |   +-- IdentifierError       SOP UID or class differs from the command  A900  HTTP 409
    |   +-- RefusedError          a limit or a refused transfer syntax       0122  HTTP 415/413
    |   +-- NoSpaceError          below the low-water mark                   A700  HTTP 507  FTP 452
    |   |   +-- QuotaError        a quota of today is used up                A700  HTTP 507  FTP 452
    |   +-- VolumeError           a write or sync failed: a broken volume    0110  HTTP 500  FTP 451
    +-- TransportError
        +-- TransientTransportError   try again later
        +-- PermanentTransportError   tell a person

Messages never hold patient data: UIDs, exam numbers and tag numbers only.
"""

__all__ = [
    "BusyError",
    "ConfigError",
    "ExamError",
    "IdentifierError",
    "IntakeError",
    "MatchingError",
    "NoSpaceError",
    "NotDicomError",
    "OwnerError",
    "PermanentTransportError",
    "PluginError",
    "QuotaError",
    "RefusedError",
    "RoutingError",
    "RsoError",
    "StaleError",
    "StateError",
    "TransientTransportError",
    "TransportError",
    "VolumeError",
]


class RsoError(Exception):
    """Base of all errors that RSO raises on purpose; the message is safe to show and to log."""


class ConfigError(RsoError):
    """A configuration file is wrong; the message names the file and the path inside it."""


class BusyError(RsoError):
    """Too many want the same at once; the message says when to try again."""


class PluginError(RsoError):
    """A plugin failed or is unusable."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(f"plugin {plugin}: {message}")
        self.plugin = plugin


class ExamError(RsoError):
    """An exam cannot be made, found or changed like that."""


class OwnerError(ExamError):
    """Somebody else looks after the exam, or this person may not."""


class StaleError(ExamError):
    """Somebody changed the exam since it was read; nothing is written."""


class StateError(ExamError):
    """The exam is there, but where it stands that is not done."""


class MatchingError(RsoError):
    """A match cannot be decided, or a hold cannot be released like that."""


class RoutingError(RsoError):
    """No radiologist or destination fits an exam."""


class IntakeError(RsoError):
    """An instance cannot be kept; receivers translate it into their channel's own terms."""


class NotDicomError(IntakeError):
    """The bytes are not a DICOM dataset that can be read safely."""


class IdentifierError(IntakeError):
    """SOP Class or SOP Instance UID of the dataset differs from what the sender announced."""


class RefusedError(IntakeError):
    """A limit or policy refuses the instance (size, transfer syntax)."""


class NoSpaceError(IntakeError):
    """The spool's volume is below its low-water mark; the sender should try again later."""


class QuotaError(NoSpaceError):
    """A source or facility has sent as much as it may today; the sender should try again later."""


class VolumeError(IntakeError):
    """A write or sync failed; nothing on that volume may be acknowledged any more."""


class TransportError(RsoError):
    """A sender or notifier could not do its work."""


class TransientTransportError(TransportError):
    """Trying again later may work."""


class PermanentTransportError(TransportError):
    """Trying again will not help; a person has to act."""
