"""The receiver: FTP over TLS, upload only."""

import asyncio
import mmap
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from rso.plugins import (
    ConfigError,
    Health,
    Receiver,
    ReceiverContext,
    RsoError,
    hookimpl,
)
from rso_ftp.config import FtpConfig
from rso_ftp.names import Name, Names

__all__ = ["Ftp", "FtpConfig", "rso_register_receivers"]

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 60.0
_REMEMBER_SECONDS = 24 * 3600.0
_MOST_EVIDENCE = 64 << 20


class Ftp(Receiver):
    """FTPS server; every declared source of channel ``ftp`` is an account."""

    name = "ftp"
    config_type = FtpConfig
    config: FtpConfig

    def __init__(self, config: FtpConfig, context: ReceiverContext) -> None:
        super().__init__(config, context)
        self._server: Any = None
        self._names: Names | None = None
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    async def start(self) -> Sequence[str]:
        """Listen on the control port."""
        return await asyncio.to_thread(self._start)

    def _start(self) -> Sequence[str]:
        # Every command loads this module; only a server needs what stands behind it.
        from OpenSSL import SSL  # noqa: PLC0415

        from rso_ftp.server import build_server  # noqa: PLC0415

        config = self.config
        parts = self.context.data_dir / "parts"
        parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._names = names = Names(self.context.data_dir / "names.sqlite")
        in_use = names.parts()
        for path in parts.iterdir():  # of uploads that a crash ended before they had a name
            if path.name not in in_use:
                path.unlink(missing_ok=True)
        try:
            certificate = self._certificate() if config.tls == "required" else None
            self._server = build_server(config, self.context, names, parts, certificate)
        except (OSError, SSL.Error) as exc:
            names.close()
            raise ConfigError(f"ftp cannot listen on {config.host}:{config.port}: {exc}") from exc
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._server.run, daemon=True),
            threading.Thread(target=self._sweep, args=(names, parts), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        scheme = "ftp" if certificate is None else "ftp+tls"
        return [f"{scheme}://{config.host}:{self._server.address[1]}"]

    def _certificate(self) -> tuple[Path, Path]:
        config = self.config
        if not config.certificate:
            from rso_ftp.certificate import own_certificate  # noqa: PLC0415

            return own_certificate(self.context.data_dir)
        return Path(config.certificate), Path(config.key or config.certificate)

    async def health(self) -> Health:
        """Listening or not."""
        alive = bool(self._threads) and self._threads[0].is_alive()
        return Health(ok=alive, detail="" if alive else "not listening")

    async def close(self) -> None:
        """End the connections; files under way are parked for their resume."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._stop.set()
        server.stop()
        for thread in self._threads:
            thread.join(10)
        self._threads = []
        if self._names is not None:
            self._names.close()

    def _sweep(self, names: Names, parts: Path) -> None:
        """Expire what nobody went on with."""
        while not self._stop.wait(_SWEEP_SECONDS):
            try:
                self.expire(names, parts, time.time() - self.config.expire_hours * 3600)
                names.forget(time.time() - _REMEMBER_SECONDS)
            except Exception:
                log.exception("incomplete files could not be swept")

    def expire(self, names: Names, parts: Path, older_than: float) -> None:
        """Move incomplete files last changed before ``older_than`` (epoch) to quarantine."""
        for account, name in names.stale_parts(older_than):
            path = parts / name.part
            if path.exists() and name.provenance is not None:
                self._set_aside(path, name)
            names.remove(account, name.path)
            path.unlink(missing_ok=True)

    def _set_aside(self, path: Path, name: Name) -> None:
        assert name.provenance is not None
        batch = self.context.spool.open_batch(name.provenance)
        reason = f"ftp upload never completed: {name.size} bytes came"
        with path.open("rb") as file:
            if path.stat().st_size:
                length = min(path.stat().st_size, _MOST_EVIDENCE)
                with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as data:
                    batch.set_aside(memoryview(data), reason)
        batch.close()
        facts = {"account": name.provenance.source, "facility": name.provenance.facility,
                 "reason": reason}  # fmt: skip
        try:
            self.context.spool.alert("ftp upload expired", facts)
        except RsoError as exc:
            log.warning("alert could not be kept", reason=str(exc))


@hookimpl
def rso_register_receivers() -> list[type[Receiver]]:
    """The FTP server."""
    return [Ftp]
