"""The documentation against the code: generated pages are current, recipes and commands are accepted, examples run."""

from __future__ import annotations

import ast
import builtins
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
from support.paths import ROOT

import lotteryfw
from lotteryfw.api import hookspecs
from lotteryfw.api.rng import Stream
from lotteryfw.cli.app import app
from lotteryfw.recipe import load_recipe
from lotteryfw.recipe.claims import Claim
from lotteryfw.registry import Registry
from lotteryfw.std.draws import OwnStream
from lotteryfw.store import LevelRow
from lotteryfw.testkit import Skipped, check_plugin, trial

DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
)
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "make_reference.py"))
REFERENCE, INTERNAL = SCRIPT["pages"](), SCRIPT["INTERNAL"]
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
    """The page's plugin files, and files of functions that its recipes name, as they are at its end."""
    files = set()
    for block in blocks(page, "python"):
        is_named = block.title and f'"{block.title}:' in page.read_text("utf-8")
        if is_plugin(block) or is_named:
            (place / str(block.title)).write_text(block.text)
            files.add(place / str(block.title))
    return sorted(files)


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


def test_every_public_name_is_documented() -> None:
    sections = dict(re.findall(r"^## (\w+)\n\n(.+?)$", REFERENCE["api.md"], re.MULTILINE))
    assert set(lotteryfw.__all__) <= sections.keys()
    assert all(sections[name].strip() for name in lotteryfw.__all__)


def test_every_error_that_the_public_api_raises_can_be_imported() -> None:
    errors = set(re.findall(r"\b\w+Error\b|\bInterrupted\b", REFERENCE["api.md"]))
    assert {"Interrupted", "StoreError", "UsageError"} <= errors
    for name in errors - vars(builtins).keys():
        assert name in lotteryfw.__all__, name


@pytest.mark.parametrize("name", sorted(INTERNAL))
def test_internal_members_are_left_out_of_the_public_api(name: str) -> None:
    """They have to exist, or the list is out of date; and what is not on it has to be shown."""
    cls = getattr(lotteryfw, name)
    section = REFERENCE["api.md"].split(f"\n## {name}\n")[1].split("\n## ")[0]
    shown = set(re.findall(r"^- `(\w+)", section, re.MULTILINE))
    members = {member for member in vars(cls) if not member.startswith("_")}
    members |= set(getattr(cls, "__dataclass_fields__", ()))
    assert INTERNAL[name].keys() <= members
    assert shown == members - INTERNAL[name].keys()


@pytest.mark.parametrize("name", sorted(INTERNAL))
def test_no_component_uses_a_member_that_the_public_api_leaves_out(name: str) -> None:
    """Each name is looked for on variables that are called like the class, as authors call them."""
    folders = [ROOT / "lotteryfw" / "std", ROOT / "plugins", DOCS / "how-to", DOCS / "tutorials"]
    paths = [path for folder in folders for path in folder.rglob("*.[pm][yd]")]
    pattern = rf"\b(?:{name.lower()}|learned|dense)\.({'|'.join(INTERNAL[name])})\b"
    used = {path.name: re.findall(pattern, path.read_text("utf-8")) for path in paths}
    assert len(paths) > 20
    assert {path: names for path, names in used.items() if names} == {}


def test_every_form_of_a_claim_is_documented() -> None:
    section = REFERENCE["recipes.md"].split("## [[claim]]")[1]
    rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    shown = {frozenset(re.findall(r"`(\w+)`", row)) for row in rows}
    with pytest.raises(ValueError, match="say either") as refused:
        Claim.model_validate({"text": "a claim", "source": "a paper"})
    message = str(refused.value).partition("say either ")[2].partition(" [type")[0]
    forms = {frozenset(re.findall(r"`(\w+)`", form)) for form in message.split(", or ")}
    assert len(forms) == 9
    assert shown == forms


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
    assert columns == [
        each.name for each in fields(LevelRow) if each.name not in ("axes", "metrics")
    ]


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


def citations(source: str) -> list[str]:
    """What a component's `source` cites, as the rows of docs/sources.md begin: "Zhou et al. 2019", "PyTorch"."""
    cited = []
    for part in source.split("; "):
        paper = re.match(r".+? (?:19|20)\d\d\b", part)
        word = "torchvision" if "torchvision" in part else re.split(r"[ ,]", part)[0]
        cited.append(paper[0] if paper else word)
    return cited


