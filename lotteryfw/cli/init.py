"""The command `init`: a folder to begin a study in."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from lotteryfw.cli.app import app
from lotteryfw.cli.options import Json

RECIPE = """\
# A study: should a pruned network keep the weights that are large, or those that moved far?
#
#   lotteryfw check study.toml --trust mine.py     # trains nothing
#   lotteryfw plan study.toml --trust mine.py --network
#   lotteryfw recipe study.toml --trust mine.py    # the same command goes on after whatever ended it
name = "study"
title = "Large weights, or weights that moved far?"

# Every combination of the grid runs once with each seed; "0..2" is [0, 1, 2].
seeds = "0..2"

# mine.py is code, and a recipe runs no code unless --trust names its file.
plugins = ["mine.py"]

# `lotteryfw list data` has all data sets; digits come with lotteryfw.
data = "digits"

[model]
use = "mlp"
hidden = [100]

# Lengths are steps ("300it"), epochs ("5ep") or parts of the training ("10%").
[train]
length = "300it"
batch = 60
optimizer = { use = "adam", lr = 1.2e-3 }

[evaluate]
points = 10

# Iterative magnitude pruning: train, prune, rewind, and again.
[search]
use = "imp"
levels = 5

# Every level prunes this share of each layer's weights.
[scope]
use = "layerwise"
rate = 0.4

# `lotteryfw list criterion` has all criteria; "mine" is the one in mine.py.
[grid]
criterion = ["large_final", "mine", "random"]

# What you expect is judged over the seeds, and may turn out wrong.
[[claim]]
text = "at low density, weights that are large and moved far do better than random ones"
source = "my notebook"
density = [0.0, 0.2]
higher = { criterion = "mine" }
lower = { criterion = "random" }
"""
COMPONENT = '''\
"""A criterion of my own: change its score, and run the study again."""

from lotteryfw import MaskCriterion, hookimpl


class Mine(MaskCriterion):
    """Keeps the weights that are large and moved far in training."""

    use = "mine"
    formula = "|w_f · (w_f - w_i)|"

    def score(self, layer):
        # layer.init, layer.final and layer.mask have the layer's own shape
        return (layer.final * (layer.final - layer.init)).abs()


@hookimpl
def register_components():
    return [Mine]
'''
TEST = '''\
"""Run with `pytest`: the component keeps the rules of its kind, and the recipe has no faults."""

from pathlib import Path

import lotteryfw
from lotteryfw.testkit import check_plugin

HERE = Path(__file__).parent


def test_the_component_passes_the_trial_of_its_kind():
    failed = [str(result) for result in check_plugin(str(HERE / "mine.py")) if result.failed]
    assert failed == []


def test_the_recipe_is_right():
    assert lotteryfw.check(HERE / "study.toml", trust=[HERE / "mine.py"]) == []
'''
FILES = {"study.toml": RECIPE, "mine.py": COMPONENT, "test_mine.py": TEST}


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder to make, or an empty one.")],
    as_json: Json = False,
) -> None:
    """Make a folder with a commented recipe, a component of your own, and their test."""
    from lotteryfw.api.errors import UsageError

    # what is there already is somebody's work
    present = [name for name in FILES if (folder / name).exists()]
    if present:
        raise UsageError(f"{folder}: has {', '.join(present)} already; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror or error}") from error
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "files": list(FILES)}))
        return
    typer.echo(f"{folder}: {', '.join(FILES)}")
    # three commands that work as they stand
    typer.echo("Begin with:")
    typer.echo(f"  cd {shlex.quote(str(folder))}")
    typer.echo("  lotteryfw plan study.toml --trust mine.py --network")
    typer.echo("  lotteryfw recipe study.toml --trust mine.py")
