"""The documentation against the code: generated pages are current, recipes and commands are accepted, examples run."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer

import lotteryfw
from lotteryfw.api import hookspecs
from lotteryfw.api.rng import Stream
from lotteryfw.cli.app import app
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry
from lotteryfw.std.draws import OwnStream
from lotteryfw.store import LevelRow
from lotteryfw.testkit import check_plugin, trial

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
)
REFERENCE = runpy.run_path(str(ROOT / "scripts" / "make_reference.py"))["pages"]()
OWN = [offer for offer in Registry.load().offers() if offer.distribution == "lotteryfw"]
LAMP = ROOT / "plugins" / "lotteryfw-lamp"

FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(lotteryfw .*?)(?: > .*)?$", re.MULTILINE)
BASE = """
name = "base"
data = "digits"
model = "mlp"
[train]
length = "20it"
batch = 8
optimizer = { use = "sgd", lr = 0.1 }
"""
"""What fragments of recipes are laid over, on pages that show no whole one."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's blocks in these languages, in order."""
    text = page.read_text("utf-8")
    found = (
        Block(
            page,
            text[: match.start()].count("\n") + 1,
            match["language"],
            match["title"],
            match["text"],
        )
        for match in FENCE.finditer(text)
    )
    return [block for block in found if block.language in languages]


def pages_with(*languages: str) -> list[Any]:
    return [pytest.param(page, id=page.stem) for page in PAGES if blocks(page, *languages)]


def is_plugin(block: Block) -> bool:
    return block.title is not None and "/" not in block.title and "@hookimpl" in block.text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to stand in as a reader: recipes at hand, an own store and data, no installed `lamp` in the way."""
    from PIL import Image

    place = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "recipes", place / "recipes")
    for number in range(64):
        image = (
            place
            / "data"
            / "flowers"
            / ("test" if number < 4 else "train")
            / f"{number % 2}"
            / f"{number}.png"
        )
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(image)
    (place / "base.toml").write_text(BASE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("LOTTERYFW_STORE", str(place / "store"))
        patch.setenv("LOTTERYFW_DATA", str(place / "data"))
        patch.setenv("LOTTERYFW_WITHOUT", "lotteryfw-lamp")
        yield place


@pytest.fixture(scope="module")
def quickstart(place: Path) -> Path:
    """The quickstart's run, from trainings so short that only what does not depend on them may be asserted."""
    run = lotteryfw.run(
        "recipes/quickstart.toml",
        sets=["train.length=4it", "seeds=[0]"],
        out="runs/quickstart",
        jobs=1,
    )
    return run.path


def write_plugins(page: Path, place: Path) -> list[Path]:
    """The page's plugin files as they are at its end."""
    for block in filter(is_plugin, blocks(page, "python")):
        (place / str(block.title)).write_text(block.text)
    return sorted({place / str(block.title) for block in filter(is_plugin, blocks(page, "python"))})


# Reference


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_generated_page_is_current(name: str) -> None:
    page = DOCS / "reference" / name
    assert page.read_text("utf-8") == REFERENCE[name], "run: python scripts/make_reference.py"


@pytest.mark.parametrize("offer", OWN, ids=lambda offer: f"{offer.kind}-{offer.name}")
def test_every_component_has_its_section(offer: Any) -> None:
    of_kind = REFERENCE["components.md"].split(f"\n## {offer.kind}\n")[1].split("\n## ")[0]
    section = of_kind.split(f"\n### {offer.name}\n")[1].split("\n### ")[0]
    for said in (offer.cls.summary(), offer.cls.formula, offer.cls.source):
        assert said in section
    for option, about in offer.cls.model_fields.items():
        assert f"- `{option}` (" in section
        assert " ".join(about.description.split()) in section


def test_every_hook_is_documented() -> None:
    known = [name for name, value in vars(hookspecs).items() if hasattr(value, "lotteryfw_spec")]
    assert len(known) >= 8
    assert re.findall(r"^## (\w+)$", REFERENCE["hooks.md"], re.MULTILINE) == known


