"""Finding, refusing and naming plugins."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct

from rso.core.contributions import visible_to
from rso.core.errors import ConfigError, PluginError
from rso.core.secret import Secret
from rso.plugins import (
    ExamAction,
    Health,
    Message,
    Notifier,
    Page,
    Plugins,
    Tile,
    hookimpl,
    load_plugins,
)


class Settings(SimpleNamespace):
    """Just the plugin sections."""

    def __init__(self, disabled: tuple[str, ...] = (), **plugins: dict[str, Any]) -> None:
        super().__init__(plugins=plugins, disabled=disabled)


class PostConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A notifier's configuration."""

    url: Secret
    tries: int = 3


class Post(Notifier):
    """A notifier."""

    name = "post"
    config_type = PostConfig

    async def send(self, message: Message) -> str:
        """Pretend."""
        return "accepted"

    async def health(self) -> Health:
        """Fine."""
        return Health(ok=True)


def module(**functions: Any) -> ModuleType:
    """A plugin's module."""
    made = ModuleType("example")
    for name, function in functions.items():
        setattr(made, name, hookimpl(function))
    return made


def test_a_misspelt_hook_stops_the_start_with_the_plugins_name() -> None:
    """check_pending names who is wrong."""
    plugins = Plugins(Settings())
    with pytest.raises(PluginError, match="example"):
        plugins.register(module(rso_route_exma=lambda: None), "example")


def test_a_section_is_decoded_and_wrong_ones_say_where() -> None:
    """Unknown keys and wrong types carry their path; a secret does not show."""
    register = {"rso_register_notifiers": lambda: [Post]}
    plugins = Plugins(Settings(example={"url": "mailto://user:pw@host", "tries": 5}))
    plugins.register(module(**register), "example")
    config = plugins.notifiers["post"][1]
    assert config.url.reveal() == "mailto://user:pw@host"
    assert "pw" not in repr(config)
    for section, where in (
        ({"url": "x", "prot": 1}, "prot"),
        ({"url": "x", "tries": "y"}, "tries"),
    ):
        wrong = Plugins(Settings(example=section))
        with pytest.raises(
            ConfigError, match=rf"{where}.*plugins\.example|plugins\.example.*{where}"
        ):
            wrong.register(module(**register), "example")


def test_the_block_list_and_unknown_sections() -> None:
    """A disabled plugin is listed and idle; a section for none installed stops the start."""
    plugins = load_plugins(Settings(disabled=("dicom_scp",)))
    states = {info.name: info.state for info in plugins.describe()}
    assert states["dicom_scp"] == "disabled"
    assert "dicom_scp" not in plugins.receivers
    with pytest.raises(ConfigError, match="carrier_pigeon"):
        load_plugins(Settings(carrier_pigeon={}))


def test_react_hooks_stand_alone() -> None:
    """Each implementation is its own call, with only the arguments it names."""
    plugins = Plugins(Settings())
    seen = []

    def note(exam: str) -> None:
        seen.append(exam)

    plugins.register(module(rso_exam_created=note), "one")
    plugins.register(module(rso_exam_created=lambda: 1 / 0), "two")
    calls = dict(plugins.calls("rso_exam_created", exam="E"))
    calls["one"]()
    with pytest.raises(ZeroDivisionError):
        calls["two"]()
    assert seen == ["E"]


def test_the_first_answer_decides_and_faults_are_named() -> None:
    """The last plugin is asked first; its own words and wrong answers go no further."""
    plugins = Plugins(Settings())
    assert len(plugins.decide("rso_make_exam_number", str, facility="NORTH") or "") == 10
    plugins.register(module(rso_make_exam_number=lambda facility: f"{facility}1"), "one")
    plugins.register(module(rso_make_exam_number=lambda: None), "two")
    assert plugins.decide("rso_make_exam_number", str, facility="NORTH") == "NORTH1"
    plugins.register(module(rso_make_exam_number=lambda: 7), "three")
    with pytest.raises(PluginError, match=r"^plugin three: rso_make_exam_number returned a int$"):
        plugins.decide("rso_make_exam_number", str, facility="NORTH")

    def fails() -> None:
        raise ConfigError("DOE^JANE")

    plugins.register(module(rso_make_exam_number=fails), "four")
    with pytest.raises(PluginError, match=r"^plugin four: .* failed: ConfigError$"):
        plugins.decide("rso_make_exam_number", str, facility="NORTH")


def test_a_wrapper_is_refused() -> None:
    """It would be asked like any other implementation, which it is not."""
    made = ModuleType("wrapping")
    made.rso_route_exam = hookimpl(wrapper=True)(lambda exam: (yield))  # type: ignore[attr-defined]
    plugins = Plugins(Settings())
    with pytest.raises(PluginError, match="wrapping: rso_route_exam is a wrapper"):
        plugins.register(made, "wrapping")
    assert not [name for name, _ in plugins.calls("rso_route_exam") if name == "wrapping"]


def test_a_review_can_only_be_stricter() -> None:
    """A hold wins over a match; a match never wins over a hold; a failing reviewer holds."""
    from rso.core.matching import Action, Decision  # noqa: PLC0415

    auto = Decision(action=Action.AUTO, row=4, reason="match", explanation="", exam_number="N")
    hold = Decision(action=Action.HOLD, row=8, reason="mismatch", explanation="")
    strict, loose, broken = Plugins(Settings()), Plugins(Settings()), Plugins(Settings())
    strict.register(module(rso_review_match=lambda decision: hold), "strict")
    loose.register(module(rso_review_match=lambda decision: auto), "loose")
    broken.register(module(rso_review_match=lambda decision: 1 / 0), "broken")
    study: Any = None
    assert strict.review_match(study, [], auto) == hold
    assert loose.review_match(study, [], hold) == hold
    failed = broken.review_match(study, [], auto)
    assert failed.action is Action.HOLD
    assert "broken" in failed.explanation


def test_contributions_are_typed_and_of_configured_plugins_only() -> None:
    """Pages, actions and tiles come in order; an idle plugin adds none, a wrong type is named."""
    page, action, tile = (
        Page(title="A", path="/a"),
        ExamAction(title="B", path="/b/{number}"),
        Tile(title="C", path="/c"),
    )
    said = {
        "rso_register_notifiers": lambda: [Post],
        "rso_register_pages": lambda: [page],
        "rso_register_exam_actions": lambda: [action],
        "rso_register_tiles": lambda: [tile],
    }
    idle = Plugins(Settings())
    idle.register(module(**said), "post")
    assert (idle.pages, idle.exam_actions, idle.tiles) == ([], [], [])
    plugins = Plugins(Settings(post={"url": "x"}))
    plugins.register(module(**said), "post")
    assert (plugins.pages, plugins.exam_actions, plugins.tiles) == ([page], [action], [tile])
    plugins.register(module(rso_register_pages=lambda: [page]), "pages")
    assert plugins.pages == [page, page]
    assert visible_to("customer", plugins.pages) == [page]
    with pytest.raises(PluginError, match="wrong: rso_register_tiles returns Tile only"):
        plugins.register(module(rso_register_tiles=lambda: [page]), "wrong")


def test_who_sees_a_contribution() -> None:
    """Roles as said; an admin sees all; none said is everybody."""
    for_all, few = Page(title="A", path="/a"), Page(title="B", path="/b", roles=("auditor",))
    assert visible_to("customer", [for_all, few]) == [for_all]
    assert visible_to("auditor", [for_all, few]) == [for_all, few]
    assert visible_to("admin", [for_all, few]) == [for_all, few]
