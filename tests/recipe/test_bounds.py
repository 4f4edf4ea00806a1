"""A recipe that asks for too much, or that is no recipe at all, gets an answer at once and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaign import mutate
from support.paths import ROOT
from support.recipes import BASE, changed, faults, load, registry

from lotteryfw.api.errors import RecipeError, UsageError
from lotteryfw.api.limits import LIMITS, MODEL_BYTES
from lotteryfw.registry import Registry

DOCS = ROOT / "docs" / "reference" / "environment.md"
TEXT = """
name = "small"
data = { use = "synthetic", examples = 600 }
model = "lenet_300_100"
[train]
length = "200it"
batch = 20
optimizer = "adam"
"""


def written(folder: Path, text: str | bytes, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def only_fault(source: Any, sets: Sequence[str] = ()) -> str:
    """The one fault of a recipe. Where nothing counted first, finding it would take minutes, or all memory."""
    found = faults(source, sets=sets)
    assert len(found) == 1, found
    return found[0]


# Files


@pytest.mark.parametrize("key", ["recipe", "extends", "plugins"])
@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str, key: str) -> None:
    other = Path("/dev/zero")
    if kind == "pipe":
        other = tmp_path / "pipe"
        os.mkfifo(other)
    if key == "recipe":
        fault = only_fault(other)
    elif key == "extends":
        fault = only_fault(written(tmp_path, f'extends = "{other}"'))
    else:
        fault = only_fault(written(tmp_path, f'plugins = ["{other}"]\n{TEXT}'))
    assert str(other) in fault
    assert f"is a {kind}, not a regular file" in fault or "there is no plugin file" in fault


def test_a_file_is_no_larger_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, TEXT + "#" + "x" * 2_000_000)
    size = f"{path.stat().st_size:,}"
    assert (
        f"has {size} bytes, more than the limit of 2,000,000 (set LOTTERYFW_MAX_RECIPE_BYTES"
        in only_fault(path)
    )
    monkeypatch.setenv("LOTTERYFW_MAX_RECIPE_BYTES", "3000000")
    assert load(path).name == "small"


def test_a_trusted_plugin_is_no_larger_than_the_limit(tmp_path: Path) -> None:
    plugin = written(tmp_path, "#" * 2_000_001, "mine.py")
    with pytest.raises(
        UsageError, match=r"has 2,000,001 bytes, .* \(set LOTTERYFW_MAX_PLUGIN_BYTES"
    ):
        Registry.load([plugin])


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, b"\xef\xbb\xbf" + TEXT.encode()))
    assert recipe.digest == load(written(tmp_path, TEXT)).digest
    assert recipe.source_text == TEXT


def test_long_and_circular_chains_of_extends(tmp_path: Path) -> None:
    for number in range(2000):
        written(tmp_path, f'extends = "{number + 1}.toml"', f"{number}.toml")
    assert "32" in only_fault(tmp_path / "0.toml")
    written(tmp_path, 'extends = "0.toml"', "2.toml")
    assert "recipes extend each other in a circle: 0.toml → 1.toml → 2.toml → 0.toml" in only_fault(
        tmp_path / "0.toml"
    )
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    assert "loop.toml: cannot be read" in only_fault(loop)


@pytest.mark.parametrize("key", ["extends", "plugins"])
def test_paths_that_no_file_can_have(tmp_path: Path, key: str) -> None:
    value = {"extends": '"{}"', "plugins": '["{}"]'}[key]
    with_nul, long = value.format("a\\u0000b"), value.format("a" * 5000)
    assert "control character '\\x00'" in only_fault(
        written(tmp_path, f"{key} = {with_nul}\n{TEXT}")
    )
    long = only_fault(written(tmp_path, f"{key} = {long}\n{TEXT}"))
    assert "File name too long" in long or "there is no plugin file" in long
    assert len(long) < 1000


# Sizes


@pytest.mark.parametrize(
    ("changes", "number", "variable"),
    [
        ({"grid": {f"search.a{axis}": [*range(10)] for axis in range(6)}, "seeds": [0]}, "1,000,000 cells", "CELLS"),
        ({"grid": {f"search.a{axis}": [0, 1] for axis in range(60_000)}}, "2^60001 cells", "CELLS"),
        ({"seeds": [*range(200_000)]}, "200,000 cells", "CELLS"),
        ({"search": {"use": "imp", "levels": 1_000_000}}, "1,000,000 levels", "LEVELS"),
        (
            {"search": {"use": "iterative_edge_popup", "cycles": 1_000_000}, "parametrization": "top_k"},
            "1,000,000 cycles", "LEVELS",
        ),
        ({"model": {"use": "mlp", "hidden": [2**50]}}, "2^50", "NUMBER"),
        ({"model": {"use": "mlp", "hidden": [1] * 20_000}}, "20,000 entries", "ENTRIES"),
        ({"train": BASE["train"] | {"batch": 10**5000}}, "about 2^16609", "NUMBER"),
        ({"train": BASE["train"] | {"length": 2**50}}, "2^50", "NUMBER"),
        ({"train": BASE["train"] | {"length": "99999999999999ep"}}, "about 2^51 steps", "NUMBER"),
        ({"seeds": [2**63]}, "2^63", "SEED"),
        ({"name": "x" * 300}, "300 characters", "NAME"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_asked_for_is_held_against_a_limit(
    changes: dict[str, Any], number: str, variable: str
) -> None:
    fault = only_fault(changed(**changes))
    assert number in fault
    assert "limit of" in fault
    if variable != "NAME":
        assert f"LOTTERYFW_MAX_{variable}" in fault


def test_cells_are_counted_over_all_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTTERYFW_MAX_CELLS", "5")
    studies = [{"name": "a", "grid": {"criterion": ["random", "large_final"]}}, {"name": "b"}]
    assert "asks for 6 cells, more than the limit of 5" in only_fault(changed(study=studies))
    monkeypatch.setenv("LOTTERYFW_MAX_CELLS", "6")
    assert len(load(changed(study=studies)).cells) == 6


def test_a_recipe_within_the_limits_is_checked_in_time_that_grows_with_its_length() -> None:
    seeds = [*range(100_000)]
    assert len(load(changed(seeds=seeds)).cells) == 100_000
    assert len(faults(changed(**{f"k{number}": number for number in range(50_000)}))) == 101


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5", "9" * 5000])
def test_a_limit_is_a_positive_integer(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LOTTERYFW_MAX_LEVELS", value)
    with pytest.raises(UsageError, match="LOTTERYFW_MAX_LEVELS: must be a positive integer, not '"):
        load(BASE)


def test_every_limit_is_documented() -> None:
    page = DOCS.read_text("utf-8")
    missing = [
        name
        for name in [*(limit.variable for limit in LIMITS), MODEL_BYTES]
        if f"`{name}`" not in page
    ]
    assert not missing


# Nesting and text


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 900_000,
        "a = " + "[" * 40 + "]" * 40,
        "a = " + "{ b = " * 40 + "1" + " }" * 40,
        ".".join("a" * 500_000) + " = 1",
        "[" + ".".join("a" * 500_000) + "]",
        "[" + ".".join("a" * 20) + "]\n" + ".".join("b" * 20) + " = 1",
    ],
    ids=["open lists", "lists", "tables", "key", "header", "header and key"],
)
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    assert "nested deeper than the limit of 32" in only_fault(written(tmp_path, text))


def test_brackets_in_strings_and_comments_nest_nothing(tmp_path: Path) -> None:
    brackets = "[" * 50 + "." * 50
    texts = [
        f'"{brackets}"',
        f"'{brackets}'",
        f'"""\n{brackets}"""',
        f"'''\n{brackets}'''",
        f'"\\"{brackets}"',
    ]
    for text in texts:
        assert load(written(tmp_path, f"about = {text} # {brackets}\n{TEXT}")).about


def test_a_table_that_holds_itself_is_refused() -> None:
    recipe = changed()
    recipe["train"] = recipe
    assert "nested deeper than the limit of 32" in only_fault(recipe)


@pytest.mark.parametrize(
    ("sets", "what"),
    [
        (["studies.x=1"], "studies.x"),
        (["seeds=" + "1" * 5000], "--set"),
        (["train.batch=0x" + "f" * 5000], "2^20000 - 1"),
        (["title=\x7f"], "--set"),
        (["title=a\udcff"], "is not UTF-8 text"),
        (["title=\x1b[2J"], "--set"),
        (["'a\x00b'=1"], "--set"),
        (["a." * 60_000 + "a=1"], "nested deeper than the limit of 32"),
        (["search.levels=" + "[" * 3000], "nested deeper than the limit of 32"),
        (["train.length=" + "9" * 400 + ".5ep"], "train.length"),
    ],
)
def test_a_set_text_that_is_nothing_is_a_fault(sets: list[str], what: str) -> None:
    text = "\n".join(faults(BASE, sets=sets))
    assert what in text
    assert text.replace("\n", "").isprintable(), "a terminal would obey it"
    assert len(text) < 5000


def test_300_mutated_recipes_and_200_mutated_set_texts_are_refused_or_right(tmp_path: Path) -> None:
    wrong = []
    for case in [*mutate.mutated_recipes(300, seed=1), *mutate.mutated_sets(200, seed=1)]:
        if problem := mutate.check(case, registry(), tmp_path):
            wrong.append((case.number, case.sets, problem))
    assert not wrong


def test_mutations_are_of_both_sorts(tmp_path: Path) -> None:
    right = refused = 0
    for case in mutate.mutated_recipes(60, seed=2):
        path = written(tmp_path, case.recipe)
        try:
            load(path, case.profile, case.sets)
            right += 1
        except RecipeError:
            refused += 1
    assert right
    assert refused


# Output


def output_to(target: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from lotteryfw.cli import main; main()", *words]
    with open(target, "w") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["list"], ["schema"], ["--help"], ["--version"]], ids=" ".join)
def test_a_full_device_ends_a_command_with_one_line(words: list[str]) -> None:
    done = output_to("/dev/full", *words)
    assert done.stderr == "error: the output cannot be written: No space left on device\n"
    assert done.returncode == 1


def test_a_closed_pipe_ends_a_command_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "from lotteryfw.cli import main; main()", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