def test_every_name_of_the_face_is_documented() -> None:
    sections = dict(re.findall(r"^## (\w+)\n\n(.+?)$", REFERENCE["face.md"], re.MULTILINE))
    assert set(lotteryfw.__all__) <= sections.keys()
    assert all(sections[name].strip() for name in lotteryfw.__all__)


def test_every_command_is_documented() -> None:
    def paths(command: Any, path: str) -> Iterator[str]:
        for name, each in getattr(command, "commands", {}).items():
            yield f"{path} {name}"
            yield from paths(each, f"{path} {name}")

    headings = set(re.findall(r"^##+ (lotteryfw .+)$", REFERENCE["command-line.md"], re.MULTILINE))
    assert headings == set(paths(typer.main.get_command(app), "lotteryfw"))


def test_every_column_of_levels_is_documented() -> None:
    page = (DOCS / "reference" / "run-folder.md").read_text("utf-8")
    columns = re.findall(r"^\| `(\w+)` \|", page.split("## Columns")[1], re.MULTILINE)
    assert columns == [each.name for each in fields(LevelRow) if each.name != "axes"]


def test_every_environment_variable_is_documented() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "lotteryfw").rglob("*.py"))
    page = (DOCS / "reference" / "environment.md").read_text("utf-8")
    assert set(re.findall(r"LOTTERYFW_[A-Z_]+", sources)) == set(
        re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    )


def test_every_named_stream_is_documented() -> None:
    page = (DOCS / "explanation" / "randomness.md").read_text("utf-8")
    rows = re.findall(r"^\| (.*`.+) \| .+ \|$", page, re.MULTILINE)
    purposes = {re.findall(r"`(.+?)`", labels)[0] for labels in rows}
    assert purposes == {*map(str, Stream), *map(str, OwnStream)}


def test_every_source_of_a_component_is_listed() -> None:
    page = (DOCS / "sources.md").read_text("utf-8")
    cited = {
        match[0] for offer in OWN if (match := re.match(r".+? (19|20)\d\d(?=,)", offer.cls.source))
    }
    assert len(cited) > 15
    assert {source for source in cited if f"| {source}, " not in page} == set()


def test_the_ladder_is_the_one_that_is_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    ladder = next(each for each in contracts if each["type"] == "layers")["layers"]
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## The ladder")[1].split("## ")[0]
    cells = [
        cell
        for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
        for cell in re.findall(r"`(\w+)`", row)
    ]
    # rooms of one step are written with a bar between them
    rooms = [room.strip() for step in ladder for room in step.split("|")]
    assert [room.removeprefix("lotteryfw.") for room in rooms] == cells


# Recipes


def recipes_with_profiles() -> Iterator[Any]:
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        for profile in (None, *tomllib.loads(path.read_text("utf-8")).get("profiles", {})):
            yield pytest.param(path, profile, id=f"{path.stem}-{profile or 'whole'}")


@pytest.mark.parametrize(("path", "profile"), list(recipes_with_profiles()))
def test_every_recipe_is_accepted(path: Path, profile: str | None, tmp_path: Path) -> None:
    assert load_recipe(path, Registry.load(), data_folder=tmp_path, profile=profile).cells


@pytest.mark.parametrize("page", pages_with("toml"))
def test_recipes_in_pages_are_accepted(page: Path, place: Path) -> None:
    """A block with a title is a whole recipe; one without is laid over what the page showed before it."""
    registry = Registry.load(trust=write_plugins(page, place))
    before = "base.toml"
    for number, block in enumerate(blocks(page, "toml")):
        if block.title == "pyproject.toml":
            continue
        name = block.title or f"{page.stem}-{number}.toml"
        (place / name).write_text(
            block.text if block.title else f'extends = "{before}"\n{block.text}'
        )
        assert load_recipe(place / name, registry, data_folder=place / "data").cells, (
            f"{page}:{block.line}"
        )
        before = name


# Commands


