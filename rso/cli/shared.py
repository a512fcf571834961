"""What every command does alike: settings, output, errors."""

import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import Parameter

__all__ = ["Config", "Json", "NoConfig", "actor", "fail", "print_json", "run_with_engine", "table"]

Config = Annotated[
    Path | None, Parameter(name="--config", help="rso.toml; else RSO_CONFIG, else ./rso.toml")
]
NoConfig = Annotated[
    Path | None, Parameter(name="--config", help="taken as every command takes it; nothing is read")
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="print JSON")]
_T = TypeVar("_T")


def fail(message: str) -> None:
    """One line on standard error, and exit 1."""
    sys.stderr.write(f"rso: {message}\n")
    raise SystemExit(1)


def print_json(value: Any) -> None:
    """A value as JSON on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    made = Table(*columns, box=None, header_style="bold")
    for row in rows:
        made.add_row(*[str(cell) for cell in row])
    Console().print(made)


def actor() -> str:
    """Who uses the command line, for the audit."""
    return f"cli:{getpass.getuser()}"


def run_with_engine(config: Path | None, work: Callable[[Any], Awaitable[_T]]) -> _T:
    """Open the engine's parts, do the work, close them; root does so as RSO's own account."""
    from rso.cli.acting import acting_as_service  # noqa: PLC0415
    from rso.engine.context import open_engine  # noqa: PLC0415
    from rso.logs import configure_logs  # noqa: PLC0415
    from rso.settings import load_settings  # noqa: PLC0415

    configure_logs()

    settings = load_settings(config)

    async def run() -> _T:
        async with open_engine(settings) as engine:
            return await work(engine)

    with acting_as_service(settings):
        return asyncio.run(run())
