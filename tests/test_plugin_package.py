"""A published plugin from end to end: built, installed beside lotteryfw, found, used in a recipe, its options checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[1] / "plugins" / "lotteryfw-lamp"
ASK = """
import json, sys
from pathlib import Path
from lotteryfw.errors import RecipeError
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry
from lotteryfw.testkit import check_plugin

registry = Registry.load()
said = {"failures": [str(failure) for failure in registry.failures]}
offer = registry.find("criterion", "lamp")
said |= {"full_name": offer.full_name, "provider": offer.provider, "module": sys.modules[offer.cls.__module__].__file__}
said["verdicts"] = [str(verdict) for verdict in check_plugin("lotteryfw-lamp")]
said["criteria"], said["faults"] = [], []
for file in sys.argv[1:]:
    try:
        recipe = load_recipe(Path(file), registry, data_folder=Path("unused"))
        said["criteria"] += [cell.criterion.use for cell in recipe.cells]
    except RecipeError as error:
        said["faults"] += [str(fault) for fault in error.faults]
print(json.dumps(said))
"""
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the plugin; simulated where there is nothing to build it with."""
    folder = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder), str(PLUGIN)]
    try:
        import hatchling  # noqa: F401
        import pip  # noqa: F401
    except ImportError:
        _install_by_hand(folder)
    else:
        subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


def _install_by_hand(folder: Path) -> None:
    """What a wheel's installation leaves behind, as far as entry points are concerned."""
    import shutil
    import tomllib

    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    shutil.copytree(PLUGIN / "src", folder, dirs_exist_ok=True)
    info = folder / f"lotteryfw_lamp-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["lotteryfw"].items())
    (info / "entry_points.txt").write_text(f"[lotteryfw]\n{points}")


@pytest.fixture
def ask(site: Path) -> Ask:
    """Asks a fresh process, in which the plugin is installed, about it and about recipes."""

    def ask(*recipes: Path) -> dict[str, Any]:
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", ASK, *map(str, recipes)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def readme_recipe() -> str:
    found = re.search(r"```toml\n(.*?)```", (PLUGIN / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_an_installed_plugin_is_offered_works_in_its_readmes_recipe_and_passes_its_trial(
    ask: Ask, site: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "readme.toml"
    recipe.write_text(readme_recipe())
    said = ask(recipe)
    assert said["failures"] == []
    assert said["full_name"] == "lotteryfw-lamp/lamp"
    assert said["provider"].startswith("lotteryfw-lamp==0.1.0")
    assert Path(said["module"]).is_relative_to(site)
    assert said["faults"] == []
    assert said["criteria"] == ["large_final", "large_final", "lamp", "lamp"]
    assert said["verdicts"] == ["passed: criterion lotteryfw-lamp/lamp"]


def test_its_options_are_validated_with_a_message_that_says_what_is_right(ask: Ask, tmp_path: Path) -> None:
    wrong = {"power": "power = -1", "text": 'power = "two"', "name": "powr = 2"}
    files = []
    for name, option in wrong.items():
        files.append(tmp_path / f"{name}.toml")
        files[-1].write_text(readme_recipe().replace("power = 2", option))
    power, text, name = ask(*files)["faults"]
    assert "power" in power
    assert "must be > 0, got -1" in power
    assert "must be a number, got 'two'" in text
    assert "criterion 'lamp' has no option 'powr'" in name
    assert "did you mean 'power'?" in name
