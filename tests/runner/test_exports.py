"""Networks of a run that leave it: state dicts, the form of torch.nn.utils.prune, ONNX; messages."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.commands import QUICK, cli
from support.runs import DATA, go, recipe
from torch import nn
from torch.nn.utils import prune

from lotteryfw import Run, UsageError, export, load_seed_ticket, load_ticket
from lotteryfw.api.errors import StoreError
from lotteryfw.runner import onnx_files
from lotteryfw.runner import run_study as run
from lotteryfw.store import tensors

THREE = ["ticket", "trained", "initial"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of two seeds and a control, made by the command line."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "tiny.toml").write_text(QUICK.format(length="40it", more='controls = ["reinit"]'))
    done = cli(folder, "recipe", "tiny.toml", "--quiet", "--jobs", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    return folder


class Tiny(nn.Module):
    """The recipe's network, written by somebody who has never heard of lotteryfw."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.fc1(inputs.flatten(1)).relu()
        output: torch.Tensor = self.fc3(self.fc2(hidden).relu())
        return output


def exported(here: Path, *words: str) -> dict[str, torch.Tensor]:
    done = cli(here, "export", "run", "--cell", "seed=1", *words, "--out", "out.safetensors")
    assert done.returncode == 0, done.stderr
    assert "out.safetensors: " in done.stdout
    return load_file(here / "out.safetensors")


def accuracy(module: nn.Module) -> float:
    """Return the test accuracy of a network on the recipe's data, by plain PyTorch."""
    from support.small import make

    data = {"use": "synthetic", "examples": 330, "classes": 3, "shape": [1, 4, 4], "noise": 0.5}
    test = make("data", data).load(Path("unused")).test
    with torch.no_grad():
        return float((module(test.inputs).argmax(1) == test.labels).double().mean())


def test_trained_weights_give_the_accuracy_in_the_table(here: Path) -> None:
    for variant in ("ticket", "reinit"):
        state = exported(here, "--level", "2", "--as", "trained", "--variant", variant)
        module = Tiny()
        module.load_state_dict(state)
        [row] = [
            row
            for row in Run(here / "run").levels
            if (row.seed, row.level, row.variant) == (1, 2, variant)
        ]
        assert accuracy(module) == pytest.approx(row.test_accuracy, abs=1e-9)
        mask = load_ticket(
            here / "run/tickets/tiny__seed=1"
            / ("level-02.safetensors" if variant == "ticket" else "level-02-reinit.safetensors")
        ).mask  # fmt: skip
        assert not state["fc1.weight"][~mask["fc1.weight"]].any()
        assert state["fc1.weight"][mask["fc1.weight"]].all()


def test_the_weights_at_start_and_the_ticket(here: Path) -> None:
    initial = exported(here, "--level", "2", "--as", "initial")
    ticket = exported(here, "--level", "2", "--as", "ticket")
    dense = load_ticket(here / "run/tickets/tiny__seed=1/level-00.safetensors")
    pruned = load_ticket(here / "run/tickets/tiny__seed=1/level-02.safetensors")
    for name, value in initial.items():
        assert torch.equal(value, dense.values[name])
        assert torch.equal(ticket[name], pruned.values[name])
    mask = pruned.mask["fc1.weight"]
    # imp rewinds to the initial weights
    assert torch.equal(ticket["fc1.weight"], initial["fc1.weight"] * mask)


def test_the_form_of_torch_prune_loads_into_a_pruned_module(here: Path) -> None:
    state = exported(here, "--level", "1", "--as", "prune")
    module = Tiny()
    for layer in (module.fc1, module.fc2, module.fc3):
        prune.identity(layer, "weight")
    module.load_state_dict(state)
    ticket = load_ticket(here / "run/tickets/tiny__seed=1/level-01.safetensors")
    inputs = torch.rand(5, 1, 4, 4)
    assert torch.equal(module(inputs), ticket.apply(Tiny())(inputs))
    assert torch.equal(module.fc2.weight_mask.bool(), ticket.mask["fc2.weight"])


