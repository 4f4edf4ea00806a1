"""Writes the generated pages of docs/reference/ from the code that they describe.

    python scripts/make_reference.py

The tests hold the pages against `pages()`, so a page that is not current fails them. Only what lotteryfw itself offers
is written down, whatever plugins are installed beside it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

import lotteryfw
from lotteryfw.api import hookspecs
from lotteryfw.api.kinds import kinds
from lotteryfw.cli.app import app
from lotteryfw.cli.components import option_rows
from lotteryfw.recipe.claims import Claim
from lotteryfw.recipe.schema import (
    OPTIONAL_SLOTS,
    SLOTS,
    Engine,
    Evaluate,
    RandomnessTable,
    RecipeFile,
    StudyTable,
    Train,
)
from lotteryfw.recipe.targets import TargetTable
from lotteryfw.registry import RegisteredComponent, Registry

for _commands in ("components", "init", "machine", "reports", "runs", "stores", "studies"):
    importlib.import_module(
        f"lotteryfw.cli.{_commands}"
    )  # importing them adds their commands to the app

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
HEADER = "<!-- Generated: do not edit. Regenerate with `python scripts/make_reference.py`. -->\n\n"
OWN = "lotteryfw"
TEXTS = {"hookimpl": "Marks a function of a plugin as the implementation of a hook."}
"""Descriptions of public names whose value has no docstring of lotteryfw's."""
MET = {
    "Metrics": "api.metrics",
    "Curve": "api.metrics",
    "MaskStats": "api.tickets",
    "LoadedTicket": "store.tickets",
    "LevelRow": "store.level_table",
    "Rows": "runner.rows",
    "CurveRow": "runner.rows",
    "FindingRow": "runner.rows",
    "TicketRow": "runner.rows",
}
"""Types of what the public API returns, and the modules that define them. They are not imported by name."""
INTERNAL = {
    "Ticket": {
        "origin": "is part of keys in the store, whose form may change",
        "source": "holds the derivation, which only the search package knows",
        "root": "is how the lab finds the values to rewind to",
        "derived": "is how the lab makes tickets from derivations",
    },
    "Trained": {
        "outcome": "is the stored result; `metrics`, `weights` and `scores` read it",
        "probes": "has the stored results; `gradient` and `network_scores` read them",
        "of_job": "is how the lab makes trainings of outcomes",
        "origin": "is part of keys in the store, whose form may change",
    },
}
"""By public class, members that the page leaves out because authors are not meant to use them, and why.

They are not promised: a later version may change or remove them without notice.
"""


def pages() -> dict[str, str]:
    """Each generated page by its file name."""
    made: dict[str, Callable[[], str]] = {
        "components.md": components,
        "command-line.md": command_line,
        "recipes.md": recipes,
        "hooks.md": hooks,
        "api.md": api,
    }
    return {name: HEADER + page().strip() + "\n" for name, page in made.items()}


# Components


def components() -> str:
    parts = [
        "# Components",
        "What lotteryfw brings along, kind by kind. `lotteryfw list` prints the same with every installed plugin, and "
        "`lotteryfw show NAME` one component with an example for a recipe. A kind's table in a recipe takes a bare "
        'name (`criterion = "movement"`) or a table of `use` and options.',
        "In the formulas w_i is a weight at the start of the round just trained, w_f at its end, and w_k where the "
        "rewind policy points. See [masks and actions](../explanation/masks-and-actions.md).",
    ]
    for kind, base in kinds().items():
        parts += [f"## {kind}", f"{base.summary()}."]
        parts += [
            component(offer) for offer in _registry().offers(kind) if offer.distribution == OWN
        ]
    return "\n\n".join(parts)


def component(offer: RegisteredComponent) -> str:
    """The section of one component."""
    cls = offer.cls
    about = "\n".join(_paragraphs(cls.__doc__)[1:])
    facts = [f"- formula: `{cls.formula}`", f"- source: {cls.source}"]
    facts += [_option(*row) for row in option_rows(cls)] or ["- options: none"]
    default = " The default of its kind." if cls.default else ""
    return "\n\n".join(
        part
        for part in (f"### {offer.name}", f"{cls.summary()}.{default}", about, "\n".join(facts))
        if part
    )


def _option(name: str, type_: str, default: str, text: str) -> str:
    return f"- `{name}` ({type_}, {default})" + (f": {text}" if text else "")


# The command line


