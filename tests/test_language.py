"""The language of the code stays as good as it is: no measure of scripts/language.py gets worse."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.paths import ROOT

SCRIPT = ROOT / "scripts" / "language.py"


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("language", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "language", module)
    spec.loader.exec_module(module)
    return module


def write(folder: Path, text: str) -> Path:
    (folder / "room").mkdir(exist_ok=True)
    (folder / "room" / "module.py").write_text(text)
    return folder


def test_no_bound_is_exceeded() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_measure_counts_what_it_says(language: ModuleType, tmp_path: Path) -> None:
    text = '''"""What this is."""

def f(each, name):  # a reason
    """Return nothing."""
    found, b = 1, [g for g in name]
    for told in name:
        with told as left:
            pass
    said: int = 2
    (own := 3)
    return {place: 1 for place in name}  # noqa
'''
    long_line = f"x = '{'x' * 100}'\n"
    measures = language.measure(write(tmp_path, text + long_line))["room"]
    assert measures.vague_names == 6
    assert measures.vague_parameters == 1
    assert measures.comprehensions == 2
    assert measures.comments == 1
    assert measures.clauses == 1
    assert measures.long_lines == 1
    assert measures.files == {"room/module.py": 12}


def test_only_methods_of_concrete_classes_count_as_overridden(
    language: ModuleType, tmp_path: Path
) -> None:
    text = """
class Abstract(ABC):
    @abstractmethod
    def wanted(self): ...
    def given_by_default(self): ...
class Concrete(Abstract):
    def wanted(self): ...
    def given_by_default(self): ...
class Child(Concrete):
    def wanted(self): ...
    def more(self): ...
class Kind(Component):
    def optional(self): ...
class Offered(Kind):
    def optional(self): ...
"""
    assert language.measure(write(tmp_path, text))["all"].overriding == ["Child.wanted"]


def test_a_bound_that_is_exceeded_is_named(
    language: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = language.measure(write(tmp_path, "found = 1\n"))
    exceptions = {
        ("room", "comments"): 0.0, ("all", "comments"): 0.0, ("all", "names"): 1000.0,
        ("gone", "names"): 1.0, ("all", "clauses"): 1.0,
    }  # fmt: skip
    monkeypatch.setattr(language, "NOT_YET", exceptions)
    assert language.excesses(packages) == [
        "room: names are 1000.00, more than 2",
        "gone: there is no such package; remove its exception",
        "all: clauses meet the aim; remove the exception",
    ]
