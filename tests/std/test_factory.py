"""Networks that a function of the user's builds: named in a recipe, trusted, and part of the key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.commands import cli, refused

from lotteryfw import UsageError
from lotteryfw.registry import BrokenFile, Registry

MODELS = """
import math

from torch import nn


def build(shape, classes, units=8):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape), units), nn.ReLU(), nn.Linear(units, classes)
    )


class Net(nn.Module):
    def __init__(self, num_classes, *, hidden):
        super().__init__()
        self.body = build([64], num_classes, hidden)

    def forward(self, inputs):
        return self.body(inputs)


def reader(shape, classes, vocabulary):
    return nn.Sequential(
        nn.Embedding(vocabulary, 4), nn.Flatten(), nn.Linear(4 * shape[0], classes)
    )


def nothing():
    return 5


def breaks(classes):
    raise KeyError("no such width")


WIDTH = 3
"""
RECIPE = """
name = "own"
seeds = [0, 1]
data = "digits"
search = { use = "imp", levels = 1 }

[model]
use = "factory"
function = "nets.py:build"

[train]
length = "20it"
batch = 16
optimizer = { use = "sgd", lr = 0.1 }
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(MODELS)
    (tmp_path / "study.toml").write_text(RECIPE)
    return tmp_path


def computed(here: Path, *words: str) -> int:
    """Run the study, and return how many jobs were not in the store."""
    trust = () if "--trust" in words else ("--trust", "nets.py")
    # in this process, which is quicker than to start workers
    jobs = () if "--jobs" in words else ("--jobs", "1")
    done = cli(here, "recipe", "study.toml", "--out", "run", *trust, *jobs, *words)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((here / "run" / "manifest.json").read_text())
    count: int = manifest["invocations"][-1]["computed"]
    return count


@pytest.mark.large
def test_a_function_builds_the_network_in_worker_processes_too(here: Path) -> None:
    assert computed(here, "--jobs", "2") == 4
    kept = cli(here, "plan", "study.toml", "--network", "--trust", "nets.py").stdout
    assert "1.weight" in kept
    assert "8×64" in kept
    assert "prunable: 592 of 610 parameters" in kept


@pytest.mark.large
def test_the_code_of_the_file_is_in_the_key_and_its_folder_is_not(here: Path) -> None:
    assert computed(here) == 4
    assert computed(here) == 0
    (here / "elsewhere").mkdir()
    shutil.move(here / "nets.py", here / "elsewhere" / "nets.py")
    shutil.rmtree(here / "run")
    assert computed(here, "--trust", "elsewhere/nets.py") == 0
    with (here / "elsewhere" / "nets.py").open("a") as file:
        file.write("\n\nSPARE = 1\n")
    shutil.rmtree(here / "run")
    assert computed(here, "--trust", "elsewhere/nets.py") == 4


def test_arguments_are_axes_of_a_grid_and_classes_may_be_named(here: Path) -> None:
    model = 'model={use="factory",function="nets.py:Net"}'
    axes = 'grid={"model.arguments.hidden"=[3,5]}'
    planned = cli(
        here, "plan", "study.toml", "--network", "--trust", "nets.py", "--set", model, "--set", axes
    )
    assert planned.returncode == 0, planned.stderr
    assert "3×64" in planned.stdout
    assert "5×64" in planned.stdout


@pytest.mark.large
def test_an_installed_module_is_trusted_by_its_name(here: Path) -> None:
    model = (
        'model={use="factory",function="torch.nn:Linear",arguments={in_features=8,out_features=3}}'
    )
    data = 'data={use="synthetic",examples=100,classes=3,shape=[8]}'
    words = ("plan", "study.toml", "--network", "--set", model, "--set", data)
    assert "run again with --trust torch.nn" in refused(here, *words)
    planned = cli(here, *words, "--trust", "torch.nn")
    assert planned.returncode == 0, planned.stderr
    assert "weight 3×8" in " ".join(planned.stdout.split())
    # a single layer, whose parameters have no prefix
    run = ("recipe", *words[1:2], *words[3:], "--trust", "torch.nn", "--out", "run")
    done = cli(here, *run)
    assert done.returncode == 0, done.stderr


