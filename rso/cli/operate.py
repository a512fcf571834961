"""Running RSO: serve, check, plugins, reindex, demo, audit."""

import asyncio
import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from rso.cli.shared import Config, Json, NoConfig, fail, print_json, run_with_engine, table

__all__ = ["register"]


def register(app: App) -> None:
    """Add the commands."""
    for command in (serve, check, plugins, reindex, demo):
        app.command(command)
    audit = App(name="audit", help="The audit trail.")
    audit.command(verify)
    app.command(audit)


def serve(
    *,
    role: Annotated[str, Parameter(help="web, receive, work, or several with commas")] = (
        "receive,web,work"
    ),
    config: Config = None,
) -> None:
    """Run RSO until it is told to stop."""
    from rso.logs import configure_logs  # noqa: PLC0415
    from rso.roles import serve as run  # noqa: PLC0415
    from rso.settings import load_settings  # noqa: PLC0415

    configure_logs("supervisor")

    def ready(addresses: list[str]) -> None:
        sys.stdout.write(f"RSO ready {' '.join(addresses)}\n")
        sys.stdout.flush()

    roles = [name.strip() for name in role.split(",") if name.strip()]
    asyncio.run(run(load_settings(config), roles, ready))


def check(*, config: Config = None, json: Json = False) -> None:
    """Check everything RSO leans on: also certificates, quotas, and who was refused, and why."""
    from rso.engine.check import run_checks  # noqa: PLC0415

    results = run_with_engine(config, run_checks)
    if json:
        print_json({"checks": results})
    else:
        table(
            ["", "check", "result"],
            [(_word(r), r.name, r.detail) for r in results],
        )
    if not all(r.ok for r in results):
        raise SystemExit(1)


def _word(result: Any) -> str:
    if not result.ok:
        return "FAILED"
    return "warning" if result.warning else "ok"


def plugins(*, config: Config = None, json: Json = False) -> None:
    """List installed plugins: version, hooks, state."""
    from rso.plugins import load_plugins  # noqa: PLC0415
    from rso.settings import load_settings  # noqa: PLC0415

    found = load_plugins(load_settings(config)).describe()
    if json:
        print_json({"plugins": found})
    else:
        table(
            ["plugin", "version", "state", "hooks"],
            [(p.name, p.version, p.error or p.state, ", ".join(p.hooks)) for p in found],
        )


def reindex(*, config: Config = None, json: Json = False) -> None:
    """Bring back every image that the database does not know, and tell which have no file."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from rso.engine.reindex import reindex as run  # noqa: PLC0415

    async def work(engine: Any) -> Any:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("reading the archive", total=None)
            return await run(engine, lambda n: progress.update(task, completed=n))

    found = run_with_engine(config, work)
    if json:
        print_json(found)
    else:
        sys.stdout.write(f"{found.files} files read, {found.brought_back} instances brought back\n")
    if found.unreadable:
        sys.stderr.write(f"{found.unreadable} files of the archive cannot be read: see the log\n")
    if found.set_aside:
        sys.stderr.write(f"{found.set_aside} have a value that the database refuses: set aside\n")
    if found.missing:
        fail(f"{found.missing} instances have no whole file in the archive: see the audit")


def demo(
    *,
    exit_: Annotated[bool, Parameter(name="--exit", negative="", help="end when done")] = False,
    config: NoConfig = None,  # noqa: ARG001
) -> None:
    """Play the whole story on this machine, with real sample images."""
    from rso.demo import run_demo  # noqa: PLC0415

    raise SystemExit(run_demo(stay=not exit_))


def verify(*, config: Config = None, json: Json = False) -> None:
    """Check that no entry of the audit was changed or taken out."""
    from rso.ledger import audit  # noqa: PLC0415

    broken = run_with_engine(config, lambda engine: audit.verify(engine.ledger))
    if json:
        print_json({"intact": broken is None, "first_broken": broken})
    if broken is not None:
        fail(f"the audit is broken at entry {broken}")
    if not json:
        sys.stdout.write("the audit is intact\n")
