"""Files that claim to be tickets: each is refused as its reader documents, or is what was written, to the bit."""

from __future__ import annotations

import json
import random
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import DATA, cell, describe, lab
from torch import nn

from lotteryfw import load_seed_ticket, load_ticket
from lotteryfw.api.errors import RecipeError, StoreError, UsageError
from lotteryfw.api.tickets import MaskStats, RewindPoint, Ticket, TicketState
from lotteryfw.runner import StudyContext
from lotteryfw.runner import run_study as run
from lotteryfw.runner.seed_tickets import PARTS, save_seed_ticket
from lotteryfw.search.stored_tickets import Loaded
from lotteryfw.store import LoadedTicket, file_name, save_ticket, tensors

FLIPS = 600


def content(loaded: Any) -> Any:
    """Everything that a reader gives back, as bytes."""
    ticket = loaded[1] if isinstance(loaded, tuple) else loaded
    rows = [[(name, str(value.dtype), list(value.shape), value.contiguous().reshape(-1).view(torch.uint8).tolist())
             for name, value in part.items()] for part in (ticket.values, ticket.mask)]  # fmt: skip
    return rows, dict(ticket.meta)


@pytest.fixture(scope="module")
def ticket_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    mask = {"fc1.weight": torch.rand(6, 16) < 0.5}
    values = {"fc1.weight": torch.randn(6, 16) * mask["fc1.weight"], "fc1.bias": torch.randn(6)}
    path = tmp_path_factory.mktemp("ticket") / "t.safetensors"
    stats = MaskStats(48, {"fc1.weight": int(mask["fc1.weight"].sum())}, {"fc1.weight": 96})
    made = Loaded("origin", lambda: TicketState(mask, values, stats))
    save_ticket(path, Ticket.derived(made, 3, RewindPoint(0, 0)), {"cell": "c1"})
    return path


@pytest.fixture(scope="module")
def seed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    of = cell()
    dense = lab(of).dense()
    path = tmp_path_factory.mktemp("seed") / "s.safetensors"
    specs = {slot: describe(getattr(of, slot), of.clock) for slot in PARTS}
    save_seed_ticket(
        path, LoadedTicket(dense.mask, dense.values, {"cell": "c1"}), of, specs, of.data.facts(path)
    )
    return path


@pytest.mark.parametrize("form", ["ticket", "seed"])
def test_every_flipped_byte_is_noticed_or_changes_nothing(
    form: str, ticket_file: Path, seed_file: Path, tmp_path: Path
) -> None:
    source, load = (ticket_file, load_ticket) if form == "ticket" else (seed_file, load_seed_ticket)
    original, expected = source.read_bytes(), content(load(source))
    draw = random.Random(0)
    path, refused = tmp_path / "flipped.safetensors", 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file that lost its checksum is no older file
        for _ in range(FLIPS):
            damaged = bytearray(original)
            damaged[draw.randrange(len(damaged))] ^= draw.randrange(1, 256)
            path.unlink(missing_ok=True)  # tensors of the last one may be mapped from it
            path.write_bytes(damaged)
            try:
                loaded = load(path)
            except StoreError:
                refused += 1
                continue
            assert content(loaded) == expected
    assert refused > FLIPS * 0.9


def test_an_older_ticket_without_a_checksum_brings_a_warning(
    ticket_file: Path, tmp_path: Path
) -> None:
    values, masks = tensors.load(ticket_file)
    tensors.save(tmp_path / "old", values, masks, tensors.load_meta(ticket_file))
    with pytest.warns(UserWarning, match="has no checksum") as caught:
        assert content(load_ticket(tmp_path / "old")) == content(load_ticket(ticket_file))
    assert caught[0].filename == __file__