def command_line() -> str:
    root = typer.main.get_command(app)
    parts = [
        "# Command line",
        "Every command ends with exit code 0 where all went well, 2 for a mistake in what it was given, 130 when it "
        "was interrupted, and 1 for everything else. Messages about what went wrong are on stderr.",
        "With `--json` a command prints JSON on stdout, one value a line: an object for one thing, such as a plan, a "
        "list for all there is, such as the components, and a line each for what comes one after the other: the "
        "events of a run (with the names and fields of the [hooks](hooks.md), and the run's summary as the last "
        "line), runs, and the components of a plugin that were tried. Keys may be added in later versions.",
        *(
            _command(("lotteryfw", name), command)
            for name, command in sorted(root.commands.items())
        ),
    ]
    return "\n\n".join(parts)


def _command(path: tuple[str, ...], command: Any) -> str:
    below = getattr(command, "commands", None)
    heading = f"{'##' if len(path) == 2 else '###'} {' '.join(path)}"
    if below:
        return "\n\n".join(
            [
                heading,
                command.help,
                *(_command((*path, name), each) for name, each in below.items()),
            ]
        )
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join(
        [*path, *(_argument(each) for each in arguments), *(["[OPTIONS]"] if options else [])]
    )
    rows = [f"- `{_word(each)}`: {each.help}" for each in arguments]
    rows += [f"- `{_spelling(each)}`: {each.help}" for each in options]
    text = " ".join(command.help.split())
    return "\n\n".join(
        part for part in (heading, text, f"```text\n{usage}\n```", "\n".join(rows)) if part
    )


