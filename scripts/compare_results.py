"""Record the exact results of small recipes, and compare two records.

    python scripts/compare_results.py record before
    (change the code)
    python scripts/compare_results.py record after
    python scripts/compare_results.py compare before after

A record holds, for every row of levels.csv, its figures to the last bit, what the analyses found,
the curves, and the SHA-256 of each tensor of each ticket. It holds no keys, paths or file formats,
since a redesign may change those. The recipes are in compare_results.toml beside this file; they
use every built-in component that needs no download, which `record` checks. Two records can be
compared only if they come from the same machine and versions of packages.

The project's own names are looked up in lists of alternatives (`COLUMNS` and so on): a rename adds
a name to a list.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).with_suffix(".toml")

Table = Mapping[str, Any]
Identified = tuple[str, dict[str, Any]]

COLUMNS = {
    "study": ["study"],
    "cell": ["cell"],
    "variant": ["variant", "variant"],
    "seed": ["seed"],
    "level": ["level"],
    "status": ["status"],
    "density": ["density"],
    "requested_density": ["requested_density", "target_density"],
    "weights_kept": ["weights_kept"],
    "weights_total": ["weights_total"],
    "steps": ["steps"],
    "early_stop_step": ["early_stop_step"],
    "validation_loss": ["validation_loss"],
    "validation_accuracy": ["validation_accuracy"],
    "test_loss": ["test_loss"],
    "test_accuracy": ["test_accuracy"],
    "early_validation_loss": ["early_validation_loss"],
    "early_validation_accuracy": ["early_validation_accuracy"],
    "early_test_loss": ["early_test_loss"],
    "early_test_accuracy": ["early_test_accuracy"],
    "layer_densities": ["layer_densities"],
}
"""By the name in a record, the names that the column of levels.csv has, or had."""

LINE_KEYS = {"variant": ["variant", "variant"], "layer": ["layer", "layer"]}
"""The same for the keys of curves.jsonl, analyses.jsonl and a ticket's meta data."""

FLOATS = [name for name in COLUMNS if name.endswith(("density", "_loss", "_accuracy"))]

OF_PLUGINS = {"during_training"}
"""Built-in components that nothing can be computed with unless a plugin is installed."""
TRUSTED = ["torch.nn"]
"""The module of the function that the recipe `factory` names."""
DOWNLOADED = {"cifar10", "cifar100", "fashion_mnist", "mnist", "svhn", "imagenet", "image_folder"}
"""Data sources whose files do not come with the project."""

KERNELS = {"auto", "reference", "fused", "sparse", "compact", "lockstep"}


def main() -> int:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the recipes and write DIR/results.json")
    recording.add_argument("dir", type=Path)
    recording.add_argument("--jobs", type=int, default=1, help="worker processes; 1: none")
    recording.add_argument("--only", nargs="*", help="names of recipes; all if left out")
    comparing = commands.add_parser("compare", help="print all differences, exit 1 if any")
    comparing.add_argument("dir_a", type=Path)
    comparing.add_argument("dir_b", type=Path)
    arguments = parser.parse_args()

    if arguments.command == "record":
        return record(arguments.dir, arguments.jobs, arguments.only)
    return compare(arguments.dir_a, arguments.dir_b)


# Recording


def record(folder: Path, jobs: int, only: Sequence[str] | None) -> int:
    """Run the recipes in a fresh store and write DIR/results.json."""
    recipes = read_recipes()
    missing = [name for name in only or [] if name not in recipes]
    if missing:
        print(f"no such recipe: {', '.join(missing)}; there are {', '.join(recipes)}")
        return 2
    if not only:
        check_coverage(recipes)

    from lotteryfw.runner import run_study as run

    results: dict[str, Any] = {"versions": versions(), "recipes": {}}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        for name in only or recipes:
            recipe = recipes[name]
            out = scratch / "runs" / name
            folders = {"out": out, "store": scratch / "store", "data": scratch / "data"}
            run(recipe, **folders, jobs=jobs, device="cpu", trust=TRUSTED)
            results["recipes"][name] = read_run(out, axes=list(recipe.get("grid", {})))
            count = len(results["recipes"][name]["rows"])
            print(f"{time.monotonic() - started:6.1f} s  {name}: {count} rows", flush=True)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(f"{folder / 'results.json'}: {len(results['recipes'])} recipes")
    return 0


def read_recipes() -> dict[str, dict[str, Any]]:
    """Return each recipe as the mapping that `run` takes, by name."""
    document = tomllib.loads(RECIPES.read_text(encoding="utf-8"))
    recipes = {}
    for name, own in document["recipe"].items():
        recipes[name] = {"name": name, **document["base"], **own}
    return recipes


