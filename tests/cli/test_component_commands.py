"""Commands about what is installed, the store and the data: what they print, and their exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from support.commands import PLUGIN, cli, command, environment, refused

from lotteryfw.cli.components import example
from lotteryfw.recipe.schema import RecipeFile, Train
from lotteryfw.registry import Registry


def installed(folder: Path, name: str, text: str) -> str:
    """Write a distribution that offers a plugin. Return a PYTHONPATH that has it first."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[lotteryfw]\n{name} = {name}\n")
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def test_installed_plugins_add_components_and_commands_and_can_be_left_out(
    here: Path, tmp_path: Path
) -> None:
    path = {"PYTHONPATH": installed(tmp_path, "strangers", PLUGIN)}
    assert "broken" in cli(here, "list", "criterion", **path).stdout
    assert "hello from a plugin" in cli(here, "hello", **path).stdout
    assert "hello" in cli(here, "--help", **path).stdout
    assert (
        "loaded    strangers (strangers 1.2): 1 component\n" in cli(here, "plugins", **path).stdout
    )
    assert (
        "excluded  strangers" in cli(here, "plugins", LOTTERYFW_WITHOUT="strangers", **path).stdout
    )
    assert cli(here, "hello", LOTTERYFW_WITHOUT="strangers", **path).returncode == 2
    misspelt = PLUGIN.replace("def register_components", "def register_component")
    bad = {"PYTHONPATH": installed(tmp_path / "x", "bad", misspelt)}
    output = cli(here, "plugins", **bad).stdout
    for part in ("failed", "bad", "1.2", "hooks", "register_components", "LOTTERYFW_WITHOUT=bad"):
        assert part in output


def test_show_tells_formula_options_source_provider_and_example(here: Path) -> None:
    output = cli(here, "show", "large_final").stdout
    for part in (
        "|w_f|",
        "Frankle & Carbin 2019",
        "lotteryfw==",
        '[criterion]\nuse = "large_final"'.replace("\n", "\n  "),
    ):
        assert part in output
    assert "length" in cli(here, "show", "to_step").stdout


def test_list_names_every_component(here: Path) -> None:
    from lotteryfw.registry import Registry

    found: list[dict[str, Any]] = json.loads(cli(here, "list", "--json").stdout)
    assert {(each["kind"], each["name"]) for each in found} == {
        (o.kind, o.name) for o in Registry.load().offers()
    }
    output = cli(here, "list").stdout
    assert all(each["name"] in output and each["summary"] in output for each in found)


def test_schema_is_json_and_knows_components(here: Path) -> None:
    text = cli(here, "schema").stdout
    assert json.loads(text)["$schema"]
    assert '"large_final"' in text


