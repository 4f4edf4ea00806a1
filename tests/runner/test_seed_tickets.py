"""Tickets as a seed and a mask: rebuilt to the bit elsewhere, or refused with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import ROOT
from support.small import DATA

from lotteryfw import export, load_seed_ticket, load_ticket
from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.cli import studies as studies  # adds the command `lotteryfw export`
from lotteryfw.cli.app import app
from lotteryfw.runner import Run
from lotteryfw.runner import run_study as run
from lotteryfw.store import tensors

STRONG = ROOT / "plugins" / "lotteryfw-strong" / "src" / "lotteryfw_strong" / "__init__.py"
NORMED = '''
from torch import nn
import torch
from lotteryfw import ModelFamily, hookimpl

class Normed(ModelFamily):
    """With batch norm, and with a random buffer that no state holds."""
    use = "normed"
    def build(self, shape, classes):
        first, last = nn.Linear(16, 12, bias=False), nn.Linear(12, classes)
        net = nn.Sequential(nn.Flatten(), first, nn.BatchNorm1d(12), nn.ReLU(), last)
        net.register_buffer("noise", torch.randn(3), persistent=False)
        return net

@hookimpl
def register_components():
    return [Normed]
'''
REBUILD = """
import json, sys, torch
from pathlib import Path
from lotteryfw import load_seed_ticket
from lotteryfw.registry import Registry

network, ticket = load_seed_ticket(sys.argv[1])
split = Registry.load().create("data", "digits").load(Path()).test
with torch.no_grad():
    right = network.eval()(split.inputs.float() / 255).argmax(1) == split.labels
bits = {name: value.numpy().tobytes().hex() for name, value in network.state_dict().items()}
print(json.dumps({"accuracy": int(right.sum()) / len(right), "bits": bits}))
"""
"""What a process that knows nothing but the file does with it."""


def ran(place: Path, trust: tuple[Path, ...] = (), **changes: Any) -> Run:
    recipe: dict[str, Any] = {
        "name": "small", "seeds": [3], "data": DATA, "model": {"use": "mlp", "hidden": [8, 6]},
        "train": {"length": "30it", "batch": 16, "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}},
        "evaluate": {"points": 3},
    }  # fmt: skip
    return run(
        recipe | changes,
        out=place / "run",
        store=place / "store",
        trust=trust,
        jobs=1,
        device="cpu",
    )


def ticket_of(done: Run, name: str = "level-01") -> Path:
    (path,) = done.path.glob(f"tickets/*/{name}.safetensors")
    return path


def bits(values: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in values.items()}


@pytest.fixture(scope="module")
def popped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of edge-popup on the digits, over signed constants that a mask-1 action makes."""
    return ran(
        tmp_path_factory.mktemp("popped"), data="digits", model={"use": "mlp", "hidden": [100, 50]},
        search={"use": "edge_popup", "density": 0.4}, parametrization="top_k",
        mask1={"use": "constant", "keep_sign": False},
        train={"length": "100it", "batch": 60, "optimizer": {"use": "sgd", "lr": 0.1, "momentum": 0.9}},
    )  # fmt: skip


@pytest.fixture
def small_file(popped: Run, tmp_path: Path) -> Path:
    export(ticket_of(popped), tmp_path / "seed.safetensors", "seed")
    return tmp_path / "seed.safetensors"