def altered(path: Path, out: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The seed ticket with a right checksum and something else to say of its weights."""
    values, masks, meta = tensors.load_checked(path)
    drawn = json.loads(meta["drawn"])
    drawn = change(drawn) or drawn
    tensors.save(out, values, masks, meta | {"drawn": json.dumps(drawn)}, checksum=True)
    return out


def model(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda drawn: drawn["parts"]["model"]["options"].update(options)


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no table": lambda drawn: [1],
    "missing keys": lambda drawn: {"seed": 1},
    "text for a seed": lambda drawn: drawn.update(seed="1"),
    "negative seed": lambda drawn: drawn.update(seed=-1),
    "giant seed": lambda drawn: drawn.update(seed=10**40),
    "negative shape": lambda drawn: drawn.update(shape=[1, -4, -4]),
    "giant shape": lambda drawn: drawn.update(shape=[2**40, 2**40]),
    "large shape": lambda drawn: drawn.update(shape=[1_000_000_000]),
    "no shape": lambda drawn: drawn.update(shape=None),
    "no classes": lambda drawn: drawn.update(classes=0),
    "many classes": lambda drawn: drawn.update(classes=2**39),
    "NaN factor": lambda drawn: drawn.update(factors={"fc1.weight": float("nan")}),
    "text factor": lambda drawn: drawn.update(factors={"fc1.weight": "2"}),
    "other digest": lambda drawn: drawn.update(sha256="0" * 64),
    "no digest": lambda drawn: drawn.update(sha256=5),
    "no parts": lambda drawn: drawn.update(parts={}),
    "part of another kind": lambda drawn: drawn["parts"]["model"].update(
        kind="data", use="lotteryfw/digits"
    ),
    "option of a wrong type": model(hidden="x"),
    "unknown option": model(depth=3),
    "large network": model(hidden=[100_000, 100_000]),
    "giant network": model(hidden=[2**39, 2**39]),
    "deep network": model(hidden=[8, 6, 5]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_seed_ticket_that_says_what_cannot_be_is_refused(
    name: str, seed_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"hostile\.safetensors: "):
        load_seed_ticket(altered(seed_file, tmp_path / "hostile.safetensors", HOSTILE[name]))


def test_a_component_that_nobody_offers_is_named(seed_file: Path, tmp_path: Path) -> None:
    path = altered(
        seed_file, tmp_path / "t", lambda drawn: drawn["parts"]["model"].update(use="nobody/mpl")
    )
    with pytest.raises(UsageError, match=r"needs the model 'nobody/mpl'"):
        load_seed_ticket(path)


def test_shapes_are_compared_before_memory_is_taken(seed_file: Path, tmp_path: Path) -> None:
    load_seed_ticket(seed_file)  # whatever loading takes at the first time
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = altered(seed_file, tmp_path / "t", model(hidden=[20_000, 20_000]))  # 1.6 GB
    with pytest.raises(
        StoreError, match=r"'fc1.weight' is \[8, 16\] in the file and \[20000, 16\] in the network"
    ):
        load_seed_ticket(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_the_prune_form_names_a_mask_without_a_value() -> None:
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    mask = {name: torch.ones(3, 3, dtype=torch.bool) for name in ("0.weight", "1.weight")}
    ticket = LoadedTicket(mask, {"0.weight": torch.ones(3, 3)}, {})
    with pytest.raises(UsageError, match=r"'1\.weight' has a mask in the ticket, and no value"):
        ticket.apply(module, masks_as="prune")


# Memory


def test_a_network_beyond_memory_is_refused_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = {
        "name": "small", "data": DATA, "model": {"use": "mlp", "hidden": [2_000_000, 2_000_000]},
        "train": {"length": "30it", "batch": 16, "optimizer": "adam"},
    }  # fmt: skip
    context = StudyContext(recipe, store=tmp_path)
    with pytest.raises(
        RecipeError, match=r"model 'lotteryfw/mlp' .* needs 16,000,\S+ bytes .*; \S+ are present"
    ):
        context.validate_models("cpu")
    recipe["model"] = {"use": "mlp", "hidden": [2**39, 2**39]}
    with pytest.raises(RecipeError, match="a layer of more weights than can be counted"):
        StudyContext(recipe, store=tmp_path).validate_models("cpu")
    recipe["model"] = {"use": "mlp", "hidden": [8]}
    monkeypatch.setenv("LOTTERYFW_MAX_MODEL_BYTES", "100")
    with pytest.raises(
        RecipeError, match=r"needs 652 bytes .*; 100 are present \(set LOTTERYFW_MAX_MODEL_BYTES"
    ):
        StudyContext(recipe, store=tmp_path).validate_models("cpu")
    monkeypatch.setenv("LOTTERYFW_MAX_MODEL_BYTES", "652")
    StudyContext(recipe, store=tmp_path).validate_models("cpu")


# Names of files


def test_names_of_files_are_told_apart_on_every_file_system() -> None:
    long = "s/criterion=" + "x" * 300
    odd = [
        ".",
        "..",
        "",
        "/",
        "a\x00b",
        "a\udcff",
        "é",
        "A",
        "a",
        "a ",
        "a.",
        " a",
        "a~b",
        long + "1",
        long + "2",
    ]
    texts = [
        *odd,
        *(
            f"a{first}{second}b"
            for first in ("", "/", "_", "__", "-")
            for second in ("", "/", "_", "__")
        ),
    ]
    texts = list(dict.fromkeys(texts))
    names = [file_name(text) for text in texts]
    assert len({name.lower() for name in names}) == len(texts)
    assert all(0 < len(name.encode()) <= 200 and not {"/", "\x00"} & set(name) for name in names)
    assert not {".", ".."} & set(names)
    assert (
        file_name("quickstart/criterion=large_final/seed=0")
        == "quickstart__criterion=large_final__seed=0"
    )


def test_what_ends_in_a_hash_cannot_be_the_name_of_another_cell() -> None:
    assert file_name(file_name("a__b")) != file_name("a__b")


def test_a_long_value_of_a_grid_is_trained_and_its_ticket_kept(tmp_path: Path) -> None:
    rates = {f"fc{'*' * number}": 0.2 for number in range(1, 30)}
    recipe = {
        "name": "small", "data": DATA, "model": {"use": "mlp", "hidden": [8]},
        "search": {"use": "imp", "levels": 1}, "grid": {"scope": [{"rates": rates}]},
        "train": {"length": "3it", "batch": 16, "optimizer": "adam"}, "evaluate": {"points": 1},
    }  # fmt: skip
    done = run(recipe, out=tmp_path / "run", store=tmp_path / "store", jobs=1, device="cpu")
    (name,) = done.statuses
    assert len(name) > 255
    assert done.statuses[name] == "done"
    ticket = load_ticket(done.path / "tickets" / file_name(name) / "level-01.safetensors")
    assert ticket.meta["cell"] == name
