"""Recipes and `--set` texts with seeded mistakes in them.

Each must end in success or in an error of lotteryfw's own, within two seconds.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lotteryfw.api.errors import LotteryError
from lotteryfw.recipe import load_recipe
from lotteryfw.registry import Registry

from .harness import Campaign

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
SLOWEST = 2.0
"""Seconds that checking one recipe may take."""

SYNTHETIC = "data={ use = 'synthetic', examples = 60000, shape = [3, 32, 32] }"
"""Data that is present everywhere: where there is none, lengths of training are not looked at."""

VALUES = (
    "0", "-1", "1", "true", "nan", "inf", "-inf", "1e308", "-0.0", "0.5", "9" * 30, "-" + "9" * 19, "1" * 5000,
    "0x" + "f" * 6000, "[]", "{}", "[[]]", "[{}]", '""', '"x"', "[1, 'a', {}]", "{ use = 1 }", "{ use = 'imp' }",
    "{ use = 'mlp', hidden = [1099511627776] }", "{ use = ['imp'] }", "1979-05-27", "07:32:00", '"\\u0000"',
    '"\\u001b[2J"', '"' + "x" * 70_000 + '"', '"' + "9" * 5000 + 'it"', '"' + "9" * 400 + '.5ep"', '"1e9it"',
    '"0.0000000001%"', '"100%"', "'../../x'", "'/dev/zero'", "[" * 60 + "]" * 60, "[" * 3000,
    "{a=" * 40 + "1" + "}" * 40, "[0, 0]", "18446744073709551616", "9223372036854775808", "1000000",
    "'lotteryfw/imp'", "'é'", "'\U0001f3b2'",
)  # fmt: skip
"""Values as TOML writes them, some of them no TOML at all."""

KEYS = (
    "name", "extends", "plugins", "seeds", "data", "model", "search", "criterion", "scope", "mask1", "mask0", "rewind",
    "train", "train.length", "train.batch", "train.optimizer", "train.schedule", "train.augment", "evaluate",
    "evaluate.points", "evaluate.every", "engine", "engine.kernel", "engine.sparse_below", "controls", "analyses",
    "grid", "grid.criterion", "grid.'search.levels'", "grid.train.batch", "grid.a.b.c", "study", "studies",
    "studies.x", "studies.x.grid", "profiles", "profiles.quick", "profiles.quick.train", "claim", "claim.text",
    "parametrization", "scores", "title", "about", "search.levels", "search.cycles", "search.densities",
    "model.hidden", "model.width", "data.use", "data.examples", "data.shape", "'a\\u0000b'", '"a\\u0000b"', "x" * 300,
    ".".join("a" * 50), ".".join("a" * 5000), "",
)  # fmt: skip
"""Keys that mean something, and some that never do."""

PIECES = (
    "[", "]", "{", "}", "=", '"', "'", "\\", "\n", ".", ",", "#", "\x00", "\x1b", "\ufeff", "\ud800", "\x7f", "\t",
    "[[study]]", "[study]", "[studies.x]", "[grid]", "[train]", "[profiles.quick]", "[[claim]]", '"""', "'''", "é",
    "use = ", "inf", "nan", "-", "1e400", "0o7", "9" * 4301,
)  # fmt: skip
"""Pieces of text to put anywhere."""


@dataclass(frozen=True)
class Case:
    """One mutated input: the bytes of a recipe, the profile, and the `--set` texts that go with it."""

    number: int
    recipe: bytes
    profile: str | None
    sets: tuple[str, ...]


def mutated_recipes(count: int, seed: int = 0) -> Iterator[Case]:
    """Yield `count` recipes of this project with one to four mistakes each, the same for the same seed."""
    texts = [path.read_text("utf-8") for path in RECIPES]
    for number in range(count):
        draw = random.Random(f"recipe {seed} {number}")
        text = draw.choice(texts)
        for _ in range(draw.choice([1, 1, 1, 2, 3, 4])):
            text = draw.choice(_MISTAKES)(text, draw)
        content = text.encode("utf-8", "surrogatepass")
        if draw.random() < 0.1:
            content = _flipped(content, draw)
        sets = (SYNTHETIC,) if draw.random() < 0.7 else ()
        yield Case(number, content, draw.choice([*[None] * 9, "quick", "quick", "x", "\x00"]), sets)


