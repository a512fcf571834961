"""Tokens for the HTTP API: made, listed, ended."""

import sys
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, Group, Parameter

from rso.cli.shared import Config, Json, actor, fail, print_json, run_with_engine, table
from rso.core.errors import ConfigError

__all__ = ["register"]


def _is_ones(arguments: ArgumentCollection) -> None:
    """Refuse a token of both, of nobody, and a facility for a person's."""
    given = {argument.name for argument in arguments if argument.tokens}
    if len(given & {"--user", "--source"}) != 1:
        raise ValueError("a token is a person's or a source's: give --user or --source")
    if given >= {"--user", "--facility"}:
        raise ValueError("--facility goes with --source")


_WHOSE = Group("Whose", validator=_is_ones)
_User = Annotated[str, Parameter(group=_WHOSE, help="the email address of a person")]
_Source = Annotated[
    str, Parameter(group=_WHOSE, help="the identity of a source of channel http_upload")
]
_Facility = Annotated[
    str, Parameter(group=_WHOSE, help="refuse a source that is not this facility's")
]


def register(app: App) -> None:
    """Add the commands."""
    token = App(name="token", help="Tokens for the HTTP API.")
    token.command(create)
    token.command(list_, name="list")
    token.command(revoke)
    app.command(token)


def create(
    *,
    user: _User = "",
    source: _Source = "",
    facility: _Facility = "",
    name: Annotated[str, Parameter(help="what it is for")] = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Make a token for a person or for a source; it is shown once."""

    async def work(engine: Any) -> str:
        from rso.ledger import audit  # noqa: PLC0415
        from rso.ledger.tokens import create_token  # noqa: PLC0415

        if facility:
            await _check_facility(engine, source, facility)
        token = await create_token(engine.ledger, email=user, source=source, name=name)
        facts = {"source": source, "name": name} if source else {"person": user, "name": name}
        await audit.append(engine.ledger, actor=actor(), action="token made", facts=facts)
        return token

    token = run_with_engine(config, work)
    if json:
        print_json({"token": token})
    else:
        sys.stdout.write(token + "\n")


async def _check_facility(engine: Any, source: str, facility: str) -> None:
    """Refuse a source that would bring images to another facility than is meant."""
    from rso.ledger.site import all_sources  # noqa: PLC0415

    found = {
        s.facility
        for s in await all_sources(engine.ledger)
        if s.channel == "http_upload" and s.identity == source
    }
    # None at all is told by the making.
    if found - {facility}:
        raise ConfigError(f"source {source} is of {', '.join(sorted(found))}, not of {facility}")


def list_(*, config: Config = None, json: Json = False) -> None:
    """List tokens of people and sources, ended ones too, not their secrets."""
    found = run_with_engine(
        config,
        lambda engine: engine.ledger.fetch(
            "SELECT id, account, source, name, created_at, last_used_at, revoked_at FROM api_token"
            " ORDER BY created_at"
        ),
    )
    if json:
        print_json({"tokens": found})
    else:
        table(
            ["id", "user", "source", "name", "last used", "revoked"],
            [
                (t["id"], t["account"], t["source"], t["name"], t["last_used_at"] or "",
                 t["revoked_at"] or "")
                for t in found
            ],
        )  # fmt: skip


def revoke(token_id: str, *, config: Config = None) -> None:
    """End a token."""

    async def work(engine: Any) -> bool:
        from rso.ledger import audit  # noqa: PLC0415
        from rso.ledger.tokens import revoke_token  # noqa: PLC0415

        ended = await revoke_token(engine.ledger, token_id)
        if ended:
            facts = {"token": token_id}
            await audit.append(engine.ledger, actor=actor(), action="token ended", facts=facts)
        return ended

    if not run_with_engine(config, work):
        fail(f"no token in use has the id {token_id}")
