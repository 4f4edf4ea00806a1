"""The tour: a session of a new user in an empty folder, with only the wheel installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from support.paths import ROOT

ARRAYS = '''\
import numpy as np

import lotteryfw
from lotteryfw import MaskCriterion


class Squares(MaskCriterion):
    """The squares of final weights."""

    use = "squares"

    def score(self, layer):
        return layer.final.square()


rng = np.random.default_rng(0)
x = rng.normal(size=(600, 1, 4, 4))
y = (x.sum(axis=(1, 2, 3)) > 0).astype(int)
parts = {"train": slice(0, 400), "validation": slice(400, 500), "test": slice(500, 600)}
done = lotteryfw.run(
    {
        "name": "arrays",
        "criterion": "squares",
        "model": {"use": "mlp", "hidden": [30]},
        "search": {"use": "imp", "levels": 3},
        "train": {"length": "100it", "batch": 20, "optimizer": {"use": "adam", "lr": 1e-2}},
    },
    components=[Squares],
    data={part: (x[rows], y[rows]) for part, rows in parts.items()},
    out="runs/arrays",
)
for row in done.levels:
    print(f"level {row.level}: {row.density:.1%} remaining, {row.status}")
'''


@dataclass(frozen=True)
class Step:
    """A step of the tour: a heading, what to know, a file to write, a command, and what it leaves."""

    title: str
    text: str
    command: str
    file: tuple[str, str] | None = None
    leaves: tuple[str, ...] = ()


SMALL = (
    "--set train.length=100it --set search.levels=4 --set seeds=0..1 "
    '--set \'grid.criterion=["large_final", "random"]\''
)
STEPS = [
    Step(
        "A first figure",
        "Recipes that come with lotteryfw are found by name. This one asks which weights a pruned "
        "network should keep; `--set` makes it smaller here.",
        f"lotteryfw recipe quickstart {SMALL} --out runs/first",
        leaves=("runs/first/report.html", "runs/first/levels.csv"),
    ),
    Step(
        "A study of your own",
        "`init` makes a folder with a commented recipe, a component and their test.",
        "lotteryfw init mystudy",
        leaves=("mystudy/study.toml", "mystudy/mine.py", "mystudy/test_mine.py"),
    ),
    Step(
        "",
        "The component is code, and a recipe runs no code unless `--trust` names its file.",
        "lotteryfw check mystudy/study.toml --trust mystudy/mine.py",
    ),
    Step(
        "",
        "What it would train, and what of the network is pruned:",
        "lotteryfw plan mystudy/study.toml --trust mystudy/mine.py --network",
    ),
    Step(
        "",
        "The same command goes on after whatever ended it.",
        "lotteryfw recipe mystudy/study.toml --trust mystudy/mine.py --set train.length=60it "
        "--out runs/mine",
        leaves=("runs/mine/report.html",),
    ),
    Step(
        "Your own arrays",
        "A component and data of a script or notebook need no file and no package.",
        "python study.py",
        file=("study.py", ARRAYS),
        leaves=("runs/arrays/report.html",),
    ),
    Step(
        "Trained weights out",
        "The weights at the end of a level's training, as a state dict:",
        "lotteryfw export runs/first --cell criterion=large_final/seed=0 --level 4 --as trained "
        "--out weights.safetensors",
        leaves=("weights.safetensors",),
    ),
    Step(
        "Two runs compared",
        "The first study once more, with another learning rate:",
        f"lotteryfw recipe quickstart {SMALL} --set train.optimizer.lr=2.4e-3 --out runs/faster "
        "--quiet",
        leaves=("runs/faster/levels.csv",),
    ),
    Step("", "Differences are paired by seed.", "lotteryfw compare runs/first runs/faster"),
    Step(
        "A figure for a paper",
        "`report --paper` writes each figure as PDF at the width of a column and of a page, and "
        "each table as LaTeX and CSV. `--font-size` is that of the figures' letters, in points.",
        "lotteryfw report runs/first --paper --font-size 9",
        leaves=(
            "runs/first/paper/quickstart-column.pdf",
            "runs/first/paper/quickstart-page.pdf",
            "runs/first/paper/quickstart-table1.tex",
            "runs/first/paper/quickstart-table1.csv",
        ),
    ),
]


def install(folder: Path) -> None:
    """Install lotteryfw's wheel into a folder; simulated where there is nothing to build it with."""
    if find_spec("pip") and find_spec("hatchling"):
        offline = "--no-deps --no-build-isolation --no-index --disable-pip-version-check --quiet"
        words = [sys.executable, "-m", "pip", "install", *offline.split(), "--target", str(folder)]
        subprocess.run([*words, str(ROOT)], check=True, capture_output=True)
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lotteryfw", folder / "lotteryfw", ignore=ignored)
    for source, target in included.items():
        shutil.copytree(ROOT / source, folder / target)
    info = folder / f"lotteryfw-{project['project']['version']}.dist-info"
    info.mkdir()
    version = project["project"]["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lotteryfw\nVersion: {version}\n")
    points = project["project"]["entry-points"]["lotteryfw"]
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    (info / "entry_points.txt").write_text(f"[lotteryfw]\n{lines}")
    # as pip leaves it: what comes from an index has no direct_url.json


def take(step: Step, folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Run a step's command in a folder where only the wheel is installed."""
    if step.file is not None:
        name, text = step.file
        (folder / name).write_text(text)
    words = shlex.split(step.command)
    program = {"lotteryfw": [sys.executable, "-m", "lotteryfw"], "python": [sys.executable]}
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "LOTTERYFW_STORE": str(folder / "store"),
        "LOTTERYFW_DATA": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }
    return subprocess.run(
        [*program[words[0]], *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
