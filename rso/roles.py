"""What each process of ``rso serve`` does: receive, web or work.

Run by the supervisor as ``python -m rso.roles ROLE INDEX CONFIG``; one line of JSON on standard
output says what it listens on.
"""

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import structlog
import uvloop

from rso.core.errors import ConfigError, PluginError, RsoError
from rso.core.transport import Connection, Receiver, ReceiverContext, Source
from rso.engine.again import keep_running
from rso.engine.context import open_engine
from rso.engine.dispatch import Dispatcher
from rso.engine.document_sweep import run_document_sweep
from rso.engine.escalation import run_escalation
from rso.engine.intake_loop import IntakeLoop
from rso.engine.notify_loop import run_notifications
from rso.engine.outbox import run_outbox
from rso.engine.purge import run_purge
from rso.engine.quotas import Quotas
from rso.engine.reconcile import reconcile
from rso.engine.settle import run_settle
from rso.engine.snapshot import SnapshotLoop, SourceSnapshot
from rso.engine.spool import LogSpool
from rso.engine.supervisor import ROLES, Child, Supervisor
from rso.engine.turnaround import run_turnaround
from rso.logs import configure_logs
from rso.plugins import Plugins, load_plugins
from rso.settings import Settings, load_settings

__all__ = ["main", "receivers_of", "serve"]

log = structlog.get_logger(__name__)

_LOCK_SECONDS = 60.0
# At 5 the list's page still waited half as long again; end to end loses a tenth (bench/README.md).
_WORK_NICE = 10
Ready = Callable[[Sequence[str]], None]


async def serve(
    settings: Settings, roles: Sequence[str], on_ready: Callable[[list[str]], None]
) -> None:
    """Run the roles under one supervisor until SIGTERM or SIGINT.

    Raises:
        ConfigError: A role is unknown, or one cannot start with this configuration.
    """
    if unknown := sorted(set(roles) - set(ROLES)):
        raise ConfigError(f"no role is called {unknown[0]}; there are {', '.join(ROLES)}")
    plugins = load_plugins(settings)
    children = [
        Child(
            name=f"{role}-{index}",
            # -P: what lies in the folder that RSO was started in is not imported.
            command=(sys.executable, "-P", "-m", "rso.roles", role, str(index), str(settings.path)),
        )
        for role in roles
        for index in range(_processes(plugins, role))
    ]

    def report(addresses: object) -> None:
        assert isinstance(addresses, dict)
        on_ready(list(dict.fromkeys(a for found in addresses.values() for a in found)))

    await Supervisor(children, on_ready=report).run()


def _processes(plugins: Plugins, role: str) -> int:
    if role != "receive":
        return 1
    wanted = [c.processes(config) for c, config in plugins.receivers.values() if c.role == role]
    return max(wanted, default=1)


@contextlib.asynccontextmanager
async def receivers_of(
    settings: Settings, plugins: Plugins, role: str, index: int
) -> AsyncIterator[tuple[LogSpool, list[Receiver]]]:
    """This process's spool and receivers, not yet started; closed in reverse order."""
    name = f"{role}-{index}"
    snapshot = SourceSnapshot(settings.data_dir / "snapshot" / "sources.json")
    quotas = Quotas(settings.data_dir / "quotas", snapshot)
    spool = LogSpool(settings.data_dir / "spool" / name, quotas=quotas)
    quotas.alert = spool.alert

    def identify(connection: Connection) -> Source | None:
        try:
            return plugins.decide(
                "rso_identify_source", Source, connection=connection, sources=snapshot.sources()
            )
        except PluginError as exc:
            log.error("a source could not be identified", reason=str(exc))
            return None

    receivers = []
    for plugin, (receiver, config) in plugins.receivers.items():
        if receiver.role != role or index >= receiver.processes(config):
            continue
        folder = settings.data_dir / "receivers" / plugin
        folder.mkdir(parents=True, exist_ok=True)
        context = ReceiverContext(
            spool=spool,
            identify=identify,
            sources=snapshot.sources,
            data_dir=folder,
            associate=quotas.associate,
            require_quota=quotas.require,
        )
        receivers.append(receiver(config, context))
    try:
        yield spool, receivers
    finally:
        for receiver_ in reversed(receivers):
            try:
                await receiver_.close()
            except Exception:
                log.exception("receiver did not close", receiver=receiver_.name)
        await asyncio.to_thread(spool.close)
        quotas.close()


