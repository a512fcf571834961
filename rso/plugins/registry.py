"""Finding plugins by entry point, configuring them, and calling their hooks safely."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, TypeVar

import pluggy
from msgspec import Struct

from rso.core import hookspecs
from rso.core.contributions import ExamAction, Page, Tile
from rso.core.errors import ConfigError, PluginError
from rso.core.exam import Exam
from rso.core.matching import Action, Candidate, Decision, IncomingStudy
from rso.core.notifier import Notifier
from rso.core.routing import Attachment, Route, route_exam
from rso.core.transport import Receiver, Sender
from rso.plugins import builtin
from rso.plugins.config import decode_section

__all__ = ["GROUP", "PluginInfo", "PluginSettings", "Plugins", "load_plugins"]

_T = TypeVar("_T")
GROUP = "rso"
_BUILTIN = "builtin"


class PluginSettings(Protocol):
    """What the machinery needs of the settings."""

    @property
    def plugins(self) -> Mapping[str, Mapping[str, Any]]:
        """Each configured plugin's section, by the plugin's name."""

    @property
    def disabled(self) -> Sequence[str]:
        """Plugins that are not to be loaded."""


class PluginInfo(Struct, frozen=True, kw_only=True):
    """One line of ``rso plugins``: state is configured, idle, disabled or failed."""

    name: str
    version: str
    state: str
    hooks: list[str]
    error: str = ""


class Plugins:
    """The loaded plugins: their hooks and the transports they registered."""

    def __init__(self, settings: PluginSettings) -> None:
        self._settings = settings
        self._pm = pluggy.PluginManager("rso")
        self._pm.add_hookspecs(hookspecs)
        self._pm.register(builtin, _BUILTIN)
        self._infos: dict[str, PluginInfo] = {}
        self.receivers: dict[str, tuple[type[Receiver], Any]] = {}
        self.senders: dict[str, tuple[type[Sender], Any]] = {}
        self.notifiers: dict[str, tuple[type[Notifier], Any]] = {}
        self.config_types: dict[str, type[Struct]] = {}
        self.pages: list[Page] = []
        self.exam_actions: list[ExamAction] = []
        self.tiles: list[Tile] = []

    def register(self, module: object, name: str, *, version: str = "") -> None:
        """Add one plugin and what it registers.

        Raises:
            PluginError: It implements a hook that does not exist, or one wrongly.
            ConfigError: Its section is wrong.
        """
        try:
            self._pm.register(module, name)
            self._pm.check_pending()
        except pluggy.PluginValidationError as exc:
            self._pm.unregister(module)
            raise PluginError(name, str(exc)) from exc
        for caller in self._pm.get_hookcallers(module) or ():
            if any(i.wrapper or i.hookwrapper for i in caller.get_hookimpls()):
                self._pm.unregister(module)
                raise PluginError(name, f"{caller.name} is a wrapper, which no hook of RSO's takes")
        configured = self._add_transports(module, name)
        if configured or name not in self.config_types:
            self._add_contributions(module, name)
        self._infos[name] = PluginInfo(
            name=name,
            version=version,
            state="configured" if configured else "idle",
            hooks=sorted(c.name for c in self._pm.get_hookcallers(module) or ()),
        )

    def _add_transports(self, module: object, name: str) -> bool:
        section = self._settings.plugins.get(name)
        found = list(self._registered(module, name))
        for table, kind in found:
            self.config_types[name] = kind.config_type
            if section is not None or _has_defaults(kind.config_type):
                config = decode_section(kind.config_type, section or {}, f"plugins.{name}")
                # Receivers and notifiers act on their own: only a section starts them.
                if section is not None or table is self.senders:
                    table[kind.name] = (kind, config)
        if section and not found:
            raise ConfigError(f"plugin {name} takes no configuration - at `$.plugins.{name}`")
        return section is not None or any(kind.name in table for table, kind in found)

    def _registered(self, module: object, name: str) -> Iterator[tuple[dict[str, Any], Any]]:
        hooks: list[tuple[dict[str, Any], str]] = [
            (self.receivers, "rso_register_receivers"),
            (self.senders, "rso_register_senders"),
            (self.notifiers, "rso_register_notifiers"),
        ]
        for table, hook in hooks:
            function = getattr(module, hook, None)
            if function is None:
                continue
            try:
                kinds = list(function())
            except Exception as exc:
                raise PluginError(name, f"{hook} failed: {exc}") from exc
            yield from ((table, kind) for kind in kinds)

    def _add_contributions(self, module: object, name: str) -> None:
        """What it adds to the web; a path that two plugins add is one (all notifiers' page)."""
        hooks: list[tuple[list[Any], str, type[Struct]]] = [
            (self.pages, "rso_register_pages", Page),
            (self.exam_actions, "rso_register_exam_actions", ExamAction),
            (self.tiles, "rso_register_tiles", Tile),
        ]
        for table, hook, kind in hooks:
            function = getattr(module, hook, None)
            if function is None:
                continue
            try:
                found = list(function())
            except Exception as exc:
                raise PluginError(name, f"{hook} failed: {exc}") from exc
            if any(not isinstance(item, kind) for item in found):
                raise PluginError(name, f"{hook} returns {kind.__name__} only")
            table.extend(found)

    def note(self, info: PluginInfo) -> None:
        """Remember a plugin that was not loaded."""
        self._infos[info.name] = info

    def describe(self) -> list[PluginInfo]:
        """Every installed plugin, by name."""
        return [self._infos[name] for name in sorted(self._infos)]

    def calls(self, hook: str, **facts: Any) -> list[tuple[str, Callable[[], Any]]]:
        """A hook's implementations, each to be called on its own: (plugin, call)."""
        found: list[tuple[str, Callable[[], Any]]] = []
        for implementation in getattr(self._pm.hook, hook).get_hookimpls():
            arguments = {name: facts.get(name) for name in implementation.argnames}
            found.append(
                (implementation.plugin_name, partial(implementation.function, **arguments))
            )
        return found

    def decide(self, hook: str, kind: type[_T], **facts: Any) -> _T | None:
        """The first answer to a Decide hook; ``None`` where nobody has one.

        Raises:
            PluginError: One failed, or answered something else; a plugin's own words, which may
                name a patient, are not in it.
        """
        return self._decide(hook, kind, self.calls(hook, **facts))[1]

    def _decide(
        self, hook: str, kind: type[_T], calls: Sequence[tuple[str, Callable[[], Any]]]
    ) -> tuple[str, _T | None]:
        for name, call in reversed(calls):
            try:
                answer = call()
            except Exception as exc:
                raise PluginError(name, f"{hook} failed: {type(exc).__name__}") from exc
            if isinstance(answer, kind):
                return name, answer
            if answer is not None:
                raise PluginError(name, f"{hook} returned a {type(answer).__name__}")
        return "", None

    def explain_route(
        self, exam: Exam, attachments: Sequence[Attachment], at: datetime
    ) -> tuple[str, Route]:
        """Ask for a route as routing does, and say which plugin decided: (plugin, route).

        A moment other than the present is asked of RSO's own rule only; plugins know no other.

        Raises:
            PluginError: One failed; the exam would be held.
        """
        asked = self.calls("rso_route_exam", exam=exam, attachments=attachments)
        plugins = [(name, call) for name, call in asked if name != _BUILTIN]
        name, route = self._decide("rso_route_exam", Route, plugins)
        return name, route or route_exam(exam, attachments, at)

    def review_match(
        self, study: IncomingStudy, candidates: Sequence[Candidate], decision: Decision
    ) -> Decision:
        """Ask every reviewer; the first hold wins, nothing gets looser."""
        facts = {"study": study, "candidates": candidates, "decision": decision}
        for name, call in self.calls("rso_review_match", **facts):
            try:
                said = call()
            except Exception as exc:
                said = _held(decision, f"plugin {name} failed: {type(exc).__name__}")
            if isinstance(said, Decision) and said.action is Action.HOLD:
                return said if decision.action is not Action.HOLD else decision
        return decision


def _held(decision: Decision, explanation: str) -> Decision:
    return Decision(
        action=Action.HOLD,
        row=decision.row,
        reason="review failed",
        explanation=explanation,
        alarm=True,
        suggestions=(decision.exam_number,) if decision.exam_number else (),
    )


def _has_defaults(kind: type[Struct]) -> bool:
    try:
        kind()
    except TypeError:
        return False
    return True


def load_plugins(settings: PluginSettings, points: Sequence[EntryPoint] | None = None) -> Plugins:
    """Load every installed plugin that is not disabled.

    One that fails is kept out and named; it stops the start only when it is configured.

    Raises:
        PluginError: A configured plugin cannot be loaded, or a section names none installed.
        ConfigError: A plugin's section is wrong.
    """
    plugins = Plugins(settings)
    found = sorted(points if points is not None else entry_points(group=GROUP), key=_name)
    for point in found:
        version = point.dist.version if point.dist else ""
        if point.name in settings.disabled:
            plugins.note(PluginInfo(name=point.name, version=version, state="disabled", hooks=[]))
            continue
        try:
            plugins.register(_import(point), point.name, version=version)
        except PluginError as exc:
            if point.name in settings.plugins:
                raise
            plugins.note(
                PluginInfo(
                    name=point.name, version=version, state="failed", hooks=[], error=str(exc)
                )
            )
    names = {point.name for point in found}
    if missing := sorted(set(settings.plugins) - names):
        raise ConfigError(f"no plugin called {missing[0]} is installed - at `$.plugins`")
    return plugins


def _name(point: EntryPoint) -> str:
    return point.name


def _import(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as exc:
        raise PluginError(point.name, f"cannot be imported: {exc}") from exc
