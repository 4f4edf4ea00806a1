"""Ticket files that somebody made to break the reader: each is refused in words, or read."""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from .damage import CHANGES
from .harness import Campaign, lotteryfw

VALUES: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**63, 2**200, -(2**63), 1e308, 0.5, float("nan"), float("inf"),
    "", "x", "\0", "../../x", "é", "9" * 5000, "[" * 20_000, "lotteryfw/mlp", "F32", "BOOL",
    [], [[]], [-1], [0], [2**40], [2**31, 2**31], [2**63], [1, "a"], [0, 0], [8, 0], [0, 2**62],
    {}, {"": {}}, {"use": "mlp"},
]  # fmt: skip
"""Values that a JSON file may have in any place."""

_PER_PROCESS = 40
_SECONDS = 20
_MEMORY = 3 * 2**30
"""Bytes that reading one ticket may take beyond what the process has."""


def open_hostile_tickets(campaign: Campaign, count: int) -> None:
    """Write hostile variants of a ticket and of a seed ticket, and read each of them."""
    originals = {"ticket file": _ticket(campaign), "seed ticket file": _seed_ticket(campaign)}
    for kind, original in originals.items():
        for start in range(0, count, _PER_PROCESS):
            attempt = campaign.fresh()
            numbers = range(start, min(start + _PER_PROCESS, count))
            paths = {}
            for number in numbers:
                path = attempt / f"{number}.safetensors"
                path.write_bytes(variant(original, campaign.draws(f"hostile {kind}", number)))
                paths[number] = path
            _read_all(campaign, f"hostile {kind}", paths)


def _ticket(campaign: Campaign) -> bytes:
    run = campaign.template("study") / "run"
    return next(iter(sorted(run.glob("tickets/*/level-01.safetensors")))).read_bytes()


def _seed_ticket(campaign: Campaign) -> bytes:
    run = campaign.template("seeded") / "run"
    ticket = next(iter(sorted(run.glob("tickets/*/level-01.safetensors"))))
    out = campaign.folder / "seed.safetensors"
    done = campaign.run(lotteryfw, "export", str(ticket), "--as", "seed", "--out", str(out))
    assert done.status == 0, done.err
    return out.read_bytes()


def _read_all(campaign: Campaign, kind: str, paths: dict[int, Path]) -> None:
    """Read the files in one process; where one of them ends it, go on in another."""
    left = dict(paths)
    while left:
        done = campaign.run(read_tickets, [str(path) for path in left.values()])
        lines = [json.loads(line) for line in done.out.splitlines()]
        for line in lines:
            number = int(Path(line["path"]).stem)
            del left[number]
            campaign.count(kind, str(number), [line["fault"]] if line["fault"] else [])
        if left:
            # the process ended before it said how the next one went
            number = next(iter(left))
            del left[number]
            fault = f"ended the process: {done.status} {done.err[-200:]}"
            campaign.count(kind, str(number), [fault])


def read_tickets(paths: list[str]) -> None:
    """Read each file by both readers and print a line about it (runs in a process of its own)."""
    from lotteryfw import LotteryError, load_seed_ticket, load_ticket

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    for path in paths:
        fault = ""
        for reader in (load_ticket, load_seed_ticket):
            signal.alarm(_SECONDS)
            try:
                loaded = reader(path)
                ticket: Any = loaded[1] if isinstance(loaded, tuple) else loaded
                assert 0 <= ticket.density <= 1
                for tensor in (*ticket.mask.values(), *ticket.values.values()):
                    tensor.numpy().tobytes()
            except LotteryError as error:
                if len(str(error)) > 2000:
                    fault = f"a message of {len(str(error)):,} characters"
            except BaseException as error:  # whatever else comes out is the fault we look for
                fault = f"{reader.__name__}: {type(error).__name__}: {str(error)[:200]}"
            signal.alarm(0)
        print(json.dumps({"path": path, "fault": fault}))
        sys.stdout.flush()


def variant(original: bytes, draws: random.Random) -> bytes:
    """Return the file with one to three changes in its bytes or in the JSON of its header."""
    content = original
    for _ in range(draws.choice([1, 1, 2, 3])):
        if not content or draws.random() < 0.25:
            change = draws.choice(CHANGES)
            content = bytes(change(bytearray(content or b"x"), draws))
            continue
        try:
            content = _other_header(content, draws)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return content  # an earlier change left no header to change
    return content


def _other_header(content: bytes, draws: random.Random) -> bytes:
    """Change the safetensors index, lotteryfw's entry in it, or the meta data in the entry."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    entry = json.loads(header["__metadata__"]["lotteryfw"])
    where = draws.choice(["index", "entry", "entry", "meta", "meta"])
    if where == "index":
        header = _changed(header, draws)
    elif where == "entry":
        header["__metadata__"]["lotteryfw"] = json.dumps(_changed(entry, draws))
    else:
        entry["meta"] = _changed_texts(entry["meta"], draws)
        header["__metadata__"]["lotteryfw"] = json.dumps(entry)
    written = json.dumps(header).encode()
    length = len(written) if draws.random() < 0.95 else draws.choice([0, 2**63, 2**64 - 1, 2])
    return length.to_bytes(8, "little") + written + content[8 + size :]


def _changed_texts(meta: dict[str, str], draws: random.Random) -> Any:
    """Change the meta data, or the JSON that one of its texts is."""
    nested = [name for name, text in meta.items() if text.startswith("{")]
    if not nested or draws.random() < 0.2:
        return _changed(meta, draws)
    name = draws.choice(nested)
    return meta | {name: json.dumps(_changed(json.loads(meta[name]), draws))}


def _changed(tree: Any, draws: random.Random) -> Any:
    """Return JSON data with one value, at any depth, replaced, deleted or renamed."""
    if not isinstance(tree, dict | list) or not tree or draws.random() < 0.15:
        return draws.choice(VALUES)
    tree = tree.copy()
    places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    place = draws.choice(places)
    action = draws.random()
    if action < 0.15:
        del tree[place]
    elif action < 0.3 and isinstance(tree, dict):
        tree[draws.choice(["", "x", "\0", f"{place}x", "mask:fc1.weight"])] = tree.pop(place)
    else:
        tree[place] = _changed(tree[place], draws)
    return tree