def mutated_sets(count: int, seed: int = 0) -> Iterator[Case]:
    """Yield `count` unchanged recipes with one to three mutated `--set` texts each."""
    contents = [path.read_bytes() for path in RECIPES]
    for number in range(count):
        draw = random.Random(f"set {seed} {number}")
        sets = [SYNTHETIC] if draw.random() < 0.7 else []
        sets += [_set_text(draw) for _ in range(draw.randint(1, 3))]
        yield Case(number, draw.choice(contents), draw.choice([None, "quick"]), tuple(sets))


def check(case: Case, registry: Registry, folder: Path) -> str:
    """Load a case as `lotteryfw check` does; what is wrong with how that ended, empty for nothing."""
    path = folder / "mutated.toml"
    path.write_bytes(case.recipe)
    started = time.process_time()
    try:
        load_recipe(
            path, registry, data_folder=folder / "data", profile=case.profile, sets=case.sets
        )
    except LotteryError as error:
        try:
            str(error).encode()
        except UnicodeEncodeError:
            return "the message cannot be printed"
    except Exception:
        return traceback.format_exc(limit=-6)
    seconds = time.process_time() - started
    return f"took {seconds:.1f} s" if seconds > SLOWEST else ""


def _set_text(draw: random.Random) -> str:
    key, value = draw.choice(KEYS), draw.choice(VALUES)
    text = draw.choice(
        [f"{key}={value}", f"{key}={value}", f"{key} = {value.strip('[{')}", key, f"={value}"]
    )
    for _ in range(draw.choice([0, 0, 1, 2])):
        text = _insert_piece(text, draw)
    return text


def _insert_piece(text: str, draw: random.Random) -> str:
    place = draw.randint(0, len(text))
    return text[:place] + draw.choice(PIECES) + text[place:]


def _delete_span(text: str, draw: random.Random) -> str:
    place = draw.randint(0, len(text))
    return text[:place] + text[place + draw.randint(1, 40) :]


def _double_span(text: str, draw: random.Random) -> str:
    place, length = draw.randint(0, len(text)), draw.randint(1, 200)
    return text[: place + length] + text[place:]


def _replace_value(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    assignments = [number for number, line in enumerate(lines) if "=" in line]
    if assignments:
        number = draw.choice(assignments)
        lines[number] = lines[number].partition("=")[0] + "= " + draw.choice(VALUES)
    return "\n".join(lines)


def _replace_key(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    assignments = [number for number, line in enumerate(lines) if "=" in line]
    if assignments:
        number = draw.choice(assignments)
        lines[number] = draw.choice(KEYS) + " =" + lines[number].partition("=")[2]
    return "\n".join(lines)


def _add_line(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    lines.insert(draw.randint(0, len(lines)), f"{draw.choice(KEYS)} = {draw.choice(VALUES)}")
    return "\n".join(lines)


def _delete_line(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    del lines[draw.randrange(len(lines))]
    return "\n".join(lines)


def _move_line(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    line = lines.pop(draw.randrange(len(lines)))
    lines.insert(draw.randint(0, len(lines)), line)
    return "\n".join(lines)


def _flipped(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    for _ in range(draw.randint(1, 3)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


_MISTAKES: tuple[Callable[[str, random.Random], str], ...] = (
    _insert_piece, _delete_span, _double_span, _replace_value, _replace_value, _replace_value, _replace_key, _add_line,
    _add_line, _delete_line, _move_line,
)  # fmt: skip


def mutate_recipes(campaign: Campaign, count: int) -> None:
    """Check so many mutated recipes."""
    _check_all(campaign, "mutated recipe", mutated_recipes(count, campaign.seed))


def mutate_sets(campaign: Campaign, count: int) -> None:
    """Check so many recipes with mutated `--set` texts."""
    _check_all(campaign, "mutated --set", mutated_sets(count, campaign.seed))


def _check_all(campaign: Campaign, kind: str, cases: Iterator[Case]) -> None:
    registry, folder = Registry.load(), campaign.fresh()
    for case in cases:
        problem = check(case, registry, folder)
        name = f"{case.number} {case.profile!r} {case.sets!r:.300}"
        campaign.count(kind, name, [problem] if problem else [])
