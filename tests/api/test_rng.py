"""Named streams: the same labels give the same bits, as strings or as members of an enum."""

from __future__ import annotations

import ast
import hashlib
from enum import StrEnum

import pytest
import torch
from support.paths import ROOT

from lotteryfw.api.rng import Stream, seed_of, stream
from lotteryfw.std.draws import OwnStream

PACKAGE = ROOT / "lotteryfw"
DRAWING = ("stream", "seed_of", "_seeded")


def test_a_seed_is_the_hash_of_its_labels_with_their_types() -> None:
    digest = hashlib.sha256(b"int:0\x1fstr:ties\x1fint:3").digest()
    assert seed_of(0, "ties", 3) == int.from_bytes(digest[:8], "big") // 2
    assert seed_of(0, Stream.TIES, 3) == int.from_bytes(digest[:8], "big") // 2
    assert seed_of("0", "ties") != seed_of(0, "ties")


@pytest.mark.parametrize("purpose", [*Stream, *OwnStream], ids=str)
def test_a_member_draws_the_bits_of_its_string(purpose: StrEnum) -> None:
    drawn = torch.rand(5, generator=stream(7, purpose, "fc1.weight"))
    assert drawn.equal(torch.rand(5, generator=stream(7, purpose.value, "fc1.weight")))


def test_purposes_are_different_and_each_is_explained() -> None:
    values = [*map(str, Stream), *map(str, OwnStream)]
    assert len(set(values)) == len(values)
    for path, name in (("api/rng.py", "Stream"), ("std/draws.py", "OwnStream")):
        tree = ast.parse((PACKAGE / path).read_text("utf-8"))
        (body,) = (node.body for node in tree.body if getattr(node, "name", "") == name)
        members = [number for number, node in enumerate(body) if isinstance(node, ast.Assign)]
        assert len(members) == len({"Stream": Stream, "OwnStream": OwnStream}[name])
        for number in members:
            assert isinstance(body[number + 1], ast.Expr), ast.unparse(body[number])


def literal_purposes() -> dict[str, str]:
    """The first string among the labels of every draw in the code, with the file that it is in."""
    purposes: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name == "testkit":  # trials have a stream of their own
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            strings: list[str] = []
            for label in node.args:
                if isinstance(label, ast.Attribute) and "Stream." in ast.unparse(label):
                    break  # the purpose is a member; what follows says for whom
                if isinstance(label, ast.Constant) and isinstance(label.value, str):
                    strings.append(label.value)
            # derivations.py passes the purpose on, by a function `layer(info, mask, purpose)`
            is_layer = node.func.id == "layer" and len(node.args) == 3
            if strings and (node.func.id in DRAWING or is_layer):
                purposes[strings[0]] = path.name
    return purposes


def test_every_purpose_that_is_written_as_a_string_is_in_the_enum() -> None:
    purposes = literal_purposes()
    assert {"initialisation", "order", "ties", "criterion", "mask0"} <= purposes.keys()
    assert purposes.keys() <= set(map(str, Stream)), purposes
