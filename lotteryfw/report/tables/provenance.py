"""The table of a run's provenance: when, by which command and from which code it ran."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from lotteryfw.report.data.units import duration
from lotteryfw.report.tables.text_table import ABSENT, TextTable

_HEAD = ("date", "duration", "jobs computed", "git commit", "command")
_COMMIT_LETTERS = 12  # as many as git needs in large repositories
# The folders of a path from the root, also behind an option's or a setting's "=": "/home/me/x",
# "C:\\x", "~/x".
_ABSOLUTE = re.compile(r"^([\w.=-]+=)?(?:[A-Za-z]:)?[\\/~].*[\\/]")
# The same in the quotation marks of TOML: 'data.path="/home/me/x"'.
_QUOTED = re.compile(r"([\"'])(?:[A-Za-z]:)?[\\/~][^\"']*[\\/](?=[^\\/\"'])")


def provenance_table(manifest: Mapping[str, Any]) -> TextTable | None:
    """Return a row for each invocation; None for a run that was recorded without them.

    Folders of the machine are left out of commands, because a page is passed on to others.
    """
    rows = []
    for invocation in manifest.get("invocations", ()):
        # a manifest may come from anywhere: an entry of another shape is no reason to fail
        if isinstance(invocation, Mapping):
            rows.append(_row(invocation))
    return TextTable("", _HEAD, tuple(rows), ()) if rows else None


def _row(invocation: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = invocation.get("seconds")
    return (
        str(invocation.get("date", ABSENT)).replace("T", " ").replace("+00:00", " UTC"),
        duration(seconds) if isinstance(seconds, int | float) else ABSENT,
        str(invocation.get("computed", ABSENT)),
        commit_text(invocation.get("git")),
        without_folders(str(invocation.get("command", ABSENT))),
    )


def commit_text(git: Any) -> str:
    """Return a commit with its state, as "0123456789ab, clean"."""
    if not isinstance(git, Mapping) or not git.get("commit"):
        return "no repository"
    state = "clean" if git.get("clean") else "with changes"
    return f"{str(git['commit'])[:_COMMIT_LETTERS]}, {state}"


def without_folders(command: str) -> str:
    """Return a command whose absolute paths are cut to their last part.

    >>> without_folders("lotteryfw recipe /home/me/study.toml --store=/scratch/s -q")
    'lotteryfw recipe study.toml --store=s -q'
    """
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation mark without its partner
        words = command.split()
    return shlex.join(map(_without_folders, words))


def _without_folders(word: str) -> str:
    # the last part of "/x/y/" is y; of "/" nothing would be left
    word = word.rstrip("\\/") or word
    return _QUOTED.sub(r"\1", _ABSOLUTE.sub(r"\1", word))
