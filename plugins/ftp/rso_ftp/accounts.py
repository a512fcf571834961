"""Signing in: an FTP account is a declared source with a password."""

import threading
from typing import Any

import structlog
from pyftpdlib.exceptions import AuthenticationFailed

from rso.core.password import is_right
from rso.core.source import explain_refusal, facility_concerned
from rso.plugins import Bans, Connection, ReceiverContext, RsoError, Source

__all__ = ["Accounts"]

log = structlog.get_logger(__name__)

# 64 MB and a tenth of a second each; a crowd of guesses waits in line.
_AT_ONCE = threading.BoundedSemaphore(2)
_PERMISSIONS = frozenset("elafmwMT")


class Accounts:
    """What pyftpdlib calls an authorizer. Its methods run in the connection's own thread."""

    def __init__(self, context: ReceiverContext) -> None:
        self._context = context
        self._bans = Bans(context.data_dir / "bans", after=10)

    def validate_authentication(self, username: str, password: str, handler: Any) -> None:
        """Set ``handler.source``, or refuse; every refusal looks and lasts the same."""
        connection = Connection(
            channel="ftp",
            identity=username,
            peer_address=handler.remote_ip,
            tls=bool(getattr(handler, "_ssl_established", False)),
        )
        banned = self._bans.banned(connection.peer_address, username)
        source = None if banned else self._identify(connection)
        hashed = source.password_hash if source else ""
        if self._verified(handler, password, hashed) and source:
            handler.source = source
            return
        if self._bans.failed(connection.peer_address, username):
            self._alert(connection, known=source is not None)
        raise AuthenticationFailed("Sign-in failed.")

    def _identify(self, connection: Connection) -> Source | None:
        try:
            return self._context.identify(connection)
        except Exception:
            log.exception("source could not be identified")
            return None

    def _verified(self, handler: Any, password: str, hashed: str) -> bool:
        with _AT_ONCE:
            if handler.ended:  # in the line: it costs those behind it nothing, and is no guess
                raise AuthenticationFailed("Too late.")
            return is_right(password, hashed)

    def _alert(self, connection: Connection, *, known: bool) -> None:
        reason = "wrong password"
        if not known:
            reason = explain_refusal(connection, self._context.sources())
        log.warning("sign-in refused", peer=connection.peer_address, reason=reason)
        facts = {
            "peer": connection.peer_address,
            "account": connection.claimed,
            "reason": reason,
            "facility": facility_concerned(connection, self._context.sources()),
        }
        try:
            self._context.spool.alert("ftp sign-in refused", facts)
        except RsoError as exc:
            log.warning("alert could not be kept", reason=str(exc))

    def get_home_dir(self, username: str) -> str:  # noqa: ARG002
        """Each account's view has its own root."""
        return "/"

    def has_user(self, username: str) -> bool:  # noqa: ARG002
        """Unknown until the password is there."""
        return True

    def has_perm(self, username: str, perm: str, path: str | None = None) -> bool:  # noqa: ARG002
        """Write, append, make folders, list, rename within the view; never read or delete."""
        return perm in _PERMISSIONS

    def get_perms(self, username: str) -> str:  # noqa: ARG002
        """The same as letters."""
        return "".join(sorted(_PERMISSIONS))

    def get_msg_login(self, username: str) -> str:  # noqa: ARG002
        """Said after the password."""
        return "Ready. 226 means that RSO keeps the file."

    def get_msg_quit(self, username: str) -> str:  # noqa: ARG002
        """Said at the end."""
        return "Goodbye."

    def impersonate_user(self, username: str, password: str) -> None:
        """No system user stands behind an account."""

    def terminate_impersonation(self, username: str) -> None:
        """Likewise."""
