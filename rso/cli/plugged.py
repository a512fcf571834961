"""Commands that plugins add to the program."""

import sys
from collections.abc import Sequence

from cyclopts import App

__all__ = ["add_plugged"]


def add_plugged(app: App, words: Sequence[str]) -> None:
    """Add the commands of the site's plugins, where the program's own do not answer already.

    Only then: to import every plugin takes longer than most commands do. Without a configuration
    there are none; a plugin that fails is named, and the rest of the program works.
    """
    asked = next((word for word in words if not word.startswith("-")), "")
    if asked in app or (not asked and "--version" in words):
        return
    from rso.core.errors import RsoError  # noqa: PLC0415
    from rso.plugins import load_plugins  # noqa: PLC0415
    from rso.settings import load_settings  # noqa: PLC0415

    try:
        plugins = load_plugins(load_settings())
    except RsoError as exc:
        if asked:
            sys.stderr.write(f"rso: no commands of plugins: {exc}\n")
        return
    for plugin, register in plugins.calls("rso_register_commands"):
        try:
            for name, function in register():
                if name in app:
                    raise ValueError(f"there is a command {name} already")
                app.command(function, name=name)
        except Exception as exc:
            sys.stderr.write(f"rso: plugin {plugin}: its commands cannot be added: {exc}\n")
