"""``rso ban …``."""

import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from rso.cli.shared import Config, Json, actor, print_json, run_with_engine, table

__all__ = ["register"]


def register(app: App) -> None:
    """Add the commands."""
    ban = App(name="ban", help="Peers that failed too often and are refused for a while.")
    ban.command(list_, name="list")
    ban.command(clear)
    app.command(ban)


def list_(*, config: Config = None, json: Json = False) -> None:
    """List the bans that stand on this machine."""
    from rso.engine.check_port import standing_bans  # noqa: PLC0415

    async def work(engine: Any) -> Any:
        return standing_bans(engine)

    found = run_with_engine(config, work)
    if json:
        print_json({"bans": found})
    else:
        table(
            ["channel", "address", "name", "until (UTC)"],
            [(b.channel, b.address, b.name or "(all)", f"{b.until:%H:%M:%S}") for b in found],
        )


def clear(
    address: Annotated[str, Parameter(help="of the peer; none: every ban")] = "",
    *,
    config: Config = None,
    json: Json = False,
) -> None:
    """Lift the bans of an address, or all of them."""
    from rso.engine.check_port import clear_bans  # noqa: PLC0415
    from rso.ledger import audit  # noqa: PLC0415

    async def work(engine: Any) -> int:
        lifted = clear_bans(engine, address)
        if lifted:
            facts = {"address": address or "all", "bans": str(lifted)}
            await audit.append(engine.ledger, actor=actor(), action="bans lifted", facts=facts)
        return lifted

    lifted = run_with_engine(config, work)
    if json:
        print_json({"lifted": lifted})
    else:
        sys.stdout.write(f"{lifted} bans lifted\n")