def test_a_function_of_tokens_gets_the_vocabulary(here: Path) -> None:
    data = 'data={use="synthetic_text"}'
    words = ("plan", "study.toml", "--network", "--trust", "nets.py", "--set", data)
    planned = cli(here, *words, "--set", 'model.function="nets.py:reader"')
    assert planned.returncode == 0, planned.stderr
    message = refused(here, *words)
    assert "the inputs are tokens, and nets.py:build has no parameter 'vocabulary'" in message


def test_a_recipe_calls_no_function_that_is_not_trusted(here: Path) -> None:
    (here / "nets.py").write_text('open("ran", "w").close()\n' + MODELS)
    message = refused(here, "recipe", "study.toml")
    assert "study.toml: model.function: nets.py is code" in message
    assert "run again with --trust nets.py" in message
    for name in ("os:getcwd", "subprocess:run"):
        message = refused(here, "recipe", "study.toml", "--set", f'model.function="{name}"')
        assert "is code, and a recipe runs no code unless you say so" in message
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ('function="nets.py:biuld"', "nets.py has no function 'biuld'; did you mean 'build'?"),
        ('function="nets.py:WIDTH"', "'WIDTH' of nets.py is no function, but int"),
        ('function="gone.py:build"', "there is no file gone.py"),
        ('function="build"', "must be 'file.py:function' or 'package.module:function'"),
        ("function=3", "must be 'file.py:function' or 'package.module:function', got 3"),
        (
            'function="nets.py:build",arguments={unit=3}',
            "model.arguments: nets.py:build has no parameter 'unit'; its parameters: shape, "
            "classes, units",
        ),
        ('function="nets.py:Net"', "nets.py:Net needs 'hidden', which has no default"),
        ('function="nets.py:nothing"', "nets.py:nothing returned int, not an nn.Module"),
        ('function="nets.py:breaks"', "KeyError: 'no such width'"),
    ],
)
def test_mistakes_are_refused_before_any_training(here: Path, model: str, expected: str) -> None:
    (here / "study.toml").write_text(RECIPE.replace('function = "nets.py:build"\n', ""))
    message = refused_or_broken(here, f'model={{use="factory",{model}}}')
    assert expected in " ".join(message.split())


def refused_or_broken(here: Path, model: str) -> str:
    done = cli(here, "recipe", "study.toml", "--trust", "nets.py", "--set", model)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not (here / "store" / "objects").exists()
    return done.stderr


def test_files_of_one_name_are_told_apart_by_their_folders(here: Path) -> None:
    for folder in ("a", "b"):
        (here / folder).mkdir()
        shutil.copy(here / "nets.py", here / folder / "nets.py")
    words = ("check", "study.toml", "--trust", "a/nets.py", "--trust", "b/nets.py")
    assert "write more of its path" in refused(here, *words)
    assert cli(here, *words, "--set", 'model.function="b/nets.py:build"').returncode == 0


def test_a_seed_ticket_draws_the_network_of_a_trusted_function_again(here: Path) -> None:
    computed(here)
    words = ("export", "run", "--out", "seed.safetensors", "--as", "seed", "--trust", "nets.py")
    done = cli(here, *words, "--level", "1", "--cell", "own/seed=0")
    assert done.returncode == 0, done.stderr
    import lotteryfw

    network, _ = lotteryfw.load_seed_ticket(here / "seed.safetensors", trust=[here / "nets.py"])
    assert sum(part.numel() for part in network.parameters()) == 610
    with pytest.raises(UsageError, match="trust"):
        lotteryfw.load_seed_ticket(here / "seed.safetensors")


def test_a_file_without_a_hook_or_a_function_is_no_use(tmp_path: Path) -> None:
    empty, forgotten = tmp_path / "empty.py", tmp_path / "forgotten.py"
    empty.write_text("from torch import nn\n")
    forgotten.write_text("def register_components():\n    return []\n")
    for path in (empty, forgotten):
        with pytest.raises(BrokenFile, match="mark its functions with @hookimpl"):
            Registry.load([path])
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_thing\n")
    with pytest.raises(BrokenFile, match="no_such_thing"):
        Registry.load([broken])
