"""Files of a store and of a run folder that are damaged, deleted or exchanged.

What has to hold afterwards: no command shows a wrong figure or prints a traceback, damage of a
stored result is reported, and running the study again gives the undisturbed results to the bit, if
need be after deleting the file that the message names.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from .harness import Campaign, Command, Done, differences, lotteryfw, results, study

PATTERNS = {
    "object file": ["store/objects/*/*/[!o]*", "store/objects/*/*/outcome.json"],
    "object.json": ["store/objects/*/*/object.json"],
    "alias": ["store/aliases/*/*"],
    "root": ["store/roots/*"],
    "lock": ["store/locks/*", "store/active/*", "store/*.lock"],
    "store.json": ["store/store.json"],
    "checkpoint": ["store/scratch/*/checkpoint-*/*"],
    "levels.csv": ["run/levels.csv"],
    "curves, analyses": ["run/curves.jsonl", "run/analyses.jsonl"],
    "manifest.json": ["run/manifest.json"],
    "events.jsonl": ["run/events.jsonl"],
    "recipes of a run": ["run/recipe.toml", "run/resolved.toml"],
    "ticket": ["run/tickets/*/*"],
}
"""By the kind of file, where files of this kind are in an attempt's folder."""

CHECKPOINTS = "store/scratch/*/checkpoint-*[0-9]"

SWAPPED = {
    "swapped objects": "store/objects/*/*",
    "swapped aliases": "store/aliases/*/*",
    "swapped tickets": "run/tickets/*/*",
}

REPORTED = ("object file", "object.json", "swapped objects")
"""Kinds of which damage has to be reported: they are what figures are made of."""


def flip_bit(content: bytearray, draws: random.Random) -> bytearray:
    place = draws.randrange(len(content))
    content[place] ^= 1 << draws.randrange(8)
    return content


def change_byte(content: bytearray, draws: random.Random) -> bytearray:
    place = draws.randrange(len(content))
    content[place] = (content[place] + draws.randrange(1, 256)) % 256
    return content


def truncate(content: bytearray, draws: random.Random) -> bytearray:
    return content[: draws.randrange(len(content))]


def append(content: bytearray, draws: random.Random) -> bytearray:
    return content + draws.randbytes(draws.randrange(1, 40))


def zero_block(content: bytearray, draws: random.Random) -> bytearray:
    """Zeros in place of a block, as a disk leaves them that lost power."""
    start = draws.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    return content


CHANGES: list[Callable[[bytearray, random.Random], bytearray]] = [
    flip_bit, flip_bit, flip_bit, change_byte, truncate, append, zero_block,
]  # fmt: skip


def harm(path: Path, draws: random.Random) -> str | None:
    """Damage or delete a file; return how in words, or None if that changed nothing."""
    before = path.read_bytes()
    if not before or draws.random() < 0.15:
        path.unlink()
        return "deleted"
    change = draws.choice(CHANGES)
    after = bytes(change(bytearray(before), draws))
    if after == before:
        return None
    path.unlink()  # not in place: a copy made by hard links would change as well
    path.write_bytes(after)
    return change.__name__.replace("_", " ")


@dataclass
class Checked:
    """What the commands after the damage did: their faults, and all they printed."""

    campaign: Campaign
    attempt: Path
    faults: list[str] = field(default_factory=list)
    printed: str = ""

    def run(self, target: Callable[..., None], *arguments: object) -> Done:
        done = self.campaign.run(target, *arguments)
        self.faults += done.faults()
        self.printed += done.err
        return done

    def verify(self) -> bool:
        """Run `store verify`; return whether it found nothing."""
        done = self.run(lotteryfw, "store", "verify", "--store", str(self.attempt / "store"))
        if done.status:
            self.printed += done.out
        return done.status == 0

    def rerun(self, name: str, damaged: list[Path], *, new_folder: bool) -> None:
        """Run a study; its results must be right, or refused in words that name a damaged file."""
        folder = self.attempt / ("another" if new_folder else "run")
        done = self.run(study, name, folder, self.attempt / "store")
        if done.status:
            named = [path for path in damaged if _is_named(path, done.err)]
            if not named:
                self.faults.append(f"refused without naming the file: {done.err.strip()[:300]}")
            for path in damaged:
                path.unlink(missing_ok=True)
            if any(path.name in ("recipe.toml", "resolved.toml") for path in damaged):
                shutil.rmtree(folder)
            done = self.run(study, name, folder, self.attempt / "store")
            if done.status:
                self.faults.append(f"refused after the file was deleted: {done.err.strip()[:300]}")
                return
        wrong = differences(results(folder), self.campaign.results_of(name))
        if wrong:
            self.faults.append(f"gave other results: {', '.join(wrong[:3])}")