def test_store_commands(here: Path) -> None:
    assert cli(here, "recipe", "tiny.toml", "-q", "--jobs", "1").returncode == 0
    assert "7 objects" in cli(here, "store", "info").stdout
    assert "7 objects checked, 0 damaged" in cli(here, "store", "verify").stdout
    victim = next((here / "store" / "objects").rglob("tensors.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-3])
    damaged = cli(here, "store", "verify")
    assert damaged.returncode == 1
    assert "1 damaged" in damaged.stdout
    assert cli(here, "store", "gc", "--dry-run").stdout.startswith("would remove 0 objects")
    subprocess.run(["rm", "-r", str(here / "runs")], check=True)
    kept = cli(
        here, "store", "gc"
    ).stdout  # the folder of the runs is gone, too: it may be a disk that is not mounted
    assert kept.startswith("removed 0 objects")
    assert "--force" in kept
    assert cli(here, "store", "gc", "--force").stdout.startswith("removed 6 objects")


def test_data_list_and_fetch_without_a_network(here: Path) -> None:
    output = cli(here, "data", "list").stdout
    assert "digits" in output
    assert "ready: 1×8×8, 10 classes" in output
    assert "lotteryfw data fetch mnist" in output
    assert "nosuch" in refused(here, "data", "fetch", "nosuch")
    message = refused(here, "data", "fetch", "image_folder")
    assert "error: data source 'image_folder': needs options (path), which only a" in message
    assert "lotteryfw show image_folder" in message


def test_doctor_tells_the_data_sets_that_are_here(here: Path) -> None:
    raw = here / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{what}-ubyte").write_text("x")
    before = cli(here, "doctor", "--data", "sets").stdout
    (line,) = (line for line in before.splitlines() if "fingerprint" in line)
    assert line.strip().startswith("mnist: 4 files, fingerprint ")
    (raw / "t10k-images-idx3-ubyte").write_text("y")
    assert line not in cli(here, "doctor", "--data", "sets").stdout


def test_doctor_tells_versions_and_folders(here: Path) -> None:
    output = cli(here, "doctor").stdout
    assert re.search(
        r"^bf16 +the CPU has (units for it \(|no units for it .*float32 is faster)", output, re.M
    )
    for part in ("torch", "device", str(here / "store"), str(here / "data"), "plugins"):
        assert part in output


def test_help_and_import_are_light(here: Path) -> None:
    """Not a timing: neither may load torch, which alone takes longer than a help text should."""
    for code in (
        "import lotteryfw",
        "import sys; sys.argv[1:] = ['--help']; from lotteryfw.cli import main; main()",
    ):
        output = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True
        )
        modules = [line.split("|")[-1].strip() for line in output.stderr.splitlines()]
        assert "lotteryfw" in modules
        assert "torch" not in modules
    planned = subprocess.run([sys.executable, "-X", "importtime", *command("plan", "tiny.toml")[1:]], cwd=here,
                             env=environment(here), capture_output=True, text=True)  # fmt: skip
    assert planned.returncode == 0
    assert "torch" not in [line.split("|")[-1].strip() for line in planned.stderr.splitlines()]


def test_check_says_that_a_plugin_has_no_components_and_that_it_runs_a_file(
    here: Path, tmp_path: Path
) -> None:
    commands = "from lotteryfw import hookimpl\n@hookimpl\ndef register_commands(app):\n    pass\n"
    path = {"PYTHONPATH": installed(tmp_path, "commands_only", commands)}
    done = cli(here, "check", "commands-only", **path)
    assert done.returncode == 2
    assert done.stderr == "error: the plugin 'commands-only' has no components to try\n"
    told = " ".join(cli(here, "check", "--help").stdout.split())
    assert "A plugin file is run, as by --trust FILE." in told


COMMANDS = """
from __future__ import annotations

from typing import TYPE_CHECKING

from lotteryfw import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

@hookimpl
def register_commands(app):
    {before}
    @app.command()
    def {name}({signature}):
        print("{says}")
"""


def test_commands_of_plugins_that_break_or_clash_cost_a_line(here: Path, tmp_path: Path) -> None:
    sources = {
        "wrong_signature": {"name": "wrong", "signature": "file: Path"},
        "raising": {"name": "raises", "before": "1 / 0"},
        "one": {"name": "hello", "says": "hello from one"},
        "two": {"name": "hello", "says": "hello from two"},
        "like_a_built_in": {"name": "plan"},
    }
    for name, words in sources.items():
        words = {"before": "", "signature": "", "says": ""} | words
        path = {"PYTHONPATH": installed(tmp_path / "plugins", name, COMMANDS.format(**words))}
    done = cli(here, "--help", **path)
    assert done.returncode == 0
    assert sorted(done.stderr.splitlines()) == [
        "plugin 'raising' of raising 1.2 failed at register_commands: ZeroDivisionError: "
        "division by zero",
        "plugin 'wrong_signature' of wrong_signature 1.2 failed at register_commands: "
        "NameError: name 'Path' is not defined",
        "the command 'hello' of one is called 'one/hello': another has its name",
        "the command 'hello' of two is called 'two/hello': another has its name",
        "the command 'plan' of like_a_built_in is called 'like_a_built_in/plan': "
        "another has its name",
    ]
    for name in ("plan", "like_a_built_in/plan", "one/hello", "two/hello"):
        assert re.search(rf"^  {name}( |$)", done.stdout, re.M)
    assert "hello from two" in cli(here, "two/hello", **path).stdout


def test_a_plugins_recipe_that_cannot_be_read_costs_a_line(here: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    source = """
from pathlib import Path

from lotteryfw import hookimpl

@hookimpl
def register_recipes():
    return sorted(Path(__file__).parent.glob("*.toml"))
"""
    path = {"PYTHONPATH": installed(folder, "shipping", source)}
    (folder / "good.toml").write_text('title = "Good"\n')
    (folder / "no_text.toml").write_bytes(b"title = '\xff'\n")
    (folder / "no_toml.toml").write_text("title = \n")
    done = cli(here, "list", "recipes", **path)
    assert done.returncode == 0
    assert re.search(r"^  shipping/good +Good$", done.stdout, re.M)
    first, second = done.stderr.splitlines()
    assert first.startswith("not listed: shipping/no_text: ")
    assert first.endswith("no_text.toml: is not UTF-8 text (byte 9)")
    assert "no_toml.toml: is not TOML: " in second


SOURCES = """
from lotteryfw import *

class Mine(DataSource):
    use = "digits"
    def facts(self, folder):
        return DatasetInfo((1,), 2, 3, 3, 3)
    def load(self, folder):
        raise KeyError("no such column")

class Damaged(Mine):
    use = "damaged"
    def load(self, folder):
        raise DataError("rows.csv ends\\nin line 3")

@hookimpl
def register_components():
    return [Mine, Damaged]
"""


def test_a_data_source_that_breaks_costs_a_line(here: Path, tmp_path: Path) -> None:
    path = {"PYTHONPATH": installed(tmp_path / "plugins", "sources", SOURCES)}
    done = cli(here, "data", "list", **path)
    assert done.returncode == 0, done.stderr
    states = dict(re.findall(r"^  (\S+) +(.*)$", done.stdout, re.M))
    assert states["sources/digits"] == "broke: KeyError: 'no such column'"
    assert states["damaged"] == "not usable: rows.csv ends in line 3"
    assert states["lotteryfw/digits"].startswith("ready: ")
    assert states["mnist"] == "not here: lotteryfw data fetch mnist"


OPTIONS = """
from enum import Enum
from pathlib import Path
from pydantic import BaseModel
from lotteryfw import MaskCriterion, hookimpl

class Side(Enum):
    left = "left"

class Window(BaseModel):
    width: int = 3

class Plain(MaskCriterion):
    use = "plain"
    def score(self, layer):
        return layer.final

class Rich(Plain):
    use = "rich"
    side: Side = Side.left
    file: Path = Path("a.csv")
    names: set[str] = {{"b", "a"}}
    window: Window = Window()
    members: tuple[MaskCriterion, ...] = (Plain(),)
    {more}

@hookimpl
def register_components():
    return [Plain, Rich]
"""


def test_examples_are_tables_of_a_recipe() -> None:
    for offer in Registry.load().offers():
        [table] = tomllib.loads(example(offer).replace("…", "0")).items()
        key, value = table
        assert key in RecipeFile.model_fields
        if key == "train":
            assert value.keys() <= Train.model_fields.keys()


def test_show_writes_defaults_of_any_type(here: Path) -> None:
    (here / "rich.py").write_text(OPTIONS.format(more=""))
    done = cli(here, "show", "rich", "--trust", "rich.py")
    assert done.returncode == 0, done.stderr
    for line in (
        'side = "left"',
        'file = "a.csv"',
        'names = ["a", "b"]',
        "window = {width = 3}",
        'members = [{use = "plain"}]',
    ):
        assert f"  {line}\n" in done.stdout + "\n"
    assert done.stderr == ""


def test_show_lists_an_option_whose_type_has_no_schema(here: Path) -> None:
    more = "model_config = {'arbitrary_types_allowed': True}\n    odd: Odd | None = None"
    text = OPTIONS.format(more=more).replace("class Rich", "class Odd: ...\n\nclass Rich")
    (here / "rich.py").write_text(text)
    done = cli(here, "show", "rich", "--trust", "rich.py")
    assert done.returncode == 0, done.stderr
    assert 'side (any, default "left")' in done.stdout
