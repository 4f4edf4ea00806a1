"""The messages of a user's mistakes, each with its whole text.

Each command runs in a folder that has `tiny.toml`, which is right, and the files of `FILES`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import QUICK
from support.messages import CommandLine

from lotteryfw import UsageError, run

TINY = QUICK.format(length="40it", more="")
FILES = {
    "twice.toml": 'name = "twice"\n[train]\nbatch = 3\nbatch = 4\n',
    "tables.toml": 'name = "tables"\n[train]\nbatch = 3\n[scope]\nrate = 0.1\n[train]\nlength = 2\n',
    "child.toml": 'extends = "parnet.toml"\nname = "child"\n',
    "parent.toml": TINY,
    "mine.py": (
        "from lotteryfw import MaskCriterion, ModelFamily, hookimpl\n"
        "class Mine(MaskCriterion):\n"
        "    'Mine.'\n"
        "    use = 'movements'\n"
        "    def score(self, layer):\n"
        "        return layer.final.abs()\n"
        "class Thin(ModelFamily):\n"
        "    'Reads vectors of 9 numbers.'\n"
        "    use = 'thin'\n"
        "    def build(self, shape, classes):\n"
        "        from torch import nn\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(9, classes))\n"
        "class Broken(ModelFamily):\n"
        "    'Breaks.'\n"
        "    use = 'broken'\n"
        "    def build(self, shape, classes):\n"
        "        raise ZeroDivisionError('no luck')\n"
        "@hookimpl\n"
        "def register_components():\n"
        "    return [Mine, Thin, Broken]\n"
    ),
    "notes.txt": "no ticket",
}
MESSAGES = {
    "recipe tyni.toml": (
        "error: tyni.toml: there is no such recipe (did you mean 'tiny.toml' or "
        "'twice.toml' or 'child.toml'?)\n"
    ),
    "recipe unlike": (
        "error: unlike: there is no such recipe (`lotteryfw list recipes` shows those that are "
        "shipped)\n"
    ),
    "recipe twice.toml": (
        "error: twice.toml: is not TOML: Cannot overwrite a value (at line 4, column 10) "
        "(the key 'batch' is there twice: write it once)\n"
    ),
    "recipe tables.toml": (
        "error: tables.toml: is not TOML: Cannot declare ('train',) twice (at line 6, "
        "column 7) (the table 'train' is there twice: write it once)\n"
    ),
    "recipe child.toml": (
        "error: child.toml: extends: there is no recipe parnet.toml (did you mean "
        "'parent.toml' or 'tiny.toml'?)\n"
    ),
    "recipe tiny.toml --set seeds=0,1,2": (
        "error: --set: seeds: must be a list, got '0,1,2' (a list is written [0, 1, 2], "
        "in quotes for the shell)\n"
    ),
    "recipe tiny.toml --set seeds=3": (
        "error: --set: seeds: must be a list, got 3 (a list is written [3])\n"
    ),
    "recipe tiny.toml --study tinny": (
        "error: --study: tinny: there is no such study (did you mean 'tiny'?)\n"
    ),
    "recipe tiny.toml --set search.levels=true": (
        "error: --set: search.levels: must be an integer, got true\n"
    ),
    'recipe tiny.toml --set search.levels="2"': (
        "error: --set: search.levels: must be an integer, got '2'\n"
    ),
    'recipe tiny.toml --set train.optimizer.lr="1e-3"': (
        "error: --set: train.optimizer.lr: must be a number, got '1e-3'\n"
    ),
    'recipe tiny.toml --set model.hidden=["30"]': (
        "error: --set: model.hidden[0]: must be an integer, got '30'\n"
    ),
    'recipe tiny.toml --set train.batch="60"': (
        "error: --set: train.batch: must be an integer, got '60'\n"
    ),
    "recipe tiny.toml --set sedes=[1]": (
        "error: --set: sedes: unknown key (did you mean 'seeds' or 'studies'?)\n"
    ),
    "recipe tiny.toml --set nonsense": (
        "error: --set: nonsense: is not KEY=VALUE (such as train.length=500it)\n"
    ),
    "recipe tiny.toml --set extends=parent.toml": (
        "error: --set: extends: can only be set in a file\n"
    ),
    "recipe tiny.toml --profile quick": (
        "error: tiny.toml: profiles.quick: there is no such profile (this recipe has no profiles)\n"
    ),
    "recipe tiny.toml --set criterion=movements": (
        "error: --set: criterion: there is no criterion 'movements'; did you mean "
        "'movement'?; mine.py offers one: read it, then run again with --trust mine.py\n"
    ),
    "recipe tiny.toml --set criterion=randm": (
        "error: --set: criterion: there is no criterion 'randm'; did you mean 'random'?\n"
    ),
    "recipe tiny.toml --set scope=reinit": (
        "error: --set: scope: 'reinit' is not a scope, it is a mask-1 action; known: erk,"
        " global, layerwise\n"
    ),
    "recipe tiny.toml --set data=mnist": (
        "error: --set: data: mnist is not there: data/MNIST/raw lacks "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        "t10k-labels-idx1-ubyte. `lotteryfw data fetch mnist` downloads it; without a "
        "network, put these files there (unpacked, named like this)\n"
    ),
    "check tiny.toml --set data=mnist": (
        "error: --set: data: mnist is not there: data/MNIST/raw lacks "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        "t10k-labels-idx1-ubyte. `lotteryfw data fetch mnist` downloads it; without a "
        "network, put these files there (unpacked, named like this)\n"
    ),
    "check tiny.toml --set model=conv2 --set data.shape=[16]": (
        "error: --set: model: conv2 reads images [channels, height, width] of at least "
        "2×2, not [16]\n"
    ),
    "check tiny.toml --set model=thin --trust mine.py": (
        "error: --set: model: model 'mine.py/thin' of mine.py==local+d0fb1276 cannot read"
        " inputs [1, 4, 4]: RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x16"
        " and 9x3)\n"
    ),
    "check tiny.toml --set model=broken --trust mine.py": (
        "error: --set: model: model 'mine.py/broken' of mine.py==local+d0fb1276 broke in "
        "build() for inputs [1, 4, 4] and 3 outputs: ZeroDivisionError: no luck\n"
    ),
    "check tiny.toml --set train.batch=400": (
        "error: --set: train.batch: a batch of 400 is more than the 330 training examples"
        " of synthetic\n"
    ),
    "check tiny.toml --set train.length=0ep": (
        "error: --set: train.length: '0ep' is less than one step\n"
    ),
    "check tiny.toml --set train.length=5apples": (
        "error: --set: train.length: '5apples' is not a length; lengths are written "
        '"500it" (steps), "2ep" (epochs) or "1.4%" (of the training)\n'
    ),
    "check tiny.toml --set rewind.use=to_step --set rewind.step=90it": (
        "error: --set: rewind.step: points at step 90, outside the training of 40 steps\n"
    ),
    "check tiny.toml --set search=random_pruning --set criterion=movement": (
        "error: --set: criterion: has no effect: the search 'random_pruning' asks for the"
        " same jobs with any criterion (leave criterion out)\n"
    ),
    'check tiny.toml --set search=random_pruning --set grid.criterion=["movement","random"]': (
        "error: --set: grid.criterion: has no effect: the search 'random_pruning' asks "
        "for the same jobs for each of its values (leave it out: its rows would be the "
        "same under several names)\n"
    ),
    'check tiny.toml --set analyses=["mask_overlap","mask_overlap"]': (
        "error: --set: analyses[1]: 'mask_overlap' is listed twice, and its figures would"
        " have one name (list it once; a second study of the recipe can have it with "
        "other options)\n"
    ),
    "check tiny.toml --set scope.rate=0.99 --set search.levels=9": (
        "error: --set: scope: scope 'layerwise' {'rate': 0.99, 'output_rate': None, 'rates': {}} leaves"
        " no weights at level 2 of cell tiny/seed=0: lower the rate, search fewer levels,"
        " or ask for a higher density\n"
    ),
    "check tiny.toml --set engne.kernel=fused": (
        "error: --set: engne: unknown key (did you mean 'engine'?)\n"
    ),
    "check tiny.toml --set engine.kernel=fuse": (
        "error: --set: engine.kernel: there is no kernel 'fuse'; did you mean 'fused'?\n"
    ),
    "check tiny.toml --set start=nowhere.safetensors": (
        "error: --set: start: cannot read nowhere.safetensors: No such file or directory "
        "(a ticket, or a state dict as safetensors, belongs there)\n"
    ),
    "check tiny.toml --set mask0=zero --set parametrization=top_k": (
        "error: --set: parametrization: has no effect: the search 'imp' does not use it "
        "(leave parametrization out)\n"
    ),
    "check tiny.toml --set train.precision=fp16x": (
        "error: --set: train.precision: must be 'float32', 'bf16' or 'fp16', got 'fp16x'\n"
    ),
    "recipe tiny.toml --set train.precision=fp16 --device cpu": (
        "error: cell 'tiny/seed=0': train.precision = \"fp16\" needs a CUDA device, and "
        'this run is on the CPU; set "bf16" or "float32", or run with --device cuda\n'
    ),
    "recipe tiny.toml --store notes.txt/store": (
        "error: notes.txt: is a file, not a folder (the store: name another folder with "
        "--store or LOTTERYFW_STORE)\n"
    ),
    "recipe tiny.toml --out notes.txt": ("error: notes.txt: cannot be made: File exists\n"),
    "recipe tiny.toml --device tpu": ("error: no device is called 'tpu'; did you mean 'cpu'?\n"),
    "recipe tiny.toml --trust nowhere.py": ("error: there is no plugin file nowhere.py\n"),
    "check quickstrat": (
        "error: no recipe and no plugin is called 'quickstrat'; did you mean 'quickstart'?\n"
    ),
    "check loteryfw": (
        "error: no recipe and no plugin is called 'loteryfw'; did you mean 'lotteryfw'?\n"
    ),
    "check mine.py --profile quick --set seeds=[1]": (
        "error: --profile, --set: for recipes alone, and mine.py is a plugin\n"
    ),
    "list criterium": ("error: there is no kind 'criterium' (did you mean 'criterion'?)\n"),
    "show large_finale": (
        "error: there is no component 'large_finale'; did you mean 'large_final' or "
        "'large_init' or 'large_final_same_sign'?\n"
    ),
    "data fetch minst": ("error: there is no data source 'minst'; did you mean 'mnist'?\n"),
    "report nowhere": ("error: nowhere: not the folder of a run; `lotteryfw runs` lists them\n"),
    "check tiny.toml --set start=notes.txt": (
        "error: --set: start: notes.txt: damaged, or no safetensors file "
        "(SafetensorError: Error while deserializing header: header too large); write a "
        "state dict with safetensors.torch.save_file\n"
    ),
    "recipe tiny.toml --set study=[]": ("error: --set: study: can only be set in a file\n"),
    "recipe tiny.toml --set seeds=[0,0]": ("error: --set: seeds: 0 is listed twice\n"),
    "check tiny.toml --set train.length=50%": (
        "error: --set: train.length: '50%': a percentage of the training cannot be its "
        "length; write steps or epochs\n"
    ),
    "check tiny.toml --set model=lenet_300_10": (
        "error: --set: model: there is no model 'lenet_300_10'; did you mean 'lenet_300_100'?\n"
    ),
}
"""What a command writes to stderr, by its words. None of these words has a space."""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    (tmp_path / "tiny.toml").write_text(TINY)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return CommandLine(tmp_path, monkeypatch)


def test_the_table_has_forty_messages() -> None:
    assert len(MESSAGES) >= 40


@pytest.mark.parametrize("words", MESSAGES)
def test_a_mistake_has_this_message(command: CommandLine, words: str) -> None:
    code, out, error = command(*words.split(" "))
    assert error == MESSAGES[words]
    assert (code, out) == (2, "")
    # nothing is left behind but the store, which is made once a recipe is right
    left_behind = {path.name for path in command.folder.iterdir()} - {"tiny.toml", *FILES}
    assert left_behind <= {"store"}


def test_a_recipe_may_come_on_standard_input(command: CommandLine) -> None:
    code, out, error = command("check", "-", stdin=TINY)
    assert (code, out, error) == (0, "-: good; 2 cells\n", "")
    code, out, error = command("plan", "-", stdin=TINY.replace("batch = 16", "batch = 0"))
    assert (code, out) == (2, "")
    assert error == "error: standard input: train.batch: must be >= 1, got 0\n"
    code, out, error = command("plan", "-", stdin="batch = \n")
    assert error == "error: standard input: is not TOML: Invalid value (at line 1, column 9)\n"


def test_trust_from_python_must_be_paths(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^there is no plugin file text, and no module of that name$"
    ):
        run({"name": "x"}, trust=["text"], store=tmp_path)
    with pytest.raises(
        UsageError, match=r"^trust: must be paths of plugin files or names of modules, got 3$"
    ):
        run({"name": "x"}, trust=[3], store=tmp_path)  # type: ignore[list-item]