def _is_named(path: Path, text: str) -> bool:
    return path.name in text or path.parent.name in text


def harm_files(campaign: Campaign, count: int, kinds: Sequence[str] = tuple(PATTERNS)) -> None:
    """Damage one file in each attempt, of these kinds in turn."""
    for number in range(count):
        kind = kinds[number % len(kinds)]
        round_number = number // len(kinds)
        draws = campaign.draws(kind, round_number)
        name = "slower" if kind == "checkpoint" else "study"
        template = interrupted(campaign) if kind == "checkpoint" else campaign.template("study")
        attempt = campaign.fresh(template)
        path = draws.choice(list(files(attempt, kind)))
        how = None
        while how is None:
            how = harm(path, draws)
        checked = check(campaign, attempt, kind, name, [path], draws)
        text = f"{round_number} ({path.relative_to(attempt)}, {how})"
        campaign.count(kind, text, checked.faults)


def check(
    campaign: Campaign,
    attempt: Path,
    kind: str,
    name: str,
    damaged: list[Path],
    draws: random.Random,
) -> Checked:
    """Look at the run, then run it again and verify the store; in an order that is drawn."""
    checked = Checked(campaign, attempt)
    if damaged[0].is_relative_to(attempt / "run"):
        _look(checked, damaged[0])
    if kind == "root":
        _collect(checked)

    is_clean = checked.verify() if draws.random() < 0.5 else None
    # only a rerun into the same folder mends what is the run's own, its root in the store included
    is_of_run = kind == "root" or damaged[0].is_relative_to(attempt / "run")
    # a study that is one level longer starts from the tensors that are stored
    longer = name == "study" and not is_of_run and draws.random() < 0.5
    new_folder = longer or (not is_of_run and draws.random() < 0.5)
    checked.rerun("longer" if longer else name, damaged, new_folder=new_folder)
    # what the first verification after the damage finds it sets aside
    if not checked.verify() and (is_clean is not None or not checked.verify()):
        checked.faults.append("store verify finds damage that it set aside before")
    if kind in REPORTED and not checked.printed.strip():
        checked.faults.append("nothing reported the damage")
    return checked


def files(attempt: Path, kind: str) -> Iterator[Path]:
    """Yield the files of a kind in an attempt's folder, always in the same order."""
    for pattern in PATTERNS[kind]:
        for path in sorted(attempt.glob(pattern)):
            if path.is_file() and (kind != "object file" or path.name != "object.json"):
                yield path


def _look(checked: Checked, path: Path) -> None:
    """Show the run; what is printed must be right, unless there is an error or a warning."""
    template = checked.campaign.template("study")
    if path.suffix == ".safetensors":
        ticket = "{}/" + str(path.relative_to(checked.attempt))
        commands = [["export", ticket, "--out", "{}/exported"]]
    else:
        commands = [["runs", "{}/run", "--json"], ["report", "--markdown", "{}/run"]]
    for words in commands:
        outputs = []
        for folder in (template, checked.attempt):
            run = checked.run if folder == checked.attempt else checked.campaign.run
            done = run(lotteryfw, *[word.format(folder) for word in words])
            exported = folder / "exported"
            content = exported.read_bytes() if exported.exists() else b""
            exported.unlink(missing_ok=True)
            outputs.append((done.out.replace(str(folder), ""), content))
        if not done.status and not done.err.strip() and outputs[0] != outputs[1]:
            checked.faults.append(f"`lotteryfw {words[0]}` printed something else without a word")


