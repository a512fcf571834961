"""The ``rso`` command."""

from rso.cli.main import main

__all__ = ["main"]
