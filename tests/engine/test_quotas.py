"""Quotas: what may still come today."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from rso.core.errors import QuotaError
from rso.core.quota import Quota
from rso.core.transport import Kind, Provenance, Source
from rso.engine.quotas import Quotas
from rso.engine.snapshot import Snapshot, SourceSnapshot

FROM_NORTH = Provenance(
    channel="http_upload", facility="NORTH", source="gateway", kind=Kind.INTEGRATION,
    peer_address="10.0.0.1", opened_at=datetime.now(UTC),
)  # fmt: skip


@pytest.fixture
def quotas(tmp_path: Path) -> Iterator[Quotas]:
    """A source with ten instances, in a facility with a thousand bytes."""
    source = Source(
        facility="NORTH", channel="http_upload", identity="gateway", kind=Kind.INTEGRATION,
        password_hash="$argon2id$x", quota=Quota(instances_per_day=10),
    )  # fmt: skip
    snapshot = Snapshot(sources=(source,), facilities={"NORTH": Quota(bytes_per_day=1000)})
    path = tmp_path / "sources.json"
    path.write_bytes(msgspec.json.encode(snapshot))
    made = Quotas(tmp_path / "quotas", SourceSnapshot(path))
    yield made
    made.close()


def test_a_look_counts_nothing_and_tells(quotas: Quotas) -> None:
    """What may not come today is refused, by the source's quota and by its facility's."""
    told: list[str] = []
    quotas.alert = lambda kind, facts: told.append(f"{kind}: {facts['source']}")
    for _ in range(3):
        quotas.require(FROM_NORTH, 10, 1000)
    with pytest.raises(QuotaError):
        quotas.require(FROM_NORTH, 11, 1)
    quotas.take(FROM_NORTH, 600)
    quotas.require(FROM_NORTH, 9, 400)
    with pytest.raises(QuotaError):
        quotas.require(structs.replace(FROM_NORTH, source="another"), 1, 401)
    quotas.require(structs.replace(FROM_NORTH, facility="SOUTH"), 99, 1 << 40)
    assert told == ["quota exceeded: http_upload/gateway", "quota exceeded: "]
