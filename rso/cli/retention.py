"""Retention: what may leave the archive, and letting it go."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from rso.cli.shared import Config, Json, actor, fail, print_json, run_with_engine, table

__all__ = ["register"]


def register(app: App) -> None:
    """Add the command."""
    app.command(purge)


def purge(
    *,
    dry_run: Annotated[bool, Parameter(negative="", help="only show it (the default)")] = False,
    apply: Annotated[bool, Parameter(negative="", help="remove the images")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Remove images of exams that every destination has, after their facility's retention."""
    from rso.engine.purge import Purge, plan_purge  # noqa: PLC0415
    from rso.engine.purge import purge as run  # noqa: PLC0415

    if dry_run and apply:
        fail("either --dry-run or --apply")

    async def work(engine: Any) -> Purge:
        return await (run(engine, actor=actor()) if apply else plan_purge(engine))

    done = run_with_engine(config, work)
    if json:
        print_json(done)
        return
    table(
        ["exam", "facility", "status", "images", "MB", "since"],
        [
            (e.exam_number, e.facility, e.status, e.instances, e.size >> 20, e.last_at)
            for e in done.exams
        ],
    )
    verb = "removed" if done.applied else "would be removed"
    table(
        ["exams", "images", "MB", ""],
        [(len(done.exams), done.instances, done.size >> 20, verb)],
    )
