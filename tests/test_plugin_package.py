"""A plugin's package from end to end: built, installed beside lotteryfw, found, used in a recipe, options checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

PLUGIN = ROOT / "plugins" / "lotteryfw-lamp"
ASK = """
import json, sys
from pathlib import Path
from lotteryfw.api.errors import RecipeError
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry
from lotteryfw.testkit import check_plugin

registry = Registry.load()
offer = registry.find("criterion", "lamp")
said = {
    "failures": [str(failure) for failure in registry.failures],
    "full_name": offer.full_name,
    "provider": offer.provider,
    "module": sys.modules[offer.cls.__module__].__file__,
    "verdicts": [str(verdict) for verdict in check_plugin("lotteryfw-lamp")],
}
for file in map(Path, sys.argv[1:]):
    try:
        recipe = load_recipe(file, registry, data_folder=Path("unused"))
        said[file.stem] = [cell.criterion.use for cell in recipe.cells]
    except RecipeError as error:
        said[file.stem] = [str(fault) for fault in error.faults]
print(json.dumps(said))
"""
"""What a fresh process is asked about the plugin, and about the recipes in its arguments."""
OPTIONS = {
    "right": "power = 2",
    "negative": "power = -1",
    "text": 'power = "two"',
    "misspelt": "powr = 2",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the plugin; simulated where there is nothing to build it with."""
    folder = tmp_path_factory.mktemp("site")
    if not (find_spec("pip") and find_spec("hatchling")):
        _install_by_hand(folder)
        return folder
    offline = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--quiet",
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *offline,
        "--target",
        str(folder),
        str(PLUGIN),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _install_by_hand(folder: Path) -> None:
    """What a wheel's installation leaves behind, as far as entry points are concerned."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    shutil.copytree(PLUGIN / "src", folder, dirs_exist_ok=True)
    info = folder / f"lotteryfw_lamp-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "".join(
        f"{name} = {module}\n" for name, module in project["entry-points"]["lotteryfw"].items()
    )
    (info / "entry_points.txt").write_text(f"[lotteryfw]\n{points}")


@pytest.fixture(scope="module")
def said(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process in which the plugin is installed says of it, and of its README's recipe with each option."""
    found = re.search(r"```toml\n(.*?)```", (PLUGIN / "README.md").read_text(), re.DOTALL)
    assert found
    files = [tmp_path_factory.mktemp("recipes") / f"{name}.toml" for name in OPTIONS]
    for file, option in zip(files, OPTIONS.values(), strict=True):
        assert OPTIONS["right"] in found[1]
        file.write_text(found[1].replace(OPTIONS["right"], option))
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ASK, *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_installed_plugin_is_offered_and_passes_its_trial(
    said: dict[str, Any], site: Path
) -> None:
    assert said["failures"] == []
    assert said["full_name"] == "lotteryfw-lamp/lamp"
    assert said["provider"].startswith("lotteryfw-lamp==0.1.0")
    assert Path(said["module"]).is_relative_to(site)
    assert said["verdicts"] == ["passed: criterion lotteryfw-lamp/lamp"]


def test_the_recipe_in_its_readme_is_right(said: dict[str, Any]) -> None:
    assert said["right"] == ["large_final", "large_final", "lamp", "lamp"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("negative", "power: must be > 0, got -1"),
        ("text", "power: must be a number, got 'two'"),
        ("misspelt", "criterion 'lamp' has no option 'powr' (did you mean 'power'?)"),
    ],
)
def test_its_options_are_validated_with_a_message_that_says_what_is_right(
    said: dict[str, Any], recipe: str, message: str
) -> None:
    (fault,) = said[recipe]
    assert f"{recipe}.toml" in fault
    assert message in fault
