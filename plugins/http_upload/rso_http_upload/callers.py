"""Who uploads: a person with a session or token, or a declared source with its password."""

import asyncio
import base64
import binascii
import hashlib
import time
from datetime import UTC, datetime
from typing import Any

import structlog
from litestar import Request
from litestar.exceptions import HTTPException, NotAuthorizedException, PermissionDeniedException

from rso.core.hosts import host_of
from rso.core.password import is_right
from rso.core.source import explain_refusal, facility_concerned, is_expected
from rso.core.turns import Turns
from rso.engine.exams import find_exam
from rso.ledger.tokens import find_source_token
from rso.plugins import (
    Bans,
    Connection,
    Exam,
    Kind,
    Provenance,
    ReceiverContext,
    RsoError,
    Source,
)
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.client import is_tls, peer_address

__all__ = ["Callers", "exam_of", "facility_of"]

log = structlog.get_logger(__name__)

_REMEMBERED_SECONDS = 300.0
Ask = Request[Any, Any, Any]


class Callers:
    """Recognises sources by HTTP Basic authentication (RFC 7617), or by a token of theirs."""

    def __init__(self, context: ReceiverContext) -> None:
        self._context = context
        self._bans = Bans(context.data_dir / "bans", after=10)
        self._verified: dict[str, float] = {}
        self._checking: dict[str, asyncio.Task[bool]] = {}
        # A queue of its own: who signs in to the web does not wait behind uploads.
        self._turns = Turns(2, most=64, each=16)

    async def source(self, request: Ask) -> Source | None:
        """The source that the request names; ``None`` when it names none.

        Raises:
            NotAuthorizedException: It names one, and is not it, or is banned.
            BusyError: Too many passwords wait to be looked at, of its address or of all.
        """
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._by_token(request, encoded.strip())
        if scheme.lower() != "basic":
            return None
        try:
            text = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise NotAuthorizedException("broken Authorization header") from exc
        name, _, password = text.partition(":")
        connection = self._connection(request, name)
        peer = connection.peer_address
        if self._bans.banned(peer, name):
            if self._bans.due(peer, name):
                self._alert(connection, "it is banned: too many wrong tries")
            raise _unknown()
        source = self._context.identify(connection)
        if await self._is_password(peer, password, source) and source is not None:
            return source
        sources = self._context.sources()
        # A source that forgot its password is no stranger: others may be behind its address.
        stranger = source is None and not is_expected(connection, sources)
        if self._bans.failed(peer, name, stranger=stranger):
            known = source is not None
            self._alert(
                connection, "wrong password" if known else explain_refusal(connection, sources)
            )
        raise _unknown()

    def _connection(self, request: Ask, name: str) -> Connection:
        return Connection(
            channel="http_upload",
            identity=name,
            peer_address=peer_address(request),
            tls=is_tls(request),
        )

    async def _by_token(self, request: Ask, token: str) -> Source | None:
        name = await find_source_token(engine_of(request).ledger, token)
        if name is None:
            return None  # perhaps a person's
        connection = self._connection(request, name)
        source = self._context.identify(connection)
        if source is None:
            self._alert(connection, explain_refusal(connection, self._context.sources()))
            raise NotAuthorizedException("the source or its token is not known")
        return source

    async def _is_password(self, peer: str, password: str, source: Source | None) -> bool:
        hashed = source.password_hash if source else ""
        # A mirror asks many times a minute, and argon2 takes a tenth of a second.
        seen = hashlib.sha256(f"{hashed}\0{password}".encode()).hexdigest()
        if hashed and time.monotonic() - self._verified.get(seen, -1e9) < _REMEMBERED_SECONDS:
            return True
        # A gateway that begins with many requests at once is looked at once.
        task = self._checking.get(seen)
        if task is None:
            task = asyncio.create_task(self._look(peer, password, hashed))
            self._checking[seen] = task
            task.add_done_callback(lambda _: self._checking.pop(seen, None))
        if not await asyncio.shield(task):
            return False
        if len(self._verified) > 1000:
            self._verified.clear()
        self._verified[seen] = time.monotonic()
        return True

    async def _look(self, peer: str, password: str, hashed: str) -> bool:
        async with self._turns.take(host_of(peer)):
            return await asyncio.to_thread(is_right, password, hashed)

    def _alert(self, connection: Connection, reason: str) -> None:
        facts = {
            "peer": connection.peer_address,
            "source": connection.claimed,
            "reason": reason,
            "facility": facility_concerned(connection, self._context.sources()),
        }
        log.warning("upload refused", peer=connection.peer_address, reason=reason)
        try:
            self._context.spool.alert("http upload refused", facts)
        except RsoError as exc:
            log.warning("alert could not be kept", reason=str(exc))


def _unknown() -> NotAuthorizedException:
    """The same for every cause: a banned peer does not learn that it is."""
    return NotAuthorizedException("the source or its password is not known")


async def _person(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    return me


def _provenance(request: Ask, who: Source | Identity, facility: str, number: str) -> Provenance:
    person = who.person.email if isinstance(who, Identity) else ""
    return Provenance(
        channel="http_upload",
        facility=facility,
        source=person or (who.identity if isinstance(who, Source) else ""),
        kind=who.kind if isinstance(who, Source) else Kind.TECHNICIAN,
        peer_address=peer_address(request),
        opened_at=datetime.now(UTC),
        exam_number=number,
        user=person,
    )


async def exam_of(callers: Callers, request: Ask, number: str) -> tuple[Exam, Provenance]:
    """The exam that an upload is bound to, if the caller may see it.

    Raises:
        ExamError: There is none, or it is another facility's.
    """
    who: Source | Identity = await callers.source(request) or await _person(request)
    allowed = (who.facility,) if isinstance(who, Source) else who.person.facilities
    exam = await find_exam(engine_of(request).ledger, number, facilities=allowed)
    return exam, _provenance(request, who, exam.facility, exam.number)


async def facility_of(callers: Callers, request: Ask, facility: str) -> Provenance:
    """The facility that an unbound upload is for: the source's, or what the person says."""
    source = await callers.source(request)
    if source is not None:
        if facility not in {"", source.facility}:
            raise PermissionDeniedException("not your facility")
        return _provenance(request, source, source.facility, "")
    me = await _person(request)
    own = me.person.facilities
    if not facility and own is not None and len(own) == 1:
        facility = own[0]
    if not facility:
        raise HTTPException("say for which facility: ?facility=CODE", status_code=400)
    if own is not None and facility not in own:
        raise PermissionDeniedException("not your facility")
    ledger = engine_of(request).ledger
    if not await ledger.fetch("SELECT code FROM facility WHERE code = ?", facility):
        raise HTTPException("no facility has this code", status_code=404)
    return _provenance(request, me, facility, "")
