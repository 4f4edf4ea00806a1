"""The registry: a broken plugin costs a line, clashes are named, built-in components are nothing special."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from lotteryfw.api.errors import PluginError, UsageError
from lotteryfw.api.events import CellFinished
from lotteryfw.recipe.schema import SLOTS
from lotteryfw.registry import WITHOUT, RegisteredComponent, Registry
from lotteryfw.registry.components import PARTS

CRITERION = """
from lotteryfw import MaskCriterion, hookimpl

class Mine(MaskCriterion):
    \"\"\"Scores as I like.\"\"\"
    use = "{use}"
    power: float = 1.0

    def score(self, layer):
        return layer.final

@hookimpl
def register_components():
    return [Mine]
"""
SEARCH = """
from lotteryfw import SearchAlgorithm, hookimpl

class Mine(SearchAlgorithm):
    use = "mine"
    {member}

    def search(self, lab): ...

@hookimpl
def register_components():
    return [Mine]
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a throw-away distribution with one plugin module on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(
        name: str, source: str, version: str = "1.0", local: bool = False, module: str = ""
    ) -> None:
        stem = module or name.replace("-", "_")
        module = f"_throwaway_{stem}_{tmp_path.name}".replace("[", "_").replace("]", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[lotteryfw]\n{name}-plugin = {module}\n")
        if local:
            (info / "direct_url.json").write_text(
                '{"url": "file:///x", "dir_info": {"editable": true}}'
            )

    return install


def failure(registry: Registry, distribution: str) -> tuple[str, str]:
    (result,) = (item for item in registry.failures if item.distribution == distribution)
    return result.stage, result.reason


BROKEN = {
    "raises at import": ("import math\n1 / 0", "import", "ZeroDivisionError: division by zero"),
    "misses a module": (
        "import nowhere_to_be_found",
        "import",
        "ModuleNotFoundError: No module named",
    ),
    "exits at import": ("raise SystemExit(3)", "import", "SystemExit: 3"),
    "misspells a hook": (
        "from lotteryfw import hookimpl\n@hookimpl\ndef register_component():\n    return []",
        "hooks",
        "there is no hook 'register_component'; did you mean 'register_components'",
    ),
    "takes an unknown argument": (
        "from lotteryfw import hookimpl\n@hookimpl\ndef run_started(evnt):\n    pass",
        "hooks",
        "PluginValidationError",
    ),
    "forgets the marker": (
        "def register_components():\n    return []",
        "hooks",
        "mark its functions with @hookimpl",
    ),
    "raises in its hook": (
        "from lotteryfw import hookimpl\n@hookimpl\ndef register_components():\n    raise KeyError('x')",
        "register_components",
        "KeyError: 'x'",
    ),
    "forgets to return": (
        "from lotteryfw import hookimpl\n@hookimpl\ndef register_components():\n    []",
        "register_components",
        "must return component classes, returned None",
    ),
    "returns an instance": (
        CRITERION.format(use="m").replace("[Mine]", "[Mine()]"),
        "component",
        "is not a component",
    ),
    "subclasses no kind": (
        "from lotteryfw import Component, hookimpl\nclass Mine(Component):\n    use = 'm'\n"
        "@hookimpl\ndef register_components():\n    return [Mine]",
        "component",
        "Mine must subclass one kind: SearchAlgorithm, MaskCriterion",
    ),
    "has no name": (
        CRITERION.format(use=""),
        "component",
        'Mine has no name: it needs a line like `use = "my_criterion"`',
    ),
    "has an odd name": (
        CRITERION.format(use="My-Own"),
        "component",
        "`use` is 'My-Own', but names are lower-case",
    ),
    "hides a method with an option": (
        CRITERION.format(use="m").replace("power: float = 1.0", "options: float = 1.0"),
        "component",
        "Mine: the option 'options' would hide what every criterion has under that name",
    ),
    "misses its method": (
        CRITERION.format(use="m").replace("score", "scores"),
        "component",
        "Mine does not define score",
    ),
    "has needs that are none": (
        CRITERION.format(use="m").replace("power:", "needs = 3\n    power:"),
        "component",
        "Mine: `needs` is 3, not a frozenset of Need",
    ),
    "has needs as text": (
        CRITERION.format(use="m").replace("power:", 'needs = frozenset({"gradient"})\n    power:'),
        "component",
        "Mine: `needs` is frozenset({'gradient'}), not a frozenset of Need",
    ),
    "requires parts without reasons": (
        SEARCH.format(member='required = ("rewind",)'),
        "component",
        "Mine: `required` is ('rewind',), not a dict of parts of a recipe, each with the reason",
    ),
    "requires what no recipe has": (
        SEARCH.format(member='required = {"rewnd": "rewinds"}'),
        "component",
        "Mine: `required` has 'rewnd', which is no part of a recipe; did you mean 'rewind'?",
    ),
    "uses what no recipe has": (
        SEARCH.format(member='optional = ("score",)'),
        "component",
        "Mine: `optional` has 'score', which is no part of a recipe; did you mean 'scores' or 'scope'?",
    ),
    "uses parts that are one text": (
        SEARCH.format(member='optional = "scores"'),
        "component",
        "Mine: `optional` is 'scores', not a tuple of parts of a recipe",
    ),
    "offers one name twice": (
        CRITERION.format(use="m").replace("[Mine]", "[Mine, Mine]"),
        "component",
        "Mine: broken offers a criterion 'm' already",
    ),
}


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_costs_one_line_and_the_rest_works(install: Install, case: str) -> None:
    source, stage, reason = BROKEN[case]
    install("broken", source, version="2.3")
    install("sound", CRITERION.format(use="sound"))
    registry = Registry.load()
    got_stage, got_reason = failure(registry, "broken")
    assert got_stage == stage
    assert reason in got_reason
    assert "\n" not in str(registry.failures[0])
    assert "plugin 'broken-plugin' of broken 2.3 failed at " + stage in str(registry.failures[0])
    assert registry.find("criterion", "sound").distribution == "sound"
    assert [plugin.components for plugin in registry.plugins if plugin.distribution == "sound"] == [
        1
    ]
    assert all(offer.distribution != "broken" for offer in registry.offers())


def test_an_unknown_name_names_the_nearest_and_says_that_plugins_failed(install: Install) -> None:
    install("sound", CRITERION.format(use="very_sound"))
    with pytest.raises(
        UsageError, match=r"there is no criterion 'very_sond'; did you mean 'very_sound'\?$"
    ):
        Registry.load().find("criterion", "very_sond")
    with pytest.raises(UsageError, match="'very_sound' is not a data source, it is a criterion"):
        Registry.load().find("data", "very_sound")
    install("broken", "1 / 0")
    with pytest.raises(
        UsageError, match="some plugins could not be loaded: `lotteryfw plugins` says why"
    ):
        Registry.load().find("criterion", "very_sond")


def test_two_distributions_may_offer_one_name_and_neither_is_knocked_out(install: Install) -> None:
    install("one", CRITERION.format(use="same"))
    install("two-b", CRITERION.format(use="same"))
    registry = Registry.load()
    assert not registry.failures
    with pytest.raises(UsageError, match="several distributions; write 'one/same' or 'two-b/same'"):
        registry.find("criterion", "same")
    assert registry.find("criterion", "two-b/same").distribution == "two-b"
    assert registry.find("criterion", "two_b/same").provider == "two-b==1.0"
    assert [offer.full_name for offer in registry.find_any("same")] == ["one/same", "two-b/same"]
    assert registry.short_name(registry.find("criterion", "one/same")) == "one/same"
    with pytest.raises(UsageError, match="there is no component 'three/same'"):
        registry.find_any("three/same")


@pytest.mark.parametrize("said", ["one", "One", "zero, one-plugin"])
def test_plugins_are_left_out_by_name(
    install: Install, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    install("one", "1 / 0")
    install("two", CRITERION.format(use="two"))
    monkeypatch.setenv(WITHOUT, said)
    registry = Registry.load()
    assert registry.excluded == ["one-plugin"]
    assert not registry.failures
    assert registry.find("criterion", "two")


def test_the_built_ins_come_in_by_the_same_door(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(offer.plugin == "std" for offer in Registry.load().offers())
    monkeypatch.setenv(WITHOUT, "lotteryfw")
    assert Registry.load().offers() == []


def test_only_unreleased_code_carries_a_digest_of_its_source(install: Install) -> None:
    install("released", CRITERION.format(use="released"))
    install("local", CRITERION.format(use="local"), local=True)
    registry = Registry.load()
    assert registry.find("criterion", "released").provider == "released==1.0"
    offer = registry.find("criterion", "local")
    assert len(offer.digest) == 8
    assert offer.provider == f"local==1.0+{offer.digest}"


def test_a_trusted_file_comes_in_and_its_digest_follows_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its text is changed within a second, to one of equal length."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def load(use: str) -> RegisteredComponent:
        file = tmp_path / "mine.py"
        file.write_text("from __future__ import annotations\n" + CRITERION.format(use=use))
        os.utime(file, (1e9, 1e9))
        registry = Registry.load([file, file])  # asked for twice, loaded once
        assert file.resolve() in registry.trusted
        return registry.find("criterion", use)

    first, second = load("first"), load("other")
    assert first.full_name == "mine.py/first"
    assert first.version == "local"
    assert first.digest != second.digest


def test_trusted_files_of_one_name_are_two_plugins_and_a_package_has_its_folders_name(
    tmp_path: Path,
) -> None:
    files = []
    for folder, name in (
        ("a", "mine.py"),
        ("b", "mine.py"),
        ("c", "__init__.py"),
        ("d", "__init__.py"),
    ):
        file = tmp_path / folder / name
        file.parent.mkdir()
        file.write_text(
            "from __future__ import annotations\n" + CRITERION.format(use=f"of_{folder}")
        )
        files.append(file)
    registry = Registry.load(files)
    names = [registry.find("criterion", f"of_{folder}").full_name for folder in "abcd"]
    assert names == ["mine.py/of_a", "mine.py/of_b", "c/of_c", "d/of_d"]


def test_a_trusted_file_that_does_not_work_ends_the_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    with pytest.raises(UsageError, match="there is no plugin file"):
        Registry.load([file])
    file.write_text("1 / 0")
    with pytest.raises(
        PluginError, match=r"mine\.py: plugin 'mine' .* failed at import: ZeroDivisionError"
    ):
        Registry.load([file])


@pytest.mark.parametrize("source", ["def broken(:\n", CRITERION.format(use="Odd-Name")])
def test_a_trusted_file_that_does_not_work_is_a_users_mistake(tmp_path: Path, source: str) -> None:
    (tmp_path / "mine.py").write_text("\n\n" + source)
    with pytest.raises(PluginError, match=re.escape(f"{tmp_path / 'mine.py'}: ")) as caught:
        Registry.load([tmp_path / "mine.py"])
    assert caught.value.exit_code == 2
    if "broken" in source:
        assert "SyntaxError: invalid syntax (mine.py, line 3)" in str(caught.value)


def test_an_unknown_name_of_any_kind_lists_only_what_is_near() -> None:
    with pytest.raises(
        UsageError, match=r"^there is no component 'large_finl'; did you mean 'large_final'[^,]*\?$"
    ):
        Registry.load().find_any("large_finl")
    with pytest.raises(
        UsageError, match=r"^there is no component 'zzz'; `lotteryfw list` shows all$"
    ):
        Registry.load().find_any("zzz")


def test_create_reads_names_and_tables(install: Install) -> None:
    install("sound", CRITERION.format(use="sound"))
    registry = Registry.load()
    made = registry.create("criterion", {"use": "sound", "power": 2})
    assert made.options() == {"power": 2.0}
    assert registry.create("criterion", "sound").options() == {"power": 1.0}
    assert registry.offer_of(made) == registry.find("criterion", "sound")
    with pytest.raises(ValidationError):
        registry.create("criterion", {"use": "sound", "powr": 2})
    with pytest.raises(
        UsageError, match="must be the name of a data source, or a table with `use`, got 3"
    ):
        registry.create("data", 3)


def test_the_default_takes_options_without_a_name_and_two_defaults_are_none(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WITHOUT, "lotteryfw")
    install("one", CRITERION.format(use="one").replace("power:", "default = True\n    power:"))
    registry = Registry.load()
    assert registry.default("criterion") == registry.find("criterion", "one")
    assert registry.default("scope") is None
    assert registry.create("criterion", {"power": 3}).options() == {"power": 3.0}
    install("two", CRITERION.format(use="two").replace("power:", "default = True\n    power:"))
    assert Registry.load().default("criterion") is None


def test_a_search_may_require_every_part_of_a_recipe_that_is_one_component() -> None:
    assert {str(keys[-1]) for keys in SLOTS} == PARTS


def test_a_second_default_takes_nothing_from_the_one_that_comes_with_lotteryfw(
    install: Install,
) -> None:
    """A plugin's criterion may inherit `default = True` from the class that it changes."""
    install("one", CRITERION.format(use="one").replace("power:", "default = True\n    power:"))
    registry = Registry.load()
    assert registry.default("criterion") == registry.find("criterion", "large_final")
    assert registry.create("criterion", {}).use == "large_final"


def test_an_event_reaches_everybody_and_one_that_raises_is_remembered_once(
    install: Install, tmp_path: Path
) -> None:
    told = "from lotteryfw import hookimpl\n@hookimpl\ndef cell_finished({argument}):\n    {does}"
    note = f"open({str(tmp_path / 'told')!r}, 'a').write('told ')"
    install("a-listens", told.format(argument="event", does=note))
    install("b-breaks", told.format(argument="event", does="raise SystemExit(event.cell)"))
    install("c-listens", told.format(argument="", does=note))
    registry = Registry.load()
    for _ in range(2):
        registry.notify("cell_finished", CellFinished(cell="x", status="done"))
    assert (tmp_path / "told").read_text() == "told " * 4
    assert [(each.plugin, each.stage, each.reason) for each in registry.failures] == [
        ("b-breaks-plugin", "cell_finished", "SystemExit: x")
    ]


def test_a_second_plugin_of_one_module_takes_no_hooks_from_the_first(install: Install) -> None:
    source = "from lotteryfw import hookimpl\n@hookimpl\ndef run_started(event):\n    pass"
    install("one", source, module="shared")
    install("two", source, module="shared")
    registry = Registry.load()
    stage, reason = failure(registry, "two")
    assert (len(registry.failures), stage) == (1, "hooks")
    assert "already registered" in reason
    assert registry.is_heard("run_started")


def test_offers_come_kind_by_kind() -> None:
    registry = Registry.load()
    kinds = [offer.kind for offer in registry.offers()]
    assert kinds == sorted(kinds, key=list(dict.fromkeys(kinds)).index)
    assert {offer.kind for offer in registry.offers("scope")} == {"scope"}


def test_loading_needs_no_torch() -> None:
    code = "import sys; from lotteryfw.registry import Registry; import lotteryfw.recipe; Registry.load()"
    subprocess.run([sys.executable, "-c", code + "; sys.exit('torch' in sys.modules)"], check=True)


def test_an_excluded_name_that_nothing_has_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITHOUT, "sdt,")
    (warning,) = Registry.load().warnings
    assert warning.startswith(
        "LOTTERYFW_WITHOUT excludes 'sdt', and there is no such plugin (did you mean 'std'"
    )
    monkeypatch.setenv(WITHOUT, "")
    assert Registry.load().warnings == []


PIPELINE = """
from pydantic import BaseModel

from lotteryfw import ImportedFunction, MaskCriterion, hookimpl


class Stage(BaseModel):
    function: ImportedFunction


class Pipeline(MaskCriterion):
    use = "pipeline"
    steps: tuple[ImportedFunction, ...] = ()
    by_name: dict[str, ImportedFunction] = {}
    last: Stage | None = None
    inner: MaskCriterion | None = None

    def score(self, layer):
        return layer.final


@hookimpl
def register_components():
    return [Pipeline]
"""


def test_the_code_of_functions_in_lists_and_tables_is_in_the_provider(tmp_path: Path) -> None:
    plugin, first, second = (tmp_path / name for name in ("pipeline.py", "f.py", "g.py"))
    plugin.write_text(PIPELINE)
    second.write_text("def g(weights): return weights\n")

    def provider(version: int, options: dict[str, object]) -> str:
        first.write_text(f"def f(weights): return {version}\n")
        registry = Registry.load([plugin, first, second])
        return registry.provider_of(registry.create("criterion", {"use": "pipeline", **options}))

    spellings: list[dict[str, object]] = [
        {"steps": ["f.py:f", "g.py:g"]},
        {"by_name": {"first": "f.py:f", "second": "g.py:g"}},
        {"steps": ["f.py:f"], "last": {"function": "g.py:g"}},
    ]
    for options in spellings:
        one, other = provider(1, options), provider(2, options)
        assert one != other
        assert "f.py==local+" in one
        assert "g.py==local+" in one
    # a component among the options has a provider of its own
    nested = provider(1, {"inner": {"use": "pipeline", "steps": ["f.py:f"]}})
    assert nested.startswith("pipeline.py==local+")
    assert "f.py" not in nested


HELPED = """
import {helper}
from lotteryfw import MaskCriterion, hookimpl

class Helped(MaskCriterion):
    use = "helped"

    def score(self, layer):
        return {helper}.score(layer)

@hookimpl
def register_components():
    return [Helped]
"""


def test_a_helper_that_changed_after_its_import_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key would be that of the new code, and the results those of the old."""
    monkeypatch.syspath_prepend(tmp_path)
    helper, plugin = tmp_path / "_the_helper.py", tmp_path / "helped.py"
    helper.write_text("def score(layer): return layer.final\n")
    plugin.write_text(HELPED.format(helper="_the_helper"))
    first = Registry.load([plugin]).find("criterion", "helped").digest
    # the file itself is executed anew each time
    importlib.import_module("helped")
    plugin.write_text(HELPED.format(helper="_the_helper") + "# changed\n")
    second = Registry.load([plugin]).find("criterion", "helped").digest
    assert second != first

    helper.write_text("def score(layer): return -layer.final\n")
    message = "_the_helper.py changed since this session imported it: restart the session"
    with pytest.raises(UsageError, match=re.escape(message)):
        Registry.load([plugin])
    with pytest.raises(UsageError, match=re.escape(message)):
        Registry.load([plugin])  # again, and not once
    importlib.reload(sys.modules["_the_helper"])
    assert Registry.load([plugin]).find("criterion", "helped").digest not in (first, second)
    for module in ("_the_helper", "helped"):
        monkeypatch.delitem(sys.modules, module)


def test_a_trusted_module_that_changed_after_its_import_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "_the_functions.py"
    module.write_text("def build(): return 1\n")
    Registry.load([Path("_the_functions")])
    module.write_text("def build(): return 2\n")
    with pytest.raises(UsageError, match=r"_the_functions\.py changed since this session imported"):
        Registry.load([Path("_the_functions")])
    monkeypatch.delitem(sys.modules, "_the_functions")


def test_an_installed_plugin_that_changed_after_its_import_is_refused(install: Install) -> None:
    install("changing", CRITERION.format(use="changing"), local=True)
    Registry.load()
    [module] = [module for name, module in sys.modules.items() if "_throwaway_changing" in name]
    file = Path(str(module.__file__))
    text = file.read_text()
    file.write_text(text + "# changed\n")
    with pytest.raises(UsageError, match=f"{file.name} changed since this session imported it"):
        Registry.load()
    file.write_text(text)
    Registry.load()