def test_a_ticket_file_has_all_forms_too(here: Path) -> None:
    path = "run/tickets/tiny__seed=1/level-02.safetensors"
    for form in THREE:
        done = cli(here, "export", path, "--as", form, "--out", "file.safetensors")
        assert done.returncode == 0, done.stderr
        by_level = exported(here, "--level", "2", "--as", form)
        for name, value in load_file(here / "file.safetensors").items():
            assert torch.equal(value, by_level[name])


def test_a_selection_that_is_not_one_row_is_refused_with_what_there_is(here: Path) -> None:
    def message(*words: str) -> str:
        done = cli(here, "export", "run", *words, "--out", "no")
        assert done.returncode == 2
        assert not (here / "no").exists()
        return done.stderr

    assert "which level? Choose one with --level: 0, 1, 2" in message()
    assert "there is no level 9; there are 0, 1, 2" in message("--level", "9")
    several = message("--level", "1")
    assert "2 cells have level 1; choose one with --cell" in several
    assert "\n  tiny/seed=0\n  tiny/seed=1" in several
    assert "no cell's name contains 'seed=7'" in message("--level", "1", "--cell", "seed=7")
    assert "no variant 'reini'; did you mean 'reinit'?" in message("--variant", "reini")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("run/levels.csv", ["a run's table of figures, not a ticket", "run/tickets", "--level"]),
        ("run/report.html", ["a run's report, not a ticket"]),
        ("tiny.toml", ["a TOML file, such as a recipe, not a ticket", "`lotteryfw runs`"]),
        ("state.safetensors", ["a plain state dict", "not a ticket"]),
        ("net.pt", ["torch.save", "never opened"]),
        ("notes", ["some other file, not a ticket"]),
        ("run/tickets", ["neither a ticket's file nor the folder of a run"]),
        (
            "run/tickets/tiny__seed=0",
            ["tickets in it", "level-00.safetensors", "level-02-reinit.safetensors"],
        ),
        (
            "run/tickets/tiny__seed=0/level-1.safetensors",
            ["no such ticket", "level-01.safetensors"],
        ),
    ],
)
def test_something_else_than_a_ticket_is_called_by_its_name(
    here: Path, path: str, parts: list[str]
) -> None:
    from safetensors.torch import save_file

    save_file({"fc1.weight": torch.ones(2)}, here / "state.safetensors")
    torch.save({}, here / "net.pt")
    (here / "notes").write_text("of a meeting")
    done = cli(here, "export", path, "--out", "no")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
    assert not (here / "no").exists()


def test_trained_weights_that_the_store_lacks_say_how_to_get_them(here: Path) -> None:
    words = ("export", "run", "--level", "1", "--cell", "seed=0", "--as", "trained")
    message = cli(here, *words, "--out", "no", "--store", "elsewhere").stderr
    assert "are not in the store elsewhere; name the run's store with --store" in message
    assert not (here / "elsewhere").exists()


def test_python_has_trained_weights_tickets_and_curves_as_typed_rows(here: Path) -> None:
    opened = Run(here / "run")
    assert len(opened.tickets) == len(opened.levels) == len(opened.curves) == 10
    ticket = opened.tickets[-1]
    assert (ticket.row.cell, ticket.row.level, ticket.row.variant) == ("tiny/seed=1", 2, "reinit")
    assert ticket.load().meta["cell"] == "tiny/seed=1"
    trained = opened.trained(ticket)
    assert torch.equal(trained["fc1.weight"], opened.trained(ticket.row)["fc1.weight"])
    curve = opened.curves[0]
    assert (curve.cell, curve.variant, curve.level) == ("tiny/seed=0", "ticket", 0)
    assert curve.step[-1] == 40
    assert curve.validation_accuracy[-1] == opened.levels[0].validation_accuracy


def test_rows_become_frames(here: Path) -> None:
    pandas = pytest.importorskip("pandas")
    opened = Run(here / "run")
    with (here / "run" / "levels.csv").open() as file:
        table = list(csv.DictReader(file))
    frame = opened.levels.to_pandas()
    assert list(frame["test_accuracy"]) == [float(line["test_accuracy"]) for line in table]
    curves = opened.curves.to_pandas()
    assert len(curves) == sum(len(curve.step) for curve in opened.curves)
    assert set(curves.columns) >= {"cell", "variant", "level", "step", "validation_loss"}
    assert pandas.isna(curves["train_loss"].iloc[0])
    tickets = opened.tickets.to_pandas()
    assert all(Path(path).is_file() for path in tickets["path"])
    assert list(tickets["density"]) == list(frame["density"])