async def _receive(settings: Settings, index: int, stop: asyncio.Event, ready: Ready) -> None:
    plugins = load_plugins(settings)
    async with receivers_of(settings, plugins, "receive", index) as (_, receivers):
        addresses: list[str] = []
        for receiver in receivers:
            addresses += await receiver.start()
        ready(addresses)
        await stop.wait()


def _stand_back() -> None:
    """Leave the processors to those who wait for an answer: senders, and people at their lists.

    Threads and child processes made later inherit it.
    """
    os.nice(_WORK_NICE)
    # Where Linux groups sessions (sched(7), autogroup) it weighs those, and each role leads one.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_WORK_NICE), "ascii")


async def _work(settings: Settings, index: int, stop: asyncio.Event, ready: Ready) -> None:
    _stand_back()
    owner = f"{socket.gethostname()}/work-{index}/{os.getpid()}"
    async with open_engine(settings) as engine:
        await asyncio.to_thread(engine.archive.prepare)
        snapshot = SnapshotLoop(engine)
        await snapshot.write()
        await reconcile(engine)
        # A fault of intake alone ends the process: it begins anew with what the log and disk hold.
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "settling": lambda: run_settle(engine, stop),
            "turnaround": lambda: run_turnaround(engine, stop),
            "outbox": lambda: run_outbox(engine, owner, stop),
            "notifications": lambda: run_notifications(engine, owner, stop),
            "escalation": lambda: run_escalation(engine, owner, stop),
            "dispatcher": lambda: Dispatcher(engine, owner).run(stop),
            "sources": lambda: snapshot.run(stop),
            "purge": lambda: run_purge(engine, stop),
            "sweep": lambda: run_document_sweep(engine, stop),
        }
        ready([])
        with contextlib.closing(snapshot):
            async with asyncio.TaskGroup() as group:
                group.create_task(IntakeLoop(engine, settings.data_dir / "spool").run(stop))
                for what, run in loops.items():
                    group.create_task(keep_running(run, stop, what=what))


async def _web(settings: Settings, index: int, stop: asyncio.Event, ready: Ready) -> None:
    # Only this role pays for importing the web.
    from rso.app import create_app  # noqa: PLC0415
    from rso.web.server import serve_app  # noqa: PLC0415

    plugins = load_plugins(settings)
    async with (
        open_engine(settings) as engine,
        receivers_of(settings, plugins, "web", index) as (spool, receivers),
    ):
        app = create_app(engine, spool, receivers)
        web = settings.web
        await serve_app(app, web.host, web.port, stop, ready)


async def _run(role: str, index: int, settings: Settings, stdout: TextIO) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    watch = asyncio.create_task(_watch_parent(stop))

    def ready(addresses: Sequence[str]) -> None:
        gc.collect()
        gc.freeze()  # what is there from the start is not looked through again and again
        stdout.write(json.dumps({"ready": list(addresses)}) + "\n")
        stdout.flush()

    run = {"receive": _receive, "work": _work, "web": _web}[role]
    try:
        with _locked(settings.data_dir / f"{role}-{index}.lock"):
            await run(settings, index, stop, ready)
    finally:
        watch.cancel()


async def _watch_parent(stop: asyncio.Event) -> None:
    """Stop when the supervisor is gone: its end of standard input closes."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    await reader.read()
    stop.set()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process of this name at a time; an earlier one that still drains is waited for."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = path.open("w")
    except OSError as exc:
        raise ConfigError(f"data_dir cannot be used: {path}: {exc.strerror}") from exc
    with opened as file:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ConfigError(f"another process holds {path.name}") from None
                time.sleep(0.1)
        yield


def main(arguments: Sequence[str]) -> int:
    """Run one role; the exit code is 2 when trying again cannot help."""
    role, index, path = arguments
    stdout = sys.stdout
    sys.stdout = sys.stderr  # the pipe carries reports only
    # Threads that wait for the disk get back to work sooner beside a busy event loop.
    sys.setswitchinterval(0.0005)
    configure_logs(role=f"{role}-{index}")
    try:
        uvloop.run(_run(role, int(index), load_settings(Path(path)), stdout))
    except ConfigError as exc:
        log.error("cannot start", reason=str(exc))
        return 2
    except RsoError as exc:
        # Such as a database that is away: the supervisor tries again.
        log.error("stopped", reason=str(exc))
        return 1
    except ExceptionGroup as group:
        if group.split(RsoError)[1] is not None:
            raise
        log.error("stopped", reason="; ".join(str(exc) for exc in group.exceptions))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
