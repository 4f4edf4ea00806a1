"""The first things that somebody types: recipes by name, `init`, help, completion, JSON, several recipes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.commands import QUICK, cli, environment
from support.messages import CommandLine
from support.paths import ROOT

from lotteryfw.api.errors import RecipeError
from lotteryfw.cli import completion
from lotteryfw.cli.app import app
from lotteryfw.cli.examples import EXAMPLES
from lotteryfw.recipe.load import load_recipe
from lotteryfw.recipe.shipped import shipped_recipes
from lotteryfw.registry import Registry


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    return CommandLine(tmp_path, monkeypatch)


def test_shipped_recipes_are_found_by_name(command: CommandLine) -> None:
    assert list(shipped_recipes()) == sorted(
        path.stem for path in (ROOT / "recipes").glob("*.toml")
    )
    code, out, error = command("plan", "quickstart")
    assert (code, error, out.splitlines()[0]) == (0, "", "quickstart")
    code, out, error = command("check", "quickstart")
    assert (code, out) == (0, "quickstart: good; 12 cells\n")
    code, out, error = command("plan", "quikstart")
    assert error == ("error: quikstart: there is no such recipe (did you mean 'quickstart'?)\n")
    # a file of one's own comes first
    (command.folder / "quickstart").write_text(QUICK.format(length="40it", more=""))
    assert command("plan", "quickstart")[1].splitlines()[0] == "tiny"


def test_a_recipe_may_extend_a_shipped_one(command: CommandLine) -> None:
    (command.folder / "mine.toml").write_text(
        'extends = "quickstart"\nname = "mine"\nseeds = "0..9"\n'
    )
    code, out, _ = command("plan", "mine.toml", "--json")
    assert (code, json.loads(out)["cells"]) == (0, 40)


def test_ranges_of_seeds(command: CommandLine) -> None:
    def cells(seeds: str) -> Any:
        code, out, error = command("plan", "tiny.toml", "--json", "--set", f"seeds={seeds}")
        return json.loads(out)["cells"] if code == 0 else error

    assert cells("0..4") == cells('"0..4"') == 5
    assert cells("7..7") == 1
    assert cells("4..0") == (
        "error: --set: seeds: '4..0' is empty: write the smaller number first\n"
    )
    assert "numbers, more than the limit of" in cells("0..999999999")
    assert "error: --set: seeds: must be a list, got '0-4'" in cells("0-4")


def test_the_recipes_that_are_shipped_are_listed(command: CommandLine) -> None:
    _, out, _ = command("list", "recipes")
    assert "  quickstart" in out
    assert "Which weights should a pruned network keep?" in out
    rows = json.loads(command("list", "recipes", "--json")[1])
    (row,) = [row for row in rows if row["name"] == "lottery_ticket"]
    assert sorted(row["profiles"]) == ["full", "quick"]


def test_init_makes_a_study_whose_test_passes(command: CommandLine) -> None:
    code, out, error = command("init", "mystudy")
    assert (code, error) == (0, "")
    assert out.splitlines()[0] == "mystudy: study.toml, mine.py, test_mine.py"
    study = command.folder / "mystudy"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        # options of the tests that are running now are none of that test's
        cwd=study, env=environment(command.folder, PYTEST_ADDOPTS=""), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    # nothing of somebody's is written over
    code, out, error = command("init", "mystudy")
    assert (code, out) == (2, "")
    assert error == (
        "error: mystudy: has study.toml, mine.py, test_mine.py already; name another folder\n"
    )
    # the commands that it says to begin with
    code, out, error = command("plan", "mystudy/study.toml", "--trust", "mystudy/mine.py")
    assert (code, error, out.splitlines()[0]) == (0, "", "study")


def test_init_names_a_folder_as_a_shell_reads_it(command: CommandLine) -> None:
    code, out, _ = command("init", "a b/c")
    assert (code, out.splitlines()[2]) == (0, "  cd 'a b/c'")


def test_check_takes_any_file_but_code_for_a_recipe(command: CommandLine) -> None:
    (command.folder / "tiny.txt").write_text((command.folder / "tiny.toml").read_text())
    assert command("check", "tiny.txt") == (0, "tiny.txt: good; 2 cells\n", "")


def test_several_recipes_in_one_call(here: Path) -> None:
    (here / "other.toml").write_text((here / "tiny.toml").read_text().replace('"tiny"', '"other"'))
    done = cli(here, "recipe", "tiny.toml", "other.toml", "--jobs", "1", "-q")
    assert done.returncode == 0, done.stderr
    assert [Path(line).name.split("-")[0] for line in done.stdout.splitlines()] == ["tiny", "other"]


def test_a_mistake_in_the_second_recipe_shows_before_the_first_is_run(command: CommandLine) -> None:
    (command.folder / "wrong.toml").write_text(QUICK.format(length="0it", more=""))
    code, out, error = command("recipe", "tiny.toml", "wrong.toml")
    assert (code, out) == (2, "")
    assert error == "error: wrong.toml: train.length: '0it' is less than one step\n"
    assert not (command.folder / "store").exists()
    code, out, error = command("recipe", "tiny.toml", "tiny.toml", "--out", "x")
    assert error == ("error: --out: is the folder of one run; leave it out for several recipes\n")


def test_several_recipes_are_checked_for_the_device_and_the_store_of_the_run(here: Path) -> None:
    (here / "half.toml").write_text(
        (here / "tiny.toml").read_text().replace("[train]", '[train]\nprecision = "fp16"')
    )
    words = ("recipe", "tiny.toml", "half.toml", "--jobs", "1", "-q")
    done = cli(here, *words, "--device", "cpu")
    assert done.returncode == 2
    assert 'train.precision = "fp16" needs a CUDA device' in done.stderr
    assert not (here / "runs").exists()
    # another store than that of the environment, which is none
    (here / "notes").write_text("")
    (here / "other.toml").write_text((here / "tiny.toml").read_text().replace('"tiny"', '"other"'))
    words = ("recipe", "tiny.toml", "other.toml", "--jobs", "1", "-q", "--store", "good")
    done = cli(here, *words, LOTTERYFW_STORE=str(here / "notes"))
    assert done.returncode == 0, done.stderr


def commands() -> list[str]:
    """The names of all commands of lotteryfw itself."""
    names = []
    for group, prefix in (
        (app, ""),
        *((g.typer_instance, f"{g.name} ") for g in app.registered_groups),
    ):
        for info in group.registered_commands:
            names.append(prefix + (info.name or info.callback.__name__))
    return names


@pytest.mark.parametrize("name", commands())
def test_every_help_ends_with_examples(command: CommandLine, name: str) -> None:
    code, out, _ = command(*name.split(), "--help")
    assert code == 0
    assert "Examples:\n" in out
    for words in EXAMPLES[name]:
        assert f"lotteryfw {name} {words}".rstrip() in out


def test_commands_are_grouped(command: CommandLine) -> None:
    _, out, _ = command("--help")
    titles = ["Studies:", "Results:", "Components and data:", "This machine:"]
    lines = out.splitlines()
    assert [line for line in lines if line in titles] == titles
    assert "Others:" not in lines
    # a wheel has no folder of recipes to point at
    assert "recipes/" not in out


def test_recipes_of_plugins_are_completed_and_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "good.py"
    plugin.write_text(
        "from pathlib import Path\n\nfrom lotteryfw import hookimpl\n\n\n@hookimpl\n"
        "def register_recipes():\n    return [Path(__file__).with_name('grown.toml')]\n"
    )
    text = QUICK.format(length="40it", more="[profiles.short]\n")
    (tmp_path / "grown.toml").write_text(text.replace('name = "tiny"', 'name = "grown"'))
    registry = Registry.load([plugin])
    monkeypatch.setattr(Registry, "load", lambda *_: registry)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert completion.recipes("gro") == ["grown"]
    assert completion.recipes("good") == ["good.py/grown"]

    class Context:
        params: ClassVar[dict[str, Any]] = {"files": [Path("grown")]}

    assert completion.profiles(Context(), "s") == ["short"]  # type: ignore[arg-type]
    for name in ("grown", "good.py/grown"):
        (elsewhere / "mine.toml").write_text(f'extends = "{name}"\nname = "mine"\n')
        loaded = load_recipe(elsewhere / "mine.toml", registry, data_folder=tmp_path)
        assert loaded.name == "mine"
    (elsewhere / "mine.toml").write_text('extends = "growm"\nname = "mine"\n')
    with pytest.raises(RecipeError, match="grown"):
        load_recipe(elsewhere / "mine.toml", registry, data_folder=tmp_path)


def test_completion_of_recipes_profiles_kinds_and_components(command: CommandLine) -> None:
    class Context:
        params = {"file": "lottery_ticket"}

    assert completion.recipes("quick") == ["quickstart"]
    assert completion.recipes("ti") == ["tiny.toml"]
    assert completion.profiles(Context(), "q") == ["quick"]  # type: ignore[arg-type]
    assert completion.studies(Context(), "one") == ["one_shot"]  # type: ignore[arg-type]
    assert completion.kinds("crit") == ["criterion"]
    assert completion.components("large_final_s") == ["large_final_same_sign"]
    assert completion.data_sources("cifar") == ["cifar10", "cifar100"]


JSON_COMMANDS = [
    ("list", "criterion"), ("show", "large_final"), ("plugins",), ("data", "list"), ("doctor",),
    ("plan", "tiny.toml"), ("check", "tiny.toml"), ("check", "mine.py"), ("init", "other"), ("schema",),
]  # fmt: skip


@pytest.mark.parametrize("words", JSON_COMMANDS, ids=" ".join)
def test_json_is_one_value_a_line(command: CommandLine, words: tuple[str, ...]) -> None:
    (command.folder / "mine.py").write_text(
        "from lotteryfw import MaskCriterion, hookimpl\n"
        "class Mine(MaskCriterion):\n"
        "    'Mine.'\n"
        "    use = 'mine'\n"
        "    def score(self, layer):\n"
        "        return layer.final.abs()\n"
        "@hookimpl\n"
        "def register_components():\n"
        "    return [Mine]\n"
    )
    code, out, error = command(*words, *(() if words == ("schema",) else ("--json",)))
    assert (code, error) == (0, "")
    if words == ("schema",):
        assert json.loads(out)["title"] == "lotteryfw recipe"
        return
    for line in out.splitlines():
        assert json.loads(line)


def test_python_m_lotteryfw(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lotteryfw", "--version"], cwd=here, env=environment(here),
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[0]) == (0, "lotteryfw")