def _collect(checked: Checked) -> None:
    """Run `store gc`: it may refuse, but not delete what a run folder refers to."""
    before = set((checked.attempt / "store" / "objects").glob("*/*"))
    done = checked.run(lotteryfw, "store", "gc", "--store", str(checked.attempt / "store"))
    gone = before - set((checked.attempt / "store" / "objects").glob("*/*"))
    if gone and done.status == 0:
        checked.faults.append(f"store gc deleted {len(gone)} objects that the run refers to")


def interrupted(campaign: Campaign) -> Path:
    """Return the template of a study that was killed between two checkpoints."""
    template = campaign.folder / "templates" / "interrupted"
    while not list(template.glob("store/scratch/*/checkpoint-*/*")):
        shutil.rmtree(template, ignore_errors=True)
        attempt = campaign.fresh()
        arguments = ("slower", attempt / "run", attempt / "store", 1, 0.1)
        command = Command(campaign.folder / "command", study, *arguments)
        while command.is_running() and not list(attempt.glob(CHECKPOINTS)):
            time.sleep(0.005)
        command.kill()
        template.parent.mkdir(exist_ok=True)
        attempt.rename(template)
    return template


def harm_posted_jobs(campaign: Campaign, count: int) -> None:
    """Damage a job on its way to a worker process."""
    for number in range(count):
        draws = campaign.draws("posted job", number)
        attempt = campaign.fresh()
        arguments = ("study", attempt / "run", attempt / "store", 2)
        command = Command(campaign.folder / "command", study, *arguments)
        how = _harm_post(command, attempt, draws)
        done = command.wait()

        checked = Checked(campaign, attempt, done.faults())
        if done.status == 0 and not (attempt / "run" / "errors").exists():
            wrong = differences(results(attempt / "run"), campaign.results_of("study"))
            checked.faults += [f"gave other results: {name}" for name in wrong[:3]]
        checked.rerun("study", [], new_folder=False)
        if not checked.verify():
            checked.faults.append("store verify finds damage after a rerun")
        campaign.count("posted job", f"{number} ({how})", checked.faults)


def _harm_post(command: Command, attempt: Path, draws: random.Random) -> str | None:
    """Damage one of the first posted files while the command runs; return how."""
    wanted = draws.randrange(1, 5)
    seen: set[Path] = set()
    while command.is_running():
        for path in sorted(attempt.glob("store/spool/*.safetensors")):
            is_new = path not in seen
            seen.add(path)
            if is_new and len(seen) >= wanted:
                with contextlib.suppress(FileNotFoundError):  # the worker was faster
                    return harm(path, draws)
        time.sleep(0.001)
    return None


def swap(campaign: Campaign, count: int, kinds: Sequence[str] = tuple(SWAPPED)) -> None:
    """Exchange two object folders, two aliases or two tickets."""
    for number in range(count):
        kind = kinds[number % len(kinds)]
        round_number = number // len(kinds)
        draws = campaign.draws(kind, round_number)
        attempt = campaign.fresh(campaign.template("study"))
        paths = sorted(attempt.glob(SWAPPED[kind]))
        pairs = [pair for pair in permutations(paths, 2) if _can_swap(*pair)]
        first, second = draws.choice(pairs)
        _exchange(first, second)
        checked = check(campaign, attempt, kind, "study", [first, second], draws)
        names = [str(path.relative_to(attempt)) for path in (first, second)]
        campaign.count(kind, f"{round_number} ({', '.join(names)})", checked.faults)


def _can_swap(first: Path, second: Path) -> bool:
    """Return whether swapping makes a difference, and none that missing files would show."""
    if first.is_dir():
        return _names(first) == _names(second)
    return first.read_bytes() != second.read_bytes()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _exchange(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
