"""Measures the language of the code: names, comprehensions, comments, line lengths, docstrings.

    python scripts/language.py            # a row for each package
    python scripts/language.py --check    # exit code 1 where a bound is exceeded

`AIMS` holds for every package; `NOT_YET` is a ratchet for what does not meet them so far.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lotteryfw"

VAGUE_NAMES = frozenset(
    {"said", "told", "found", "each", "given", "asked", "left", "known", "own", "place"}
)
"""Names that do not say what a variable holds."""
CLAUSES = ("What ", "How ", "Whether ", "Of ", "Where ", "The same")
"""Beginnings of docstrings that are relative clauses instead of sentences."""
LONGEST_LINE = 100
SHOWN_FILES = 5

AIMS: dict[str, float] = {
    "names": 2, "parameters": 2, "comprehensions": 20, "comments": 3, "long lines": 3,
    "clauses": 0, "overriding": 0, "longest file": 400,
}  # fmt: skip
"""The largest value of each measure in every package, but for `comments` the smallest."""
NOT_YET: dict[tuple[str, str], float] = {
    ("(top)", "comments"): 0, ("(top)", "long lines"): 23,
    ("engine", "clauses"): 1, ("all", "clauses"): 1,
}  # fmt: skip
"""Where an aim is not reached: the bound until it is. The numbers may come closer, never leave."""


@dataclass
class Measures:
    """What is counted in the files of a package. Rates are per 1,000 lines, or per 100."""

    files: dict[str, int] = field(default_factory=dict)
    """Lines of each file."""
    long_lines: int = 0
    comments: int = 0
    vague_names: int = 0
    vague_parameters: int = 0
    comprehensions: int = 0
    clauses: int = 0
    overriding: list[str] = field(default_factory=list)
    """Classes that override a method of a concrete class, with the method."""

    def figures(self) -> dict[str, float]:
        """Return each measure as one number."""
        lines = max(1, sum(self.files.values()))
        return {
            "names": 1000 * self.vague_names / lines,
            "parameters": 1000 * self.vague_parameters / lines,
            "comprehensions": 1000 * self.comprehensions / lines,
            "comments": 100 * self.comments / lines,
            "long lines": 100 * self.long_lines / lines,
            "clauses": float(self.clauses),
            "overriding": float(len(self.overriding)),
            "longest file": float(max(self.files.values(), default=0)),
        }


@dataclass(frozen=True)
class ClassInfo:
    """A class of the package: the names of its bases, its methods, and those that are abstract."""

    bases: tuple[str, ...]
    methods: frozenset[str]
    abstract: frozenset[str]
    is_protocol: bool


def measure(folder: Path = PACKAGE) -> dict[str, Measures]:
    """Return the measures of each package in a folder, and of all of it under "all"."""
    paths = sorted(folder.rglob("*.py"))
    trees = {path: ast.parse(path.read_text("utf-8")) for path in paths}
    classes = _classes(trees)
    packages: dict[str, Measures] = {}
    for path, tree in trees.items():
        parts = path.relative_to(folder).parts
        package = parts[0] if len(parts) > 1 else "(top)"
        for name in (package, "all"):
            _add_file(packages.setdefault(name, Measures()), path, folder, tree, classes)
    return packages


def _add_file(
    measures: Measures, path: Path, folder: Path, tree: ast.Module, classes: dict[str, ClassInfo]
) -> None:
    text = path.read_text("utf-8")
    lines = text.splitlines()
    measures.files[path.relative_to(folder).as_posix()] = len(lines)
    measures.long_lines += sum(len(line) > LONGEST_LINE for line in lines)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        # a comment for a tool says nothing to a reader
        if token.type == tokenize.COMMENT and not token.string.startswith(
            ("# fmt:", "# noqa", "# type:")
        ):
            measures.comments += 1
    for node in ast.walk(tree):
        measures.vague_names += sum(name in VAGUE_NAMES for name in _assigned(node))
        measures.vague_parameters += isinstance(node, ast.arg) and node.arg in VAGUE_NAMES
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            measures.comprehensions += 1
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            measures.clauses += docstring.startswith(CLAUSES)
        if isinstance(node, ast.ClassDef):
            for method in _overridden(node.name, classes):
                measures.overriding.append(f"{node.name}.{method}")


def _assigned(node: ast.AST) -> Iterator[str]:
    """Yield the name that a node binds: each is a `Name` in a storing context.

    That covers assignments, loops, targets of comprehensions, `with … as`, and `:=`.
    """
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name


def _classes(trees: dict[Path, ast.Module]) -> dict[str, ClassInfo]:
    """Return the classes that are defined in some files, by name; of two of one name, the last."""
    classes: dict[str, ClassInfo] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name] = _class_info(node)
    return classes


def _class_info(node: ast.ClassDef) -> ClassInfo:
    bases = tuple(_last_name(base) for base in node.bases)
    methods: set[str] = set()
    abstract: set[str] = set()
    for item in node.body:
        if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        methods.add(item.name)
        if any(_last_name(decorator) == "abstractmethod" for decorator in item.decorator_list):
            abstract.add(item.name)
    return ClassInfo(bases, frozenset(methods), frozenset(abstract), "Protocol" in bases)


def _last_name(node: ast.expr) -> str:
    """Return the last part of a dotted name: "Search" of `kinds.Search[None]`."""
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _overridden(name: str, classes: dict[str, ClassInfo]) -> list[str]:
    """Return the methods of a class that a concrete ancestor has with a body of its own.

    An ancestor is concrete where neither it nor its own ancestors leave a method abstract. The
    bases of a class are looked up by their name alone, so this is a best effort.
    """
    methods: set[str] = set()
    for ancestor in _ancestors(name, classes):
        info = classes[ancestor]
        if _is_concrete(ancestor, classes):
            methods |= classes[name].methods & info.methods
    return sorted(method for method in methods if not method.startswith("__"))


def _ancestors(name: str, classes: dict[str, ClassInfo]) -> list[str]:
    """Return the ancestors of a class that are defined in the package, the nearest first."""
    ancestors: list[str] = []
    waiting = list(classes[name].bases)
    while waiting:
        base = waiting.pop(0)
        if base in classes and base != name and base not in ancestors:
            ancestors.append(base)
            waiting += classes[base].bases
    return ancestors


def _is_concrete(name: str, classes: dict[str, ClassInfo]) -> bool:
    # a kind is there to be subclassed, even where it leaves no method abstract
    if "Component" in classes[name].bases:
        return False
    if classes[name].is_protocol or "ABC" in classes[name].bases:
        return False
    missing = set(classes[name].abstract)
    defined = set(classes[name].methods)
    for ancestor in _ancestors(name, classes):
        missing |= classes[ancestor].abstract - defined
        defined |= classes[ancestor].methods
    return not missing


def excesses(packages: dict[str, Measures]) -> list[str]:
    """Return a line for each measure that exceeds its bound, and for each exception of no use."""
    faults: list[str] = []
    for package, measures in packages.items():
        for name, value in measures.figures().items():
            bound = NOT_YET.get((package, name), AIMS[name])
            if name == "comments" and value < bound:
                faults.append(f"{package}: {name} are {value:.2f}, fewer than {bound:g}")
            elif name != "comments" and value > bound:
                faults.append(f"{package}: {name} are {value:.2f}, more than {bound:g}")
    for package, name in NOT_YET:
        if package not in packages:
            faults.append(f"{package}: there is no such package; remove its exception")
        elif _is_met(name, packages[package].figures()[name]):
            faults.append(f"{package}: {name} meet the aim; remove the exception")
    return faults


def _is_met(name: str, value: float) -> bool:
    return value >= AIMS[name] if name == "comments" else value <= AIMS[name]


def table(packages: dict[str, Measures]) -> str:
    """Return the figures of every package as text, the longest files, and what overrides."""
    names = list(Measures().figures())
    rows = [f"{'package':12}" + "".join(f"{name:>16}" for name in names)]
    for package, measures in sorted(packages.items()):
        cells = "".join(f"{value:16.2f}" for value in measures.figures().values())
        rows.append(f"{package:12}{cells}")
    rows += ["", "names, parameters and comprehensions are per 1,000 lines; the others per 100,"]
    rows += ["but for clauses and overriding, which are counted, and the longest file, in lines."]

    whole = packages["all"]
    rows += ["", "Longest files:"]
    by_length = sorted(whole.files.items(), key=lambda item: -item[1])
    rows += [f"  {lines:4} {name}" for name, lines in by_length[:SHOWN_FILES]]
    rows += ["", "Methods that override one of a concrete class:"]
    rows += [f"  {name}" for name in whole.overriding] or ["  none"]
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, or check the bounds. Return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the language of the code.")
    parser.add_argument("--check", action="store_true", help="fail where a bound is exceeded")
    options = parser.parse_args(arguments)
    packages = measure()
    if not options.check:
        print(table(packages))
        return 0
    faults = excesses(packages)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
