"""The benchmarks and scripts name what there is: none runs in a test, and a renamed part would break one unseen."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest
from support.paths import ROOT

FILES = sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("scripts/*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_that_is_imported_of_lotteryfw_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.split(".")[0] != "lotteryfw":
            continue
        module = import_module(node.module)
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            try:
                found = hasattr(module, alias.name) or import_module(name)
            except ImportError:
                found = False
            assert found, f"{path.relative_to(ROOT)}, line {node.lineno}: there is no {name}"