def commands() -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text("utf-8")
        shown = [
            line
            for block in blocks(page, "console", "bash", "sh")
            for line in COMMAND.findall(block.text)
        ]
        told = re.findall(r"(?<!`)`(?:[A-Z_]+=\S+ )*(lotteryfw [^`]+)`(?!`)", FENCE.sub("", text))
        for line in dict.fromkeys([*shown, *told]):
            yield pytest.param(line, id=f"{page.stem}: {line}")


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_in_pages_is_understood(line: str) -> None:
    """Parsed by the real command line, not run."""
    command, (_, *words) = typer.main.get_command(app), shlex.split(line)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if words in ([], ["--help"]):  # a mention
        return
    assert not hasattr(command, "commands"), f"there is no such command: {line}"
    command.make_context("lotteryfw", words)


def test_every_make_target_in_pages_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"[`$] ?make (\w+)", page.read_text("utf-8"))
    }
    assert {"demo", "test"} <= named <= targets


# Python


@pytest.mark.parametrize("page", pages_with("pycon"))
def test_examples_run(page: Path, place: Path, request: pytest.FixtureRequest) -> None:
    if "runs/quickstart" in page.read_text("utf-8"):
        request.getfixturevalue("quickstart")
    names: dict[str, Any] = {}
    if page.stem == "face":
        names |= {name: getattr(lotteryfw, name) for name in lotteryfw.__all__}
    told: list[str] = []
    runner = doctest.DocTestRunner()
    for block in blocks(page, "pycon"):
        test = doctest.DocTestParser().get_doctest(
            block.text, names, page.name, str(page), block.line
        )
        runner.run(test, out=told.append, clear_globs=False)
        names |= test.globs
    assert not told, "".join(told)


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_in_pages_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(textwrap.dedent(block.text), f"{page}:{block.line}", "exec")


def plugins() -> Iterator[Any]:
    for page in PAGES:
        for block in filter(is_plugin, blocks(page, "python")):
            yield pytest.param(block, id=f"{page.stem}:{block.line}")


@pytest.mark.parametrize("block", list(plugins()))
def test_every_plugin_in_pages_passes_its_trial(block: Block, place: Path) -> None:
    path = place / str(block.title)
    path.write_text(block.text)
    (verdict,) = check_plugin(str(path))
    if verdict.outcome != "skipped":
        assert verdict.outcome == "passed", str(verdict)
        return
    import numpy as np

    parts = {
        f"{part}_x": np.zeros((9, 2, 3), np.float32) for part in ("train", "validation", "test")
    }
    np.savez(
        place / "data" / "mine.npz",
        **parts,
        **{name.replace("_x", "_y"): np.arange(9) % 3 for name in parts},
    )
    assert block.title == "arrays.py"
    trial(verdict.offer.cls, {"path": "mine.npz"})


def test_a_plugin_file_works_in_the_tutorials_recipe(place: Path) -> None:
    page = DOCS / "tutorials" / "first-plugin.md"
    (place / "lamp.toml").write_text(
        next(block.text for block in blocks(page, "toml") if block.title == "lamp.toml")
    )
    run = lotteryfw.run(
        "lamp.toml",
        sets=["train.length=10it", "search.levels=2", "seeds=[0]"],
        trust=write_plugins(page, place),
        jobs=1,
    )
    assert set(run.statuses.values()) == {"done"}
    assert {row.axes["criterion"] for row in run.levels} == {"large_final", "lamp"}
    assert len({row.key for row in run.levels if row.level == 2}) == 2, "two criteria, two masks"


def test_the_tutorials_package_is_the_one_in_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "tutorials" / "first-plugin.md"
    shown = {block.title: block.text for block in blocks(page, "python", "toml")}
    module = "src/lotteryfw_lamp/__init__.py"
    assert shown[module] == (LAMP / module).read_text("utf-8")
    real = tomllib.loads((LAMP / "pyproject.toml").read_text("utf-8"))
    for table, said in tomllib.loads(shown["pyproject.toml"]).items():
        assert said.items() <= real[table].items()
    monkeypatch.syspath_prepend(str(LAMP / "src"))
    names: dict[str, Any] = {}
    exec(compile(shown["tests/test_lamp.py"], "tests/test_lamp.py", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


# The site


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent == ROOT], ids=lambda page: page.stem
)
def test_links_from_the_root_resolve(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed; it is in the extra `docs`")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
