"""``rso hold …``."""

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from rso.cli.shared import Config, Json, actor, fail, print_json, run_with_engine, table

__all__ = ["register"]

As = Annotated[str, Parameter(name="--as", help="who decides, when not the user of this shell")]


def register(app: App) -> None:
    """Add the commands."""
    hold = App(name="hold", help="Decide on what is held.")
    for command in (show, release, reject, create, recall):
        hold.command(command)
    hold.command(list_, name="list")
    app.command(hold)


def list_(*, config: Config = None, json: Json = False) -> None:
    """List what waits for a decision, oldest first."""
    from rso.engine.holds import list_holds  # noqa: PLC0415

    found = run_with_engine(config, lambda engine: list_holds(engine.ledger))
    if json:
        print_json({"holds": found})
    else:
        table(
            ["id", "kind", "row", "reason", "facility", "instances", "alarm"],
            [
                (h.id, h.kind, h.row, h.reason, h.facility, h.instances, "!" if h.alarm else "")
                for h in found
            ],
        )


def show(hold_id: str, *, config: Config = None, json: Json = False) -> None:
    """Show a hold with the evidence of the decision."""
    from rso.engine.holds import show_hold  # noqa: PLC0415

    hold = run_with_engine(config, lambda engine: show_hold(engine.ledger, hold_id))
    if json:
        print_json(hold)
        return
    evidence = hold.evidence
    table(
        ["", ""],
        [
            ("hold", hold.id),
            ("state", hold.state),
            ("row", hold.row),
            ("reason", hold.reason),
            ("because", evidence.get("explanation", "")),
            ("name", evidence.get("name", "")),
            ("birth date", evidence.get("birth_date", "")),
            ("sex", evidence.get("sex", "")),
            ("suggestions", ", ".join(evidence.get("suggestions", []))),
            ("asked by", hold.first_person),
            ("asked because", evidence.get("asked_because", "") if hold.first_person else ""),
            ("instances", hold.instances),
        ],
    )


def release(
    hold_id: str,
    *,
    exam: str,
    reason: str,
    identity: Literal["exam", "images"] = "exam",
    as_: As = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Let what is held join an exam; where identities differ, ``--identity`` is right."""
    from rso.engine.holds import release_hold  # noqa: PLC0415

    async def work(engine: Any) -> bool:
        return await release_hold(
            engine, hold_id, exam, reason=reason, actor=as_ or actor(), identity=identity
        )

    if not run_with_engine(config, work):
        fail(
            "name and birth date both differ: a second person must release it too"
            " (run it again with --as NAME)"
        )
    if json:
        print_json({"id": hold_id, "state": "released"})


def reject(
    hold_id: str, *, reason: str, as_: As = "", config: Config = None, json: Json = False
) -> None:
    """Decide that what is held belongs to no exam; it stays kept."""
    from rso.engine.holds import reject_hold  # noqa: PLC0415

    async def work(engine: Any) -> None:
        await reject_hold(engine, hold_id, reason=reason, actor=as_ or actor())

    run_with_engine(config, work)
    if json:
        print_json({"id": hold_id, "state": "rejected"})


def create(
    hold_id: str, *, reason: str, as_: As = "", config: Config = None, json: Json = False
) -> None:
    """Make an exam of a held Study, with the identity it came with."""
    from rso.engine.holds import create_from_hold  # noqa: PLC0415

    async def work(engine: Any) -> str:
        exam = await create_from_hold(engine, hold_id, reason=reason, actor=as_ or actor())
        return str(exam.number)

    number = run_with_engine(config, work)
    if json:
        print_json({"id": hold_id, "state": "created", "exam_number": number})
    else:
        print(number)


def recall(
    hold_id: str, *, reason: str, as_: As = "", config: Config = None, json: Json = False
) -> None:
    """Undo a release: sending stops, and the Study is held again."""
    from rso.engine.holds import recall_hold, show_hold  # noqa: PLC0415
    from rso.engine.recall_notice import told_of_recall  # noqa: PLC0415

    async def work(engine: Any) -> tuple[int, Any]:
        sent = await recall_hold(engine, hold_id, reason=reason, actor=as_ or actor())
        return sent, await told_of_recall(engine.ledger, await show_hold(engine.ledger, hold_id))

    sent, told = run_with_engine(config, work)
    if json:
        print_json({"id": hold_id, "state": "recalled", "sent": sent, "told": told})
    elif sent:
        print(f"{sent} instances are at a destination already: have them removed there")
        print("told: " + (", ".join(h.name for h in told.now) or "nobody now"))
        for radiologist in told.missed:
            print(f"no message reaches {radiologist} now: call them")
