"""The display of a terminal: a bar that lives while the run does, and nothing of it for a refusal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from support.commands import QUICK, command, environment

from lotteryfw.session.displays import Terminal


def shown_on_a_terminal(here: Path, *words: str) -> tuple[int, str]:
    """Run the command line on a terminal of its own; its exit code, and what the terminal got."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        command(*words), cwd=here, env=environment(here, TERM="xterm"), stdin=slave, stdout=slave,
        stderr=slave, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        received = b""
        while True:
            try:
                received += os.read(master, 1 << 16)
            except OSError:  # so Linux says that nobody has the terminal open any more
                break
        os.close(master)
        code = process.wait(timeout=60)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received.decode())


def test_a_run_has_a_bar_and_its_results_below(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    code, text = shown_on_a_terminal(tmp_path, "recipe", "tiny.toml", "--jobs", "1")
    assert code == 0, text
    assert "Traceback" not in text
    assert "tiny: 2 cells, up to 6 jobs and 240 steps to do" in text
    bar = text.rindex("6 jobs  2 cells")
    assert text.index("report: ") > bar


def test_a_refused_run_has_no_bar(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more="searhc = 1"))
    code, text = shown_on_a_terminal(tmp_path, "recipe", "tiny.toml")
    assert code == 2
    assert "searhc" in text
    assert "jobs" not in text


def test_the_display_begins_and_ends_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as shown:
        shown.warning("before [anything] began")
    assert "warning: before [anything] began" in capsys.readouterr().err
