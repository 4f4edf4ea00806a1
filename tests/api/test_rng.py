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


def purposes() -> tuple[set[str], set[str]]:
    """The purposes of draws in the code: the members of Stream, and those written as strings."""
    members: set[str] = set()
    strings: set[str] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name == "testkit":  # trials have a stream of their own
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("Stream."):
                members.add(Stream[node.attr].value)
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in DRAWING:
                strings |= _first_string(node.args)
    return members, strings


def _first_string(labels: list[ast.expr]) -> set[str]:
    for label in labels:
        if isinstance(label, ast.Attribute) and "Stream." in ast.unparse(label):
            return set()  # the purpose is a member; what follows says for whom
        if isinstance(label, ast.Constant) and isinstance(label.value, str):
            return {label.value}
    return set()


def test_every_purpose_of_a_draw_is_in_the_enum_and_no_other_is() -> None:
    members, strings = purposes()
    assert {"initialisation", "ties", "criterion", "mask0"} <= members
    assert members | strings == set(map(str, Stream))