def test_a_fresh_process_rebuilds_the_network_to_the_bit_with_the_accuracy_on_record(
    popped: Run, small_file: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", REBUILD, str(small_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "nothing to warn of"
    said, ticket = json.loads(done.stdout), load_ticket(ticket_of(popped))
    assert said["bits"] == {name: value.hex() for name, value in bits(ticket.values).items()}
    (row,) = popped.levels
    assert said["accuracy"] == row.test_accuracy > 0.5


def test_the_file_takes_a_bit_for_each_weight_and_little_more(
    popped: Run, small_file: Path
) -> None:
    weights = sum(mask.numel() for mask in load_ticket(ticket_of(popped)).mask.values())
    assert small_file.stat().st_size < weights / 8 + 8 * 1024


def test_what_is_told_of_the_ticket_stays(popped: Run, small_file: Path) -> None:
    network, rebuilt = load_seed_ticket(small_file)
    ticket = load_ticket(ticket_of(popped))
    assert (rebuilt.meta, bits(rebuilt.mask), bits(rebuilt.values)) == (
        ticket.meta,
        bits(ticket.mask),
        bits(ticket.values),
    )
    assert bits(network.state_dict()) == bits(ticket.values)


@pytest.mark.parametrize(("rescale", "logit"), [("none", 0.0), ("static", 0.0), ("dynamic", 0.3)])
def test_supermasks_are_rebuilt_with_the_factor_of_each_layer(
    tmp_path: Path, rescale: str, logit: float
) -> None:
    how = {"use": "bernoulli", "rescale": rescale, "logit": logit}
    done = ran(tmp_path, search="supermask", parametrization=how, initialiser="kaiming_normal")
    export(ticket_of(done), tmp_path / "seed", "seed")
    assert bits(load_seed_ticket(tmp_path / "seed")[1].values) == bits(
        load_ticket(ticket_of(done)).values
    )


def test_a_ticket_that_rewinds_to_its_initialisation_can_be_told_by_a_seed(tmp_path: Path) -> None:
    done = ran(tmp_path, search={"use": "imp", "levels": 2})
    for level in ("level-00", "level-02"):
        export(ticket_of(done, level), tmp_path / level, "seed")
        assert bits(load_seed_ticket(tmp_path / level)[1].values) == bits(
            load_ticket(ticket_of(done, level)).values
        )


def test_statistics_of_batch_norm_are_kept_and_other_buffers_are_as_in_training(
    tmp_path: Path,
) -> None:
    plugin = tmp_path / "normed.py"
    plugin.write_text(NORMED)
    done = ran(
        tmp_path, trust=(plugin,), model="normed", search="edge_popup", parametrization="top_k"
    )
    path = ticket_of(done)
    values, masks = tensors.load(path)
    values["2.running_mean"] = torch.linspace(-1, 1, 12)
    values["2.num_batches_tracked"] = torch.tensor(30)
    tensors.save(path, values, masks, tensors.load_meta(path), checksum=True)
    export(path, tmp_path / "seed", "seed", trust=[plugin])
    network, ticket = load_seed_ticket(tmp_path / "seed", trust=[plugin])
    assert bits(ticket.values) == bits(values)
    assert list(tensors.load(tmp_path / "seed")[0]) == [
        "2.running_mean",
        "2.running_var",
        "2.num_batches_tracked",
    ]
    assert torch.equal(network.noise, load_seed_ticket(tmp_path / "seed", trust=[plugin])[0].noise)
    with pytest.raises(
        UsageError,
        match=r"needs the model 'normed.py/normed' of normed.py==local.*there is no model",
    ):
        load_seed_ticket(tmp_path / "seed")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"search": {"use": "imp", "levels": 1}, "rewind": "learning_rate"},
            r"of 'fc1.weight', 8 of 'fc1.bias'",
        ),
        ({"search": {"use": "imp", "levels": 1}, "mask0": "init"}, r"26 of 'fc1.weight'"),
        (
            {"search": {"use": "edge_popup"}, "parametrization": {"use": "iterand", "period": 5}},
            "of 'fc1.weight'",
        ),
        ({"search": "supermask", "parametrization": "sign_flip"}, "of 'fc1.weight'"),
    ],
    ids=["trained", "frozen at other values", "redrawn", "flipped"],
)
def test_weights_that_were_changed_are_refused_with_their_number(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    done = ran(tmp_path, trust=(STRONG,), **changes)
    with pytest.raises(
        UsageError,
        match=rf"level-01.*cannot be told by a seed.*{what}.*They were trained, or changed",
    ):
        export(ticket_of(done), tmp_path / "seed", "seed", trust=[STRONG])
    assert not (tmp_path / "seed").exists()


def altered(path: Path, **changes: Any) -> Path:
    """The file with these things said otherwise."""
    values, masks = tensors.load(path)
    meta = tensors.load_meta(path)
    tensors.save(
        path,
        values,
        masks,
        meta | {"drawn": json.dumps(json.loads(meta["drawn"]) | changes)},
        checksum=True,
    )
    return path


def test_other_versions_that_draw_the_same_are_told_as_a_warning(small_file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_seed_ticket(small_file)
    with pytest.warns(
        UserWarning, match=r"same weights, but here is another torch \(.+, not 1.0\)"
    ):
        load_seed_ticket(altered(small_file, torch="1.0"))


def test_other_weights_are_an_error_that_names_what_is_of_another_version(small_file: Path) -> None:
    with pytest.raises(
        StoreError, match=r"not the ones that were exported; the machines draw differently"
    ):
        load_seed_ticket(altered(small_file, seed=4))
    parts = json.loads(tensors.load_meta(small_file)["drawn"])["parts"]
    parts["model"]["provider"] = "lotteryfw==0.0.1"
    with pytest.raises(
        StoreError, match=r"another model 'lotteryfw/mlp' \(lotteryfw==.+, not lotteryfw==0.0.1\)"
    ):
        load_seed_ticket(altered(small_file, seed=4, parts=parts))


def test_each_form_is_refused_by_the_others_reader(popped: Run, small_file: Path) -> None:
    with pytest.raises(StoreError, match="load_seed_ticket draws them again"):
        load_ticket(small_file)
    with pytest.raises(StoreError, match="load_ticket reads one that has them"):
        load_seed_ticket(ticket_of(popped))


def test_a_ticket_that_left_its_run_cannot_be_told_by_a_seed(popped: Run, tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes(ticket_of(popped).read_bytes())
    with pytest.raises(UsageError, match=r"is in no run's folder.*resolved\.toml"):
        export(lone, tmp_path / "seed", "seed")


def test_the_command_writes_plain_safetensors_unless_told_otherwise(
    popped: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    ticket = load_ticket(ticket_of(popped))
    app(["export", str(ticket_of(popped)), "--out", str(tmp_path / "plain")], standalone_mode=False)
    assert bits(load_file(tmp_path / "plain")) == bits(ticket.values)
    app(
        ["export", str(ticket_of(popped)), "--as", "seed", "--out", str(tmp_path / "seed")],
        standalone_mode=False,
    )
    assert bits(load_seed_ticket(tmp_path / "seed")[1].values) == bits(ticket.values)
    assert capsys.readouterr().out.count(" bytes") == 2
