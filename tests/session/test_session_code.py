"""The code of a component that a script defines: whatever decides its results is in its key."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import environment

from lotteryfw.registry.session_code import session_code

SCRIPT = '''
import functools, json, logging, math, sys
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Union
from types import SimpleNamespace
import numpy as np
import torch
from lotteryfw import MaskCriterion
from lotteryfw.api.errors import UsageError
from lotteryfw.registry.session_code import session_code
import helper

log = logging.getLogger("mine")
step = object()

def make(sign, used=None):
    class Mine(MaskCriterion):
        use = "mine"
        def score(self, layer):
            log.info(layer.step)  # an attribute, and not the global of that name
            return sign * layer.final.abs()
        def other(self):
            return used
    return Mine

def with_global(value):
    global SIGN
    SIGN = value
    class Mine(MaskCriterion):
        use = "mine"
        def score(self, layer):
            return SIGN
    return session_code(Mine).digest

def with_attribute(value):
    cls = make(1)
    cls.sign = value
    return session_code(cls).digest

@dataclass
class Config:
    sign: object

class Direction(Enum):
    UP = 1
    DOWN = -1

class Pair(NamedTuple):
    sign: int

class Slots:
    __slots__ = ("sign",)
    factor = 2
    def of(self): return factor(self.sign)

factor = math.sqrt

def plus(x): return x
def minus(x): return -x

def scaled(function):
    def decorate(method):
        @functools.wraps(method)
        def wrapper(self, layer):
            return function(method(self, layer))
        return wrapper
    return decorate

def decorated(function):
    class Mine(MaskCriterion):
        use = "mine"
        @scaled(function)
        def score(self, layer):
            return layer.final
    return session_code(Mine).digest

def behind(sign, kind):
    """What a property, a cached property, a class method or a partial object calls."""
    def call(self=None, *rest):
        return sign
    class Mine(MaskCriterion):
        use = "mine"
        def score(self, layer):
            return layer.final
    Mine.inner = kind(call)
    return session_code(Mine).digest

def of_default(sign):
    class Mine(MaskCriterion):
        use = "mine"
        def score(self, layer, by=sign):
            return by * layer.final
    return session_code(Mine).digest

DIGESTS = {
    "closure": [session_code(make(sign)).digest for sign in (1, -1)],
    "closure of a tensor": [
        session_code(make(torch.tensor([sign]))).digest for sign in (1.0, -1.0)
    ],
    "tensor": [with_global(torch.full((2000,), sign)) for sign in (1.0, -1.0)],
    "dtype": [with_global(torch.zeros(2, dtype=d)) for d in (torch.float32, torch.int32)],
    "array": [with_global(np.full(2000, sign)) for sign in (1.0, -1.0)],
    "tensors in a dictionary": [with_global({"a": [torch.tensor(s)]}) for s in (1.0, -1.0)],
    "partial": [with_global(functools.partial(f)) for f in (plus, minus)],
    "argument of a partial": [with_global(functools.partial(plus, x=s)) for s in (1, -1)],
    "dataclass": [with_global(Config(sign)) for sign in (1, -1)],
    "enumeration": [with_global(member) for member in Direction],
    "named tuple": [with_global(Pair(torch.tensor(sign))) for sign in (1, -1)],
    "class": [with_global(cls) for cls in (Slots, Config)],
    "function of torch": [with_global(f) for f in (torch.abs, torch.square)],
    "function of numpy": [with_global(f) for f in (np.abs, np.square)],
    "function of Python": [with_global(f) for f in (math.sin, [].append)],
    "generic": [with_global(f) for f in (dict[str, int], Union[int, str])],
    "namespace": [with_global(SimpleNamespace(sign=sign)) for sign in (1, -1)],
    "class attribute": [with_attribute(sign) for sign in (1, -1)],
    "decorator": [decorated(function) for function in (plus, minus)],
    "property": [behind(sign, property) for sign in (1, -1)],
    "cached property": [behind(sign, functools.cached_property) for sign in (1, -1)],
    "class method": [behind(sign, classmethod) for sign in (1, -1)],
    "cached function": [behind(sign, functools.lru_cache) for sign in (1, -1)],
    "default": [of_default(sign) for sign in (1, -1)],
    "import": [session_code(make(1, helper)).digest, session_code(make(1, helper.f)).digest],
}
try:
    with_global(open(__file__))
except UsageError as error:
    DIGESTS["refusal"] = str(error)
DIGESTS["helper"] = with_global(helper.f)
print(json.dumps(DIGESTS))
'''


def digests(folder: Path, sign: int = 1) -> dict[str, list[str]]:
    (folder / "study.py").write_text(SCRIPT)
    (folder / "helper.py").write_text(f"def f(layer): return {sign} * layer.final\n")
    done = subprocess.run(
        [sys.executable, "study.py"], cwd=folder, env=environment(folder), capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_whatever_decides_a_result_is_in_the_digest(tmp_path: Path) -> None:
    found = digests(tmp_path)
    refusal = str(found.pop("refusal", ""))
    helper = found.pop("helper")
    assert [case for case, pair in found.items() if len(set(pair)) < 2] == []
    assert refusal.startswith("components: SIGN, which Mine uses, is a TextIOWrapper")
    assert "move the component into a plugin file" in refusal
    # the same in another process
    again = digests(tmp_path)
    assert {case: pair for case, pair in again.items() if case in found} == found
    assert again["helper"] == helper
    assert digests(tmp_path, -1)["helper"] != helper


def test_a_class_that_a_function_of_a_module_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "_of_a_module.py").write_text(
        "from lotteryfw import MaskCriterion\ndef make(sign):\n    class Mine(MaskCriterion):\n"
        "        use = 'mine'\n        def score(self, layer): return sign * layer.final\n"
        "    return Mine\n"
    )
    make = importlib.import_module("_of_a_module").make
    first, again, other = (session_code(make(sign)).digest for sign in (1, 1, -1))
    assert first == again != other
    monkeypatch.delitem(sys.modules, "_of_a_module")
