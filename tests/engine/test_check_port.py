"""What ``rso check`` says of sources that cannot get in."""

from typing import Any

from rso.core.source import identify_source
from rso.core.transport import Connection
from rso.engine.check_port import check_port
from rso.ledger.site import all_sources, load_site


async def test_a_source_of_before_that_is_bound_to_nothing_is_named(world: Any) -> None:
    """A database may hold a DICOM source with a password only: refused, and ``rso check`` fails."""
    source = {"channel": "dicom_scp", "identity": "CT", "kind": "technician",
              "networks": ["10.0.0.0/8"], "password": "correct horse"}  # fmt: skip
    await load_site(world.ledger, {"facility": [{"code": "NORTH", "sources": [source]}]})
    assert all(check.ok for check in await check_port(world.engine))
    await world.ledger.execute("UPDATE source SET networks = '[]'")
    failed = [check for check in await check_port(world.engine) if not check.ok]
    assert [check.name for check in failed] == ["sources"]
    assert "dicom_scp/CT of NORTH" in failed[0].detail
    peer = Connection(channel="dicom_scp", identity="CT", peer_address="10.1.1.1", tls=True)
    assert identify_source(peer, await all_sources(world.ledger)) is None