def check_coverage(recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise SystemExit if a built-in component or a kernel is in no recipe."""
    used = set(names_in(list(recipes.values())))
    command = [Path(sys.executable).with_name("lotteryfw"), "list", "--json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)

    missing = []
    for component in json.loads(listed.stdout):
        distribution, _, name = component["full_name"].partition("/")
        if distribution == "lotteryfw" and name not in used | DOWNLOADED | OF_PLUGINS:
            missing.append(f"{component['kind']} {name}")
    missing += [f"kernel {name}" for name in sorted(KERNELS - used)]
    if missing:
        raise SystemExit(f"add recipes to {RECIPES.name} with: {', '.join(missing)}")


def names_in(value: Any) -> Iterator[str]:
    """Yield every string in a recipe, however deep: component names are among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from names_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from names_in(item)


def versions() -> dict[str, str]:
    """Return what the last bit of a result may depend on, beside the project's code."""
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy", "numba")}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def read_run(folder: Path, axes: Sequence[str]) -> dict[str, Any]:
    """Return a run's rows, tickets, curves and findings, by identities that outlive a rename."""
    errors = sorted((folder / "errors").glob("*"))
    if errors:
        raise SystemExit(f"{folder.name} failed:\n{errors[0].read_text()}")

    rows, names_of_cells = {}, {}
    with (folder / "levels.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            row = {name: first(line, alternatives) for name, alternatives in COLUMNS.items()}
            labels = ",".join(f"{axis}={line.get(axis, '')}" for axis in axes)
            cell = f"{row['study']} {labels} seed={row['seed']}"
            names_of_cells[row.pop("cell")] = cell
            for name in FLOATS:
                row[name] = repr(float(row[name])) if row[name] else ""
            rows[f"{cell} {row['variant']} level={row['level']}"] = row

    return {
        "rows": rows,
        "tickets": read_tickets(folder, names_of_cells),
        "curves": dict(read_curves(folder, names_of_cells)),
        "findings": dict(read_findings(folder, names_of_cells)),
    }


def read_tickets(folder: Path, names_of_cells: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return, by ticket, the digests of its tensors, called "mask NAME" and "value NAME"."""
    from lotteryfw import load_ticket

    tickets = {}
    for path in sorted((folder / "tickets").rglob("*.safetensors")):
        ticket = load_ticket(path)
        cell = names_of_cells[ticket.meta["cell"]]
        variant = first(ticket.meta, LINE_KEYS["variant"])
        digests = {f"mask {name}": digest(tensor) for name, tensor in ticket.mask.items()}
        digests |= {f"value {name}": digest(tensor) for name, tensor in ticket.values.items()}
        tickets[f"{cell} {variant} level={int(ticket.meta['level'])}"] = digests
    return tickets


def digest(tensor: Any) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bits."""
    array = tensor.detach().cpu().contiguous().numpy()
    content = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    content.update(array.tobytes())
    return content.hexdigest()


def read_curves(folder: Path, names_of_cells: Mapping[str, str]) -> Iterator[Identified]:
    """Yield what was measured during each training: identity, and the curves by name."""
    for line in read_lines(folder / "curves.jsonl"):
        variant = first(line, LINE_KEYS["variant"])
        curves = {name: values for name, values in line.items() if isinstance(values, list)}
        yield f"{names_of_cells[line['cell']]} {variant} level={line['level']}", curves


def read_findings(folder: Path, names_of_cells: Mapping[str, str]) -> Iterator[Identified]:
    """Yield what the analyses found: identity, and the value."""
    for line in read_lines(folder / "analyses.jsonl"):
        variant, layer = first(line, LINE_KEYS["variant"]), first(line, LINE_KEYS["layer"])
        other = names_of_cells[line["against"]] if line.get("against") else ""
        subject = f"{names_of_cells[line['cell']]} {variant} level={line['level']}"
        figure = f"{line['analysis']}.{line['figure']}"
        yield f"{subject} {figure} {layer} against {other}", {"value": line["value"]}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file with one JSON object a line; none if the file is absent."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def first(table: Mapping[str, Any], alternatives: Sequence[str]) -> Any:
    """Return the value of the first of these names that the table has."""
    for name in alternatives:
        if name in table:
            return table[name]
    names, present = ", ".join(alternatives), ", ".join(table)
    raise SystemExit(f"none of {names} is in {present}: add the new name to this script")


# Comparing


def compare(dir_a: Path, dir_b: Path) -> int:
    """Print how much was compared, and every difference; return 1 if there is any."""
    a = json.loads((dir_a / "results.json").read_text(encoding="utf-8"))
    b = json.loads((dir_b / "results.json").read_text(encoding="utf-8"))
    if a["versions"] != b["versions"]:
        print(f"note: the versions differ: {a['versions']} and {b['versions']}")

    differences = list(different_names("recipe", a["recipes"], b["recipes"]))
    counts = {"rows": 0, "tickets": 0, "curves": 0, "findings": 0}
    tensors = 0
    for recipe in common(a["recipes"], b["recipes"]):
        for part in counts:
            ours, theirs = a["recipes"][recipe][part], b["recipes"][recipe][part]
            if part == "curves":
                ours, theirs = measured(ours), measured(theirs)
            differences += different_names(f"{recipe}, {part}", ours, theirs)
            for name in common(ours, theirs):
                counts[part] += 1
                tensors += len(ours[name]) if part == "tickets" else 0
                where = f"{recipe}, {part}: {name}"
                differences += different_values(where, ours[name], theirs[name])

    for difference in differences:
        print(difference)
    compared = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    print(f"compared {compared} with {tensors:,} tensors: {len(differences):,} differences")
    return 1 if differences else 0


def measured(curves: Mapping[str, Table]) -> dict[str, Table]:
    """Return the curves without empty ones: a kernel that does not measure one may leave it out."""
    kept = {}
    for name, lists in curves.items():
        kept[name] = {figure: values for figure, values in lists.items() if values}
    return kept


def common(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the names that both have."""
    return [name for name in a if name in b]


def different_names(where: str, a: Table, b: Table) -> Iterator[str]:
    """Yield a line for each name that only one of the two has."""
    yield from (f"{where}: only in the first: {name}" for name in a if name not in b)
    yield from (f"{where}: only in the second: {name}" for name in b if name not in a)


def different_values(where: str, a: Table, b: Table) -> Iterator[str]:
    """Yield a line for each name whose value differs. JSON writes floats to the bit."""
    yield from different_names(where, a, b)
    for name in common(a, b):
        ours, theirs = json.dumps(a[name]), json.dumps(b[name])
        if ours != theirs:
            yield f"{where}: {name}: {ours[:100]} and {theirs[:100]}"


if __name__ == "__main__":
    sys.exit(main())
