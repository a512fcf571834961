"""What an FTP server's section says counts, and what is wrong in it is named."""

import ftplib
import socket
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from rso_ftp.plugin import Ftp, FtpConfig

from rso.core.errors import ConfigError
from rso.plugins import Kind, ReceiverContext, Source
from rso.testing.site import free_port
from rso.testing.spool import RecordingSpool

NORTH = Source(
    facility="NORTH", channel="ftp", identity="north", kind=Kind.TECHNICIAN,
    password_hash=PasswordHasher(time_cost=1, memory_cost=64).hash("correct horse"),
)  # fmt: skip


def server(folder: Path, **options: object) -> Ftp:
    """A plain server with one account, not started."""
    context = ReceiverContext(
        spool=RecordingSpool(), identify=lambda _: NORTH, sources=lambda: [NORTH], data_dir=folder
    )
    values = {"host": "127.0.0.1", "port": 0, "tls": "off", **options}
    return Ftp(FtpConfig(**values), context)  # type: ignore[arg-type]


async def test_configuration_errors_name_the_place(tmp_path: Path) -> None:
    """A port that is taken, and ports that are none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="ftp cannot listen"):
            await server(tmp_path, port=taken.getsockname()[1]).start()
    with pytest.raises(ConfigError, match=r"\$\.plugins\.ftp\.passive_ports"):
        await server(tmp_path, passive_ports="many").start()


async def test_passive_ports_are_kept_to(tmp_path: Path) -> None:
    """So that a firewall can be told."""
    port = free_port()
    made = server(tmp_path, passive_ports=str(port))
    (address,) = await made.start()
    with ftplib.FTP(timeout=20) as ftp:
        ftp.connect("127.0.0.1", int(address.rpartition(":")[2]))
        ftp.login("north", "correct horse")
        assert ftp.makepasv()[1] == port
    await made.close()