def test_findings_are_typed_and_axes_are_columns(tmp_path: Path) -> None:
    table = recipe(grid={"criterion": ["large_final", "random"]}, analyses=["mask_diagnostics"])
    done, _ = go(tmp_path, table)
    finding = done.findings[0]
    assert (finding.study, finding.analysis) == ("small", "mask_diagnostics")
    assert finding.axes["criterion"] == "large_final"
    records = done.findings.records()
    assert records[0]["criterion"] == "large_final"
    assert records[0]["value"] == finding.value
    assert [line["value"] for line in done.folder.read_findings()] == [
        row.value for row in done.findings
    ]


def test_a_frame_without_its_package_names_the_extra(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = Run(here / "run").levels
    for package in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UsageError, match=rf'pip install "lotteryfw\[{package}\]"'):
            getattr(levels, f"to_{package}")()


def test_polars_gets_every_column(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Fake:
        @staticmethod
        def DataFrame(records: Any, infer_schema_length: int | None) -> str:
            calls.append((records, infer_schema_length))
            return "frame"

    monkeypatch.setitem(sys.modules, "polars", Fake)
    levels = Run(here / "run").levels
    assert levels.to_polars() == "frame"
    [(records, length)] = calls
    assert (records, length) == (levels.records(), None)
    assert len({tuple(record) for record in records}) == 1


def test_a_notebook_shows_tables_with_every_text_escaped(here: Path) -> None:
    opened = Run(here / "run")
    html = opened._repr_html_()
    assert "report.html" in html
    assert "2 done" in html
    text = opened.levels._repr_html_()
    assert text.count("<tr>") == 11
    opened.folder.write_manifest(opened.manifest | {"title": "<b>bold"})
    assert "<b>" not in Run(here / "run")._repr_html_()


def test_a_learned_mask_has_the_weights_that_its_network_computes_with(tmp_path: Path) -> None:
    table = recipe(search={"use": "edge_popup", "density": 0.4}, parametrization="top_k")
    done, _ = go(tmp_path, table)
    [row] = done.levels
    [ticket] = done.tickets
    trained = done.trained(row)
    assert torch.equal(trained["fc1.weight"], ticket.load().values["fc1.weight"])
    with pytest.raises(UsageError, match="recorded no dense run"):
        export(done.path, tmp_path / "no", "initial", level=row.level)


def test_a_network_that_was_not_trained_has_no_trained_weights(tmp_path: Path) -> None:
    done, _ = go(tmp_path, recipe(controls=["untrained"]))
    untrained = next(row for row in done.levels if row.variant == "untrained")
    with pytest.raises(UsageError, match=r"was not trained; .*--as ticket"):
        done.trained(untrained)


def test_weights_that_were_trained_with_a_mask_and_rewound_are_not_taken_for_the_end(
    tmp_path: Path,
) -> None:
    table = recipe(
        search={"use": "joint_training", "density": 0.5, "retrain": True}, parametrization="top_k"
    )
    done, _ = go(tmp_path, table)
    learned = next(row for row in done.levels if row.learned)
    with pytest.raises(UsageError, match=r"the ticket was rewound, .*--variant retrained"):
        done.trained(learned)
    retrained = next(row for row in done.levels if row.variant == "retrained")
    assert done.trained(retrained)["fc1.weight"].count_nonzero() == 64


def test_onnx_needs_its_extra(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'ONNX files need onnx: pip install "lotteryfw\[onnx\]"'):
        export(here / "run", tmp_path / "net.onnx", "trained", level=1, cell="seed=0")
    with pytest.raises(UsageError, match="form 'seed' is for safetensors"):
        export(here / "run", tmp_path / "net.onnx", "seed", level=1, cell="seed=0")
    assert not (tmp_path / "net.onnx").exists()


def test_an_onnx_network_computes_the_same_for_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    done = run(recipe(), out=tmp_path / "run", store=tmp_path / "s", jobs=1, device="cpu")
    export(done.path, tmp_path / "net.onnx", "trained", level=2)
    module = Tiny()
    module.load_state_dict(done.trained(done.levels[-1]))
    network = reference.ReferenceEvaluator(str(tmp_path / "net.onnx"))
    for count in (1, 7):
        inputs = torch.rand(count, 1, 4, 4)
        (outputs,) = network.run(None, {"inputs": inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(outputs), module(inputs).detach())


# Targets

OTHER = {**DATA, "classes": 5, "noise": 0.7}


@pytest.fixture(scope="module")
def transfer(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose targets are: data of other classes, with and without level 0; another training."""
    targets = [
        {"name": "syn", "data": OTHER},
        {"name": "late", "data": OTHER, "levels": [1]},
        {"name": "short", "train": {"length": "20it"}},
    ]
    table = recipe(search={"use": "imp", "levels": 1}, target=targets)
    done: Run = go(tmp_path_factory.mktemp("transfer"), table)[0]
    return done


@pytest.mark.parametrize("form", ["trained", "ticket"])
def test_an_onnx_file_of_a_target_is_the_targets_network(
    transfer: Run, tmp_path: Path, form: Any
) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    export(transfer.path, tmp_path / "net.onnx", form, level=1, variant="syn")
    outputs = onnx.load(tmp_path / "net.onnx").graph.output[0].type.tensor_type.shape
    assert outputs.dim[1].dim_value == 5


def test_the_initial_weights_of_a_target_are_those_of_its_own_network(
    transfer: Run, tmp_path: Path
) -> None:
    def initial(variant: str) -> dict[str, torch.Tensor]:
        file = tmp_path / f"{variant}.safetensors"
        export(transfer.path, file, "initial", level=1, variant=variant)
        return load_file(file)

    dense, own = initial("ticket"), initial("syn")
    assert own["fc3.weight"].shape == (5, 6)
    assert torch.equal(own["fc1.weight"], dense["fc1.weight"])
    [start] = [
        ticket.load() for ticket in transfer.tickets
        if (ticket.row.variant, ticket.row.level) == ("syn", 0)
    ]  # fmt: skip
    assert torch.equal(own["fc3.weight"], start.values["fc3.weight"])
    # a target with a network of the same shape has the dense run's
    assert torch.equal(initial("short")["fc3.weight"], dense["fc3.weight"])
    message = r"'late' has another output layer .* its level 0, .* was not recorded"
    with pytest.raises(UsageError, match=message):
        initial("late")


def test_a_target_with_another_output_layer_is_no_seed(transfer: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"target 'syn' has an output layer of its own.*not drawn"):
        export(transfer.path, tmp_path / "no", "seed", level=1, variant="syn")
    assert not (tmp_path / "no").exists()
    export(transfer.path, tmp_path / "seed.safetensors", "seed", level=1, variant="short")
    _, ticket = load_seed_ticket(tmp_path / "seed.safetensors")
    [own] = [
        ticket.load() for ticket in transfer.tickets
        if (ticket.row.variant, ticket.row.level) == ("short", 1)
    ]  # fmt: skip
    assert torch.equal(ticket.values["fc1.weight"], own.values["fc1.weight"])


def test_a_ticket_whose_level_is_no_number_is_damaged(here: Path, tmp_path: Path) -> None:
    ticket = load_ticket(here / "run/tickets/tiny__seed=1/level-02.safetensors")
    path = tmp_path / "tickets" / "tiny__seed=1" / "level-02.safetensors"
    path.parent.mkdir(parents=True)
    meta = {**ticket.meta, "recorded": "x"}
    tensors.save(path, ticket.values, ticket.mask, meta, checksum=True)
    with pytest.raises(StoreError, match=r"damaged.* 'x' is no level"):
        export(path, tmp_path / "out")


def test_a_state_dict_is_not_written_by_the_name_of_another_format(
    here: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"written as safetensors.* name the file net\.safetensors"
    ):
        export(here / "run", tmp_path / "net.pt", level=1, cell="seed=1")
    assert not list(tmp_path.iterdir())


def test_a_state_dict_is_no_ticket_and_the_message_says_what_reads_it(
    here: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    export(here / "run", path, level=1, cell="seed=1")
    with pytest.raises(StoreError, match=r"has tensors alone.*safetensors\.torch\.load_file reads"):
        load_ticket(path)


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the folder of a run; `lotteryfw runs` lists them"):
        Run(tmp_path)