def rows_of_sources() -> dict[str, str]:
    """What was taken, by source as cited."""
    page = (DOCS / "sources.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    return {citations(source)[0]: taken for source, taken in rows}


@pytest.mark.parametrize("offer", OWN, ids=lambda offer: f"{offer.kind}-{offer.name}")
def test_every_component_stands_in_the_rows_of_its_sources(offer: Any) -> None:
    rows = rows_of_sources()
    cited = citations(offer.cls.source)
    assert cited
    assert [source for source in cited if f"`{offer.name}`" not in rows.get(source, "")] == []


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("*/src/*/__init__.py")), ids=str)
def test_every_component_of_the_plugins_here_stands_in_the_rows_of_its_sources(path: Path) -> None:
    """Read from the source text, since the plugins need not be installed."""
    rows = rows_of_sources()
    components = []
    for node in ast.parse(path.read_text("utf-8")).body:
        values = {
            ast.unparse(line.targets[0]): ast.literal_eval(line.value)
            for line in getattr(node, "body", [])
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) in ("use", "source")
        }
        if len(values) == 2:
            components.append(values)
    assert components
    for values in components:
        for source in citations(values["source"]):
            assert f"`{values['use']}`" in rows.get(source, ""), source


def test_every_paper_that_the_code_cites_is_listed() -> None:
    paper = re.compile(r"[A-Z]\w+ (?:et al\.|& [A-Z]\w+) (?:19|20)\d\d")
    files = [*(ROOT / "lotteryfw").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    files += (ROOT / "recipes").glob("*.toml")
    cited = {name for path in files for name in paper.findall(path.read_text("utf-8"))}
    assert len(cited) > 20
    assert cited - rows_of_sources().keys() == set()


def test_the_packages_are_the_ones_whose_imports_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    ladder = next(each for each in contracts if each["type"] == "layers")["layers"]
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## The packages")[1].split("## ")[0]
    cells = [
        cell
        for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
        for cell in re.findall(r"`(\w+)`", row)
    ]
    # packages of one step are written with a bar between them
    packages = [name.strip() for step in ladder for name in step.split("|")]
    assert [name.removeprefix("lotteryfw.") for name in packages] == cells


# Recipes


def test_the_readme_names_every_recipe() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    names = [path.stem for path in (ROOT / "recipes").glob("*.toml")]
    assert not [name for name in names if f"`{name}`" not in text]


def recipes_with_profiles() -> Iterator[Any]:
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        for profile in (None, *tomllib.loads(path.read_text("utf-8")).get("profiles", {})):
            yield pytest.param(path, profile, id=f"{path.stem}-{profile or 'whole'}")


@pytest.mark.parametrize(("path", "profile"), list(recipes_with_profiles()))
def test_every_recipe_is_accepted(path: Path, profile: str | None, tmp_path: Path) -> None:
    assert load_recipe(path, Registry.load(), data_folder=tmp_path, profile=profile).cells


def test_the_profile_full_is_the_recipe_as_it_stands() -> None:
    """A recipe may have the profile from one that it extends, whose settings are others."""
    registry, nowhere = Registry.load(), ROOT / "no-data"
    same = {}
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        recipe = load_recipe(path, registry, data_folder=nowhere)
        if "full" in recipe.profiles:
            full = load_recipe(path, registry, data_folder=nowhere, profile="full")
            same[path.stem] = full.digest == recipe.digest
    assert {"deconstruct", "deconstruct_conv2", "lottery_ticket"} <= same.keys()
    assert [name for name, is_same in same.items() if not is_same] == []


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
    if page.stem == "api":
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
def test_every_plugin_in_pages_passes_its_trial(
    block: Block, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / str(block.title)
    path.write_text(block.text)
    (verdict,) = check_plugin(str(path))
    if verdict.outcome != "skipped":
        assert verdict.outcome == "passed", str(verdict)
        return
    import numpy as np

    paths = {"arrays.py": "mine.npz", "rows.py": "rows"}
    options = {"path": paths[str(block.title)]}
    # without its files a source raises DataError
    with monkeypatch.context() as patch:
        patch.setenv("LOTTERYFW_DATA", str(tmp_path))
        with pytest.raises(Skipped, match="cannot be read"):
            trial(verdict.component.cls, options)
    parts = {
        f"{part}_x": np.zeros((9, 2, 3), np.float32) for part in ("train", "validation", "test")
    }
    np.savez(
        place / "data" / "mine.npz",
        **parts,
        **{name.replace("_x", "_y"): np.arange(9) % 3 for name in parts},
    )
    (place / "data" / "rows").mkdir(exist_ok=True)
    for name, array in np.load(place / "data" / "mine.npz").items():
        np.save(place / "data" / "rows" / f"{name}.npy", array)
    trial(verdict.component.cls, options)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_call_things_by_their_names(page: Path) -> None:
    """Words that stood for the public API, a package and an interface before they had these names."""
    text = page.read_text("utf-8")
    assert (
        re.findall(r"\bthe face\b|\brooms?\b|\b(?:same|back) doors?\b|\bseams?\b", text, re.I) == []
    )


# The life of a job


def defined_names(path: Path) -> set[str]:
    """Functions, classes and the methods of these ("Lab.train") in a file, or in all files of a folder."""
    names: set[str] = set()
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        for node in ast.parse(file.read_text("utf-8")).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            names.add(node.name)
            members = node.body if isinstance(node, ast.ClassDef) else []
            names |= {
                f"{node.name}.{member.name}"
                for member in members
                if isinstance(member, ast.FunctionDef)
            }
    return names


LIFE = (DOCS / "explanation" / "life-of-a-job.md").read_text("utf-8")
STOPS = re.split(r"^## (?=\d\. )", LIFE, flags=re.MULTILINE)[1:]
CODE_LINE = re.compile(r"^- \[(lotteryfw/\S+)\]\(\.\./\.\./(\S+)\): (.+)$", re.MULTILINE)


def test_the_life_of_a_job_has_nine_stops() -> None:
    assert [stop.partition(".")[0] for stop in STOPS] == list("123456789")


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.partition("\n")[0])
def test_the_life_of_a_job_is_true_to_the_code(stop: str) -> None:
    """Each file exists and defines what the page names, and the text names nothing else."""
    stop = stop.partition("\n## ")[0]
    text = stop.partition("\n- ")[0]
    lines = CODE_LINE.findall(stop)
    assert len(lines) == stop.count("\n- ") > 0
    listed: set[str] = set()
    for shown, target, names in lines:
        assert shown == target
        wanted = set(re.findall(r"`([\w.]+)`", names))
        assert wanted
        assert wanted - defined_names(ROOT / target) == set(), target
        listed |= wanted
    code_names = r"`([a-z]+_\w+|[A-Z]\w+(?:\.\w+)?)`"
    named = set(re.findall(code_names, text))
    assert named - listed == set(), "named in the text, but not with its file"
    in_text = set(re.findall(r"`([\w.]+)`", text))
    assert listed - in_text == set(), "listed with its file, but not in the text"


# Reliability


def test_every_test_that_the_page_on_reliability_names_is_in_the_file_it_names() -> None:
    page = (DOCS / "reliability.md").read_text("utf-8")
    rows = re.findall(r"^\| .+ \| (.+) \|$", page, re.MULTILINE)
    named = [(row, re.findall(r"\[(\w+\.py)\]\(\.\./(tests/\S+)\)", row)) for row in rows]
    checked = 0
    for row, files in named:
        defined = {name for _, path in files for name in defined_names(ROOT / path)}
        tests = set(re.findall(r"`(test_\w+)`", row))
        assert tests <= defined, row
        checked += len(tests)
    assert checked == len(re.findall(r"`test_\w+`", page)) > 20


def test_the_page_on_reliability_describes_every_kind_of_fault_of_the_campaign() -> None:
    from campaign.__main__ import KINDS

    page = (DOCS / "reliability.md").read_text("utf-8").split("## The fault campaign")[1]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(KINDS)
    assert page.count("<!-- campaign -->") == page.count("<!-- /campaign -->") == 1


# The site


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them and as mkdocs does, without repeated hyphens."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    hyphenated = [
        re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-") for heading in headings
    ]
    return {*hyphenated, *(re.sub(r"-+", "-", anchor).strip("-") for anchor in hyphenated)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    """mkdocs checks the links between pages of docs/, but not those that lead out of it, nor the README's."""
    links = re.findall(
        r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", FENCE.sub("", page.read_text("utf-8"))
    )
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), f"{path}#{anchor}"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed; it is in the extra `docs`")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = [path.read_text("utf-8") for path in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > 20
    assert not any(re.search(r'href="[^"]*\.py"', text) for text in pages), "the site has no code"
