"""The program: its commands, and one clear line for every error."""

import sys

from cyclopts import App, CycloptsError

from rso.cli import (
    ban,
    conformance,
    exam,
    hold,
    notify,
    operate,
    retention,
    send,
    setup,
    tokens,
)
from rso.cli.plugged import add_plugged
from rso.core.errors import RsoError

__all__ = ["app", "main"]

app = App(
    name="rso",
    help="Radiology Services Online: intake, matching, routing and proven delivery.",
    version_flags=["--version"],
)
_MODULES = (setup, tokens, operate, exam, hold, notify, retention, send, ban, conformance)
for module in _MODULES:
    module.register(app)


def main() -> None:
    """Run the command line: exit 0 done, 1 failed, 2 wrong usage."""
    add_plugged(app, sys.argv[1:])
    try:
        app(exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except RsoError as exc:
        sys.stderr.write(f"rso: {exc}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
