"""Signals end a command cleanly, whatever it is doing: one line, exit code 130, no traceback, nothing lost."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import QUICK, command, environment

SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"]
AT_IMPORT = """
import os, signal, sys

class Strike:
    "Sends this process a signal when a module is imported for the first time."
    def find_spec(self, name, path=None, target=None):
        if name == "{module}" and not done:
            done.append(name)
            os.kill(os.getpid(), signal.{name})

done = []
sys.meta_path.insert(0, Strike())
from lotteryfw.cli import main
main()
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    return tmp_path


def struck(here: Path, name: str, module: str) -> subprocess.CompletedProcess[str]:
    script = AT_IMPORT.format(name=name, module=module)
    words = [sys.executable, "-c", script, "recipe", "tiny.toml", "--jobs", "1"]
    return subprocess.run(words, cwd=here, env=environment(here), capture_output=True, text=True)


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("module", ["typer", "pluggy"])
def test_while_importing(here: Path, name: str, module: str) -> None:
    done = struck(here, name, module)
    assert (done.returncode, done.stderr, done.stdout) == (130, "stopped\n", "")


@pytest.mark.parametrize("name", SIGNALS)
def test_while_the_report_is_written(here: Path, name: str) -> None:
    done = struck(here, name, "matplotlib")
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    (folder,) = (here / "runs").iterdir()
    last = done.stderr.splitlines()[-1]
    assert (
        last
        == f"stopped; the run is complete; its report is not: lotteryfw report runs/{folder.name}"
    )


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("SIGTERM", "2"),
        ("SIGHUP", "1"),
        ("SIGUSR1", "1"),
        pytest.param("SIGUSR1", "2", marks=pytest.mark.large),
    ],
)
def test_while_training_a_checkpoint_is_written(here: Path, name: str, jobs: str) -> None:
    (here / "tiny.toml").write_text(QUICK.format(length="100000it", more=""))
    with subprocess.Popen(
        command("recipe", "tiny.toml", "--jobs", jobs), cwd=here, env=environment(here), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        wait_for_training(here)
        for _ in range(2):  # schedulers repeat themselves
            process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "stopped; the same command goes on from here"
    assert err.count("run the same command again") == 1
    assert list((here / "store" / "scratch").rglob("state.json"))
    assert not out.strip()


def test_a_terminal_that_closes_is_written_to_no_more(here: Path) -> None:
    (here / "tiny.toml").write_text(QUICK.format(length="100000it", more=""))
    master, slave = pty.openpty()
    with subprocess.Popen(
        command("recipe", "tiny.toml", "--jobs", "1"), cwd=here, env=environment(here), stdin=slave, stdout=slave,
        stderr=slave, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        wait_for_training(here, master)
        process.send_signal(signal.SIGHUP)
        os.close(master)
        assert process.wait(timeout=60) == 130
    assert list((here / "store" / "scratch").rglob("state.json"))


def wait_for_training(here: Path, terminal: int | None = None) -> None:
    deadline = time.monotonic() + 60
    while not list((here / "store" / "locks").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    if terminal is not None:
        os.read(terminal, 1 << 16)


def test_nohup_is_respected(here: Path) -> None:
    script = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + AT_IMPORT
    words = [
        sys.executable,
        "-c",
        script.format(name="SIGHUP", module="typer"),
        "recipe",
        "tiny.toml",
        "--jobs",
        "1",
    ]
    done = subprocess.run(words, cwd=here, env=environment(here), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