def _word(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _argument(parameter: Any) -> str:
    return _word(parameter) if parameter.required else f"[{_word(parameter)}]"


def _spelling(option: Any) -> str:
    return ", ".join(option.opts) + ("" if option.is_flag else f" {_word(option)}")


# Recipes

_CLAIM_FORMS = """
| keys | what should hold |
| --- | --- |
| `higher`, `lower` | `higher` - `lower`, paired by seed, is above 0 |
| `higher`, `lower`, `tolerance`, `tolerance_reason` | `higher` - `lower`, paired by seed, is above -tolerance |
| `of`, `expect`, `tolerance`, `tolerance_reason` | `of` is within the tolerance of the published value, on either side |
| `of`, `like`, `tolerance`, `tolerance_reason` | the difference, paired by seed, is within the tolerance on either side |
| `of`, `at_least` | `of` is not below a bound that the paper states |
| `of`, `at_most` | `of` is not above a bound that the paper states |
| `of`, `rises_along` | `of` rises from each value of a key to the next; the weakest step decides |
| `of`, `rises_with` | Spearman's rank correlation of the two figures, over the cells and levels of each seed, is above 0 |
| `of`, `falls_with` | the same is below 0 |
"""
_CLAIM_VERDICTS = (
    "Verdicts are made of one value for each seed: a mean, a difference, or a rank correlation. With three seeds or more "
    "they have a 95 % Student-t interval.\n\n"
    "| verdict | where |\n| --- | --- |\n"
    "| *supported* | the interval lies wholly where the claim holds |\n"
    "| *contradicted* | the interval lies wholly where it does not |\n"
    "| *undecided* | the interval holds both, or there are fewer than three seeds; the report says how many seeds would "
    "decide at this spread. So are sides that are equal in all seeds where one should be above the other, a figure "
    "that is not finite, and seeds with a training that diverged: those that are left are no fair "
    "sample |\n"
    "| *not tested* | the run has no such cells or levels, or not all of them yet; its trainings were shorter than "
    "`needs_length` (the numbers are shown all the same); two sides are of metrics in different units, such as an "
    "accuracy and a loss; or the recipe says why in `untested` |\n\n"
    "So *supported* and *contradicted* each have an error rate of 2.5 %. The claims of one `family` share it: Holm's "
    "method judges the smallest p-value of m at a rate of 1/m, the next at 1/(m - 1), and so on, and the report says so. "
    "The steps of a trend share the rate at which any of them contradicts it.\n\n"
    "A claim that names a study, an axis, a value, a variant, a metric, a figure of an analysis or a level that does not "
    "exist is refused before anything is trained. If a profile, `--set` or a recipe that `extends` another leaves out "
    "what it is about, it is *not tested*."
)


def recipes() -> str:
    slots = {".".join(map(str, keys)): kind for keys, kind in SLOTS.items()}
    controls = "\n".join(
        f"- `{offer.name}`: {offer.cls.summary()}."
        for offer in _registry().offers("control")
        if offer.distribution == OWN
    )
    return "\n\n".join(
        [
            "# Recipes",
            "A recipe is a TOML file. This page lists every key; [write a grid](../how-to/write-a-grid.md) shows how "
            "they work together. `lotteryfw schema` prints the same as a JSON Schema for editors, with the options of "
            "every installed component, and `lotteryfw check FILE` reports every fault of a recipe at once.",
            "Lengths are written `500it` (steps: optimizer updates), `2ep` (epochs) or `1.4%` (of the training), or as "
            "a whole number of steps.",
            "## The top of a recipe",
            _keys(RecipeFile, leave_out=set(StudyTable.model_fields)),
            "## What a study is made of",
            "These keys stand at the top of a recipe, for all of its studies, or in a `[[study]]`, for that one. A "
            "component is a bare name or a table of `use` and options; a table without `use` gives options to the "
            "kind's default.",
            "\n".join(_slot(path, kind) for path, kind in slots.items() if "." not in path)
            + "\n"
            + _keys(StudyTable, leave_out={*slots, "train", "evaluate", "engine"}),
            "## [train]",
            _keys(Train, leave_out={"augment", *(path.removeprefix("train.") for path in slots)})
            + "\n"
            + "\n".join(_slot(path, kind) for path, kind in slots.items() if "." in path)
            + "\n- `augment` (list of augmentations, default []): Changes to training images, in order.",
            "## [evaluate]",
            _keys(Evaluate),
            "## [engine]",
            _keys(Engine),
            "## [randomness]",
            " ".join((RandomnessTable.__doc__ or "").split())
            + " [Randomness](../explanation/randomness.md) says what each draws.",
            _keys(RandomnessTable),
            "## Controls",
            "Entries of `controls`, as names or as tables of `use` and options. Each is trained at every level of every "
            "cell, and stands in `levels.csv` under its "
            "name in the column `variant`. Beside a ticket that was not trained, such as a learned mask, it is not trained "
            "either, but measured.",
            controls,
            "## [[target]]",
            " ".join((TargetTable.__doc__ or "").split())
            + " [Train tickets on other data](../how-to/train-on-other-data.md) says what is trained.",
            _keys(TargetTable),
            "## [[claim]]",
            _paragraphs(Claim.__doc__)[0],
            'A side is a table from the grid\'s axes to values, such as `{ criterion = "random" }`. `variant` selects '
            "`ticket` (where it is left out), a control, a target, or another network that the search records. `study`, "
            "`metric`, `density` and `at` stand in a side where it differs from the claim. A side stands for every cell and "
            "level that it does not exclude: for each seed it is the mean over levels, then over combinations; a ticket and "
            "its control are compared at the levels that both have. A claim has exactly one of these forms:",
            _CLAIM_FORMS.strip(),
            "\n".join(_option(*row) for row in option_rows(Claim)),
            _CLAIM_VERDICTS,
        ]
    )


def _keys(model: type[BaseModel], leave_out: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    return "\n".join(_option(*row) for row in option_rows(model) if row[0] not in leave_out)


def _slot(path: str, kind: str) -> str:
    name = path.rpartition(".")[2]
    if name in OPTIONAL_SLOTS:
        needed = "required" if name == "parametrization" else "optional"
        if name == "mask_update":
            about = Train.model_fields[name].description
            return (
                f"- `{name}` (component, required for searches that change masks in training, "
                f"refused beside others): {about}"
            )
        about = (Train if "." in path else StudyTable).model_fields[name].description
        return f"- `{name}` (component, {needed} for searches that learn masks, refused beside others): {about}"
    default = _registry().default(kind)
    told = f"default `{default.name}`" if default and default.distribution == OWN else "required"
    return f"- `{name}` (component, {told}): {kinds()[kind].summary()}."


# Hooks


def hooks() -> str:
    tree = _parsed("lotteryfw.api.hookspecs")
    parts = [
        "# Hooks",
        "A plugin is a module with functions marked `@lotteryfw.hookimpl`, named like a hook below, and an entry point "
        "in the group `lotteryfw` that names the module. A plugin implements the hooks it needs and leaves the others "
        "out. A misspelt hook is refused when the plugin is loaded.",
        _paragraphs(hookspecs.__doc__)[1],
        "A hook that raises does not end a run: it is reported once, with the plugin's name, and the run goes on.",
    ]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and hasattr(
            getattr(hookspecs, node.name), "lotteryfw_spec"
        ):
            parts += [
                f"## {node.name}",
                f"```text\n{_signature(node)}\n```",
                _text(ast.get_docstring(node)),
            ]
            parts += [f"See [`{name}`](api.md#{name.lower()})." for name in _events(node)]
    return "\n\n".join(parts)


def _events(node: ast.FunctionDef) -> list[str]:
    named = [ast.unparse(each.annotation) for each in node.args.args if each.annotation]
    return [name for name in named if name in lotteryfw.__all__]


# The public API


def api() -> str:
    parts = [
        "# Public API",
        "This page lists everything that a plugin may import and a script needs: `from lotteryfw import …`. Names and "
        "members that are not listed may change without notice. `import lotteryfw` does not import torch; each name "
        "is loaded when it is first used.",
        "`s` is the shape of a layer: one prunable tensor of one network.",
    ]
    homes = _public_homes()
    for name in lotteryfw.__all__:
        home = getattr(getattr(lotteryfw, name), "__module__", "") or ""
        home = home if home.startswith(OWN) else homes[name]
        parts += [f"## {name}", *_described(name, home)]
    parts += [
        "## Types of returned values",
        "The functions and attributes above return values of these types. Plugins do not import them by name.",
    ]
    for name, home in MET.items():
        parts += [f"### {name}", *_described(name, f"{OWN}.{home}")]
    return "\n\n".join(parts)


def _public_homes() -> dict[str, str]:
    """The module that each public name is defined in, as the stub lists them."""
    stub = ast.parse(Path(lotteryfw.__file__).with_suffix(".pyi").read_text("utf-8"))
    lists = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{OWN}.{node.module}" for node in lists for alias in node.names}


def _described(name: str, home: str) -> Iterator[str]:
    """What the module `home` says of a name that it defines."""
    tree = _parsed(home)
    node = next(
        (
            each
            for each in tree.body
            if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name == name
        ),
        None,
    )
    if node is None:
        yield TEXTS.get(name) or _attributes(tree)[name]
        return
    if isinstance(node, ast.FunctionDef):
        yield f"```text\n{_signature(node)}\n```"
        yield _text(ast.get_docstring(node))
        return
    internal = INTERNAL.get(name, {})
    yield _without_sentences(_text(ast.get_docstring(node)), set(internal))
    rows = [
        f"- `{field}`" + (f": {text}" if text else "")
        for field, text in _attributes(node).items()
        if field.partition(":")[0] not in internal
    ]
    methods = [
        each
        for each in node.body
        if isinstance(each, ast.FunctionDef)
        and not each.name.startswith("_")
        and each.name not in internal
    ]
    rows += [
        f"- `{_member(each)}`: {_text(ast.get_docstring(each), joined=True)}" for each in methods
    ]
    if rows:
        yield "\n".join(rows)


def _without_sentences(text: str, names: set[str]) -> str:
    """The text without the sentences that begin with one of these names in backticks."""
    for name in sorted(names):
        text = re.sub(rf"(?:^|(?<=[.\n]) ?)`{name}`[^.]*\. ?", "", text)
    return text


def _member(node: ast.FunctionDef) -> str:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    if "property" in decorators:
        return f"{node.name}: {ast.unparse(node.returns)}" if node.returns else node.name
    return _signature(node)


def _attributes(node: ast.Module | ast.ClassDef) -> dict[str, str]:
    """The docstrings of public names that are annotated, or have one: in a class by "name: type"."""
    found: dict[str, str] = {}
    for each, after in zip(node.body, [*node.body[1:], None], strict=True):
        target = (
            each.target
            if isinstance(each, ast.AnnAssign)
            else each.targets[0]
            if isinstance(each, ast.Assign)
            else 0
        )
        text = _literal(after)
        if (
            not isinstance(target, ast.Name)
            or target.id.startswith("_")
            or not (text or isinstance(each, ast.AnnAssign))
        ):
            continue
        type_ = ast.unparse(each.annotation) if isinstance(each, ast.AnnAssign) else ""
        type_ = type_.removeprefix("ClassVar[").removesuffix("]") if "ClassVar" in type_ else type_
        is_field = isinstance(node, ast.ClassDef) and type_
        found[f"{target.id}: {type_}" if is_field else target.id] = text
    return found


def _literal(node: ast.stmt | None) -> str:
    said = (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    return " ".join(node.value.value.split()) if said else ""


# Words


@cache
def _registry() -> Registry:
    return Registry.load()


@cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(Path(str(importlib.import_module(module).__file__)).read_text("utf-8"))


def _signature(node: ast.FunctionDef) -> str:
    arguments = ast.unparse(node.args).removeprefix("self").removeprefix("cls").removeprefix(", ")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({arguments}){returns}"


def _paragraphs(doc: str | None) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(doc or "").split("\n\n")]


def _text(doc: str | None, joined: bool = False) -> str:
    """A docstring as Markdown: paragraphs, and examples as blocks (left out where `joined` to one line)."""
    said = []
    for part in inspect.cleandoc(doc or "").split("\n\n"):
        if not part.startswith(">>>"):
            said.append(" ".join(part.split()))
        elif not joined and "+SKIP" not in part:
            said.append(f"```pycon\n{part}\n```")
    return (" " if joined else "\n\n").join(said)


def main() -> None:
    """Writes the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
