"""The code of an unreleased plugin is in the keys as a whole: its own files, and the local modules that they import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lotteryfw.cli import components  # noqa: F401  # its commands
from lotteryfw.cli.app import app
from lotteryfw.registry import RegisteredComponent, Registry

PLUGIN = """
{imports}
from lotteryfw import MaskCriterion, hookimpl

class Mine(MaskCriterion):
    \"\"\"Scores as a helper says.\"\"\"
    use = "mine"

    def score(self, layer):
        {inside}
        return layer.final

@hookimpl
def register_components():
    return [Mine]
"""


def plugin(imports: str = "", inside: str = "pass") -> str:
    return PLUGIN.format(imports=imports, inside=inside)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from; what a test imported of it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    (tmp_path / "code").mkdir()
    yield tmp_path / "code"
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def trusted(folder: Path) -> RegisteredComponent:
    """Return the component of a plugin file as a new session finds it: with no helper imported."""
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    return Registry.load([folder / "mine.py"]).find("criterion", "mine")


IMPORTS = {
    "a module": ("import my_helper", "pass", "my_helper.py"),
    "a name of a module": ("from my_helper import *", "pass", "my_helper.py"),
    "inside a function": ("", "import my_helper", "my_helper.py"),
    "by a call": ("", 'importlib.import_module("my_helper.deep")', "my_helper/deep.py"),
    "a package": ("", "import my_helper.deep", "my_helper/other.py"),
    "a data file of a package": ("", "import my_helper", "my_helper/table.csv"),
    "a folder without __init__": ("", "import my_folder.deep", "my_folder/deep.py"),
    "by way of another": ("", "import my_other", "my_helper.py"),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_a_trusted_files_local_modules_count(folder: Path, case: str) -> None:
    imports, inside, changed = IMPORTS[case]
    files = {
        "mine.py": plugin(imports, inside),
        "my_other.py": "def f():\n    import my_helper",
        changed: "a = 1\n",
    }
    if changed.startswith("my_helper/"):
        files["my_helper/__init__.py"] = ""
    write(folder, files)
    before = trusted(folder)
    assert {"mine.py", changed} <= set(before.files)
    assert before.provider == f"mine.py==local+{before.digest}"
    assert len(before.digest) == 8
    assert trusted(folder).digest == before.digest
    write(folder, {changed: "a = 2\n"})
    assert trusted(folder).digest != before.digest


def test_what_is_not_imported_does_not_count(folder: Path) -> None:
    write(
        folder,
        {
            "mine.py": plugin("import json, numpy, packaging"),
            "notes.py": "",
            "json.py": "",
            "data.csv": "1",
        },
    )
    offer = trusted(folder)
    assert offer.files == ("mine.py",)
    write(folder, {"notes.py": "changed", "data.csv": "2"})
    assert trusted(folder).digest == offer.digest


def test_the_code_does_not_depend_on_where_it_lies(folder: Path, tmp_path: Path) -> None:
    write(folder, {"mine.py": plugin("", "import my_helper"), "my_helper.py": ""})
    before = trusted(folder).digest
    folder.rename(tmp_path / "moved")
    assert trusted(tmp_path / "moved").digest == before


def test_a_local_module_elsewhere_on_the_path_counts(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "far", {"mine.py": plugin("import my_helper")})
    write(folder, {"my_helper.py": "a = 1\n"})
    before = trusted(tmp_path / "far")
    assert before.files == ("mine.py", "my_helper.py")
    write(folder, {"my_helper.py": "a = 2\n"})
    assert trusted(tmp_path / "far").digest != before.digest


def test_a_module_that_cannot_be_read_as_python_counts_and_breaks_nothing(folder: Path) -> None:
    write(folder, {"mine.py": plugin("", "import my_helper"), "my_helper.py": "def broken(:"})
    assert trusted(folder).files == ("mine.py", "my_helper.py")


def install(
    folder: Path, version: str = "1.0", origin: str | None = None, record: str | None = None
) -> None:
    info = folder / f"own_dist-{version}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: own-dist\nVersion: {version}\n",
        "entry_points.txt": "[lotteryfw]\nown = own_package.entry\n",
    }
    if origin is not None:
        files["direct_url.json"] = origin
    if record is not None:
        files["RECORD"] = record
    write(info, files)
    code = {
        "__init__.py": "",
        "entry.py": plugin("from own_package.deep import score"),
        "late.py": "",
        "w.json": "1",
    }
    write(folder / "own_package", {**code, "deep/__init__.py": "", "deep/score.py": "a = 1\n"})
    write(folder / "own_package" / "__pycache__", {"entry.cpython-311.pyc": "x"})


def installed() -> RegisteredComponent:
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]
    registry = Registry.load()
    assert not registry.failures
    return registry.find("criterion", "own-dist/mine")


UNRELEASED: dict[str, dict[str, str]] = {
    "editable": {"origin": '{"url": "file:///x", "dir_info": {"editable": true}}'},
    "from a folder": {"origin": '{"url": "file:///x", "dir_info": {}}'},
    "from a repository": {
        "origin": '{"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "1"}}'
    },
    "from an archive": {"origin": '{"url": "file:///x.whl", "archive_info": {}}'},
    "with local changes": {"version": "1.0+dirty"},
    "in development": {"version": "1.1.dev3"},
}


@pytest.mark.parametrize("how", UNRELEASED)
@pytest.mark.parametrize("changed", ["entry.py", "deep/score.py", "late.py", "w.json"])
def test_all_files_of_an_unreleased_distribution_count(
    folder: Path, how: str, changed: str
) -> None:
    install(folder, **UNRELEASED[how])
    before = installed()
    names = ("__init__.py", "deep/__init__.py", "deep/score.py", "entry.py", "late.py", "w.json")
    assert before.files == tuple(f"own_package/{name}" for name in names)
    path = folder / "own_package" / changed
    path.write_text(path.read_text() + "\n")
    assert installed().digest != before.digest


def test_files_that_pip_lists_beside_the_package_count(folder: Path) -> None:
    record = "own_package/entry.py,,\nown_more/table.py,,\nown_dist-1.0.dist-info/METADATA,,\n../bin/own,,\n"
    install(folder, origin='{"url": "file:///x", "dir_info": {}}', record=record)
    write(folder, {"own_more/table.py": "a = 1\n"})
    before = installed()
    assert "own_more/table.py" in before.files
    assert not any("dist-info" in name or "bin" in name for name in before.files)
    write(folder, {"own_more/table.py": "a = 2\n"})
    assert installed().digest != before.digest


def test_a_released_distribution_is_known_by_its_version(folder: Path) -> None:
    install(folder)
    before = installed()
    assert (before.provider, before.digest, before.files) == ("own-dist==1.0", "", ())
    write(folder, {"own_package/late.py": "changed = True\n"})
    assert installed().provider == before.provider


def test_lotteryfws_own_components_are_known_by_their_file() -> None:
    offer = Registry.load().find("data", "mnist")
    assert offer.files in (
        (),
        ("torchvision_sets.py",),
    )  # installed from a package index, or from a folder


def test_show_says_which_code_results_are_keyed_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"mine.py": plugin("", "import my_helper"), "my_helper.py": ""})
    monkeypatch.chdir(folder)
    shown = CliRunner().invoke(app, ["show", "mine", "--trust", "mine.py"]).output
    digest = trusted(folder).digest
    assert f"code      results are keyed by {digest}, the hash of mine.py, my_helper.py\n" in shown
    install(folder)
    assert (
        "results are keyed by the release own-dist 1.0"
        in CliRunner().invoke(app, ["show", "own-dist/mine"]).output
    )
    write(
        folder,
        {f"many/m{number:02}.py": "" for number in range(20)}
        | {"mine.py": plugin("", "import many.m00")},
    )
    assert (
        "many/m11.py and 9 more files"
        in CliRunner().invoke(app, ["show", "mine", "--trust", "mine.py"]).output
    )


def test_a_changed_helper_is_trained_anew(folder: Path, tmp_path: Path) -> None:
    """A model family whose helper decides what it builds: its old results are not taken for the new ones."""
    from lotteryfw.runner import StudyContext
    from lotteryfw.runner import run_study as run

    write(folder, {
        "mine.py": "from lotteryfw import ModelFamily, hookimpl\nclass Mine(ModelFamily):\n"
        "    '''A scaled layer.'''\n    use = 'mine'\n    def build(self, shape, classes):\n"
        "        from my_scale import scaled\n        return scaled(shape, classes)\n"
        "@hookimpl\ndef register_components():\n    return [Mine]\n",
        "my_scale.py": "from torch import nn\nclass Scale(nn.Module):\n"
        "    def forward(self, x):\n        return x * 1.0\n"
        "def scaled(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), Scale(), nn.Linear(shape[0] * shape[1] * shape[2], classes))\n",
    })  # fmt: skip
    recipe = {
        "name": "helper", "data": {"use": "synthetic", "shape": [1, 4, 4], "classes": 3}, "model": "mine",
        "search": {"use": "one_shot", "levels": 1},
        "train": {"length": "20it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1}},
    }  # fmt: skip
    trust, store = [folder / "mine.py"], tmp_path / "store"

    def losses(store: Path, out: str) -> list[float]:
        sys.modules.pop("my_scale", None)
        levels = run(
            recipe, trust=trust, store=store, data=tmp_path, out=tmp_path / out, jobs=1
        ).levels
        return [row.test_loss for row in levels]

    first = losses(store, "first")
    assert StudyContext(recipe, trust=trust, store=store, data=tmp_path).plan().stored == 2
    scale = folder / "my_scale.py"
    # of another length: Python's cached bytecode is by seconds and length
    scale.write_text(scale.read_text().replace("1.0", "0.5000"))
    # as in a new session
    sys.modules.pop("my_scale", None)
    assert StudyContext(recipe, trust=trust, store=store, data=tmp_path).plan().stored == 0
    assert losses(store, "second") == losses(tmp_path / "fresh", "third") != first
