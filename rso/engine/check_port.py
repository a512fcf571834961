"""What ``rso check`` says of the way in: certificates, quotas, refusals and bans."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from msgspec import Struct

from rso.core.errors import RsoError
from rso.core.source import check_sources
from rso.engine.context import Engine
from rso.engine.quotas import Quotas
from rso.engine.snapshot import SourceSnapshot, write_snapshot
from rso.ledger.refusals import Refused, recent_refusals
from rso.ledger.site import all_sources
from rso.plugins import Ban, Bans

__all__ = ["Check", "StandingBan", "check_port", "clear_bans", "standing_bans"]

_SOON = timedelta(days=30)
_NEARLY = 0.9  # of a quota
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        warning: It works, and wants a person's eye.
    """

    name: str
    ok: bool
    detail: str = ""
    warning: bool = False


class StandingBan(Struct, frozen=True, kw_only=True):
    """A ban with its channel."""

    channel: str
    address: str
    name: str
    until: datetime


async def check_port(engine: Engine) -> list[Check]:
    """Look at everything that decides who gets in."""
    checks = list(_shown(engine))
    sources = await all_sources(engine.ledger)
    # An earlier version may have taken what is refused at the port now.
    checks += [Check(name="sources", ok=False, detail=words) for words in check_sources(sources)]
    for source in sources:
        if source.certificate:
            name = f"certificate of source {source.channel}/{source.identity} ({source.facility})"
            checks.append(_certificate(name, source.certificate))
    path = engine.settings.data_dir / "snapshot" / "sources.json"
    try:
        await write_snapshot(engine.ledger, path)
        quotas = Quotas(engine.settings.data_dir / "quotas", SourceSnapshot(path))
        checks += _usage(quotas)
        quotas.close()
    except OSError as exc:
        checks.append(Check(name="quotas", ok=False, detail=str(exc)))
    checks += [_refused(r) for r in await recent_refusals(engine.ledger)]
    for ban in standing_bans(engine):
        who = f"{ban.name} from {ban.address}" if ban.name else f"everything from {ban.address}"
        checks.append(
            Check(
                name=f"ban on {ban.channel}",
                ok=True,
                warning=True,
                detail=f"{who} until {ban.until:%H:%M:%S} UTC; rso ban clear lifts it",
            )
        )
    return checks


def _shown(engine: Engine) -> Iterator[Check]:
    """The certificates that receivers show."""
    for name, (receiver, config) in engine.plugins.receivers.items():
        for path in receiver.certificates(config):
            title = f"certificate of {name}"
            try:
                yield _certificate(title, Path(path).read_text("ascii", "replace"), path)
            except OSError as exc:
                yield Check(name=title, ok=False, detail=f"{path}: {exc.strerror}")


def _certificate(name: str, text: str, where: str = "") -> Check:
    prefix = f"{where}: " if where else ""
    try:
        found = [x509.load_pem_x509_certificate(pem.encode()) for pem in _PEM.findall(text)]
    except ValueError:
        found = []
    if not found:
        return Check(name=name, ok=False, detail=f"{prefix}no certificate can be read")
    now = datetime.now(UTC)
    # The last to end of a source's, the first to end of a chain: both are when it stops working.
    ends = (min if where else max)(one.not_valid_after_utc for one in found)
    begins = min(one.not_valid_before_utc for one in found)
    if begins > now:
        return Check(name=name, ok=False, detail=f"{prefix}not valid before {begins:%Y-%m-%d}")
    if ends <= now:
        return Check(name=name, ok=False, detail=f"{prefix}ended on {ends:%Y-%m-%d}")
    left = ends - now
    detail = f"{prefix}ends on {ends:%Y-%m-%d}, in {left.days} days"
    return Check(name=name, ok=True, warning=left < _SOON, detail=detail)


def _usage(quotas: Quotas) -> Iterator[Check]:
    for usage in quotas.usage():
        words, share = [], 0.0
        for taken, most, what in (
            (usage.associations, usage.quota.associations, "associations now"),
            (usage.instances, usage.quota.instances_per_day, "instances today"),
            (usage.bytes, usage.quota.bytes_per_day, "bytes today"),
        ):
            if most:
                words.append(f"{taken} of {most} {what}")
                share = max(share, taken / most)
        yield Check(
            name=f"quota of {usage.name}", ok=True, warning=share >= _NEARLY,
            detail=", ".join(words),
        )  # fmt: skip


def _refused(refused: Refused) -> Check:
    who = refused.name or "a peer"
    return Check(
        name=f"{refused.action}: {who}" + (f" from {refused.peer}" if refused.peer else ""),
        ok=True,
        warning=True,
        detail=f"{refused.reason} (last at {refused.last:%Y-%m-%d %H:%M:%S} UTC)",
    )


def _folders(engine: Engine) -> Iterator[tuple[str, Path]]:
    for folder in sorted((engine.settings.data_dir / "receivers").glob("*/bans")):
        yield folder.parent.name, folder


def standing_bans(engine: Engine) -> list[StandingBan]:
    """Every ban that stands on this machine."""
    return [
        StandingBan(
            channel=channel,
            address=ban.address,
            name=ban.name,
            until=datetime.fromtimestamp(ban.until, UTC),
        )
        for channel, folder in _folders(engine)
        for ban in _list(folder)
    ]


def _list(folder: Path) -> list[Ban]:
    try:
        return list(Bans.list(folder))
    except OSError as exc:
        raise RsoError(f"bans cannot be read: {exc.strerror}") from exc


def clear_bans(engine: Engine, address: str = "") -> int:
    """Lift the bans of an address, or all; returns how many."""
    return sum(Bans.clear(folder, address) for _, folder in _folders(engine))
