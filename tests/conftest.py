"""Settings of every test, and skips for what a bare machine may lack."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lotteryfw.cli import components, init, machine, reports, runs, stores, studies  # noqa: F401  # importing them adds their commands to the app

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 2,000 images, some of them grey and some damaged. Do not write to it."""
    from support.picture_folder import write_pictures

    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root)
    return root


ALLOWED_SKIPS = {
    "a data set": r"no \S+ in the data folder|is not there: |there is no folder",
    "a browser": r"no Chromium here",
    "a notebook's kernel": r"nbclient or ipykernel is not installed",
    "time and memory": r"LOTTERYFW_TEST_LARGE",
    "Slurm": r"\b(Slurm|sbatch)\b",
    "a compiler": r"no C\+\+ compiler here",
    "a GPU": r"\b(GPU|CUDA)\b",
    "the right to mount": r"mounting .* is not allowed here",
}
"""What a bare machine may lack: the reason of a test that skips for it matches the expression."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--check-skips",
        action="store_true",
        help=f"fail if a test skips for want of anything but {', '.join(ALLOWED_SKIPS)}",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `real_data("FOLDER")` without that folder, and `large` ones unless wanted."""
    for marker in item.iter_markers("real_data"):
        from lotteryfw.runner import default_data_folder

        (part,) = marker.args
        if not (default_data_folder() / part).is_dir():
            pytest.skip(f"no {part} in the data folder: name one that has it in LOTTERYFW_DATA")
    if item.get_closest_marker("large") and not os.environ.get("LOTTERYFW_TEST_LARGE"):
        pytest.skip("takes long or much memory: set LOTTERYFW_TEST_LARGE to run it")


def pytest_sessionfinish(session: pytest.Session) -> None:
    # a worker of pytest-xdist sends its reports to the main process, which judges them
    is_worker = hasattr(session.config, "workerinput")
    if not is_worker and any(unexpected_skips(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in unexpected_skips(terminalreporter.config):
        terminalreporter.write_line(f"a skip that --check-skips does not allow: {line}", red=True)


def unexpected_skips(config: pytest.Config) -> Iterator[str]:
    """Yield place and reason of each skip that `--check-skips` does not allow."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("--check-skips"):
        return
    for report in reporter.stats.get("skipped", []):
        path, line, reason = report.longrepr
        if not any(re.search(pattern, reason) for pattern in ALLOWED_SKIPS.values()):
            yield f"{path}:{line}: {reason}"
