"""`--check-skips` fails a run in which a test skips for a reason that tests/conftest.py does not list."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
MARKERS = "[pytest]\nmarkers =\n    real_data\n"


@pytest.mark.parametrize(
    ("test", "status"),
    [
        ('@pytest.mark.real_data("MNIST")\ndef test_it():\n    raise AssertionError', 0),
        ('def test_it():\n    pytest.skip("no GPU here")', 0),
        ('def test_it():\n    pytest.importorskip("absent_module")', 1),
        ('pytest.importorskip("absent_module")\ndef test_it():\n    pass', 1),
    ],
    ids=["data", "gpu", "package", "module"],
)
def test_a_skip_that_is_not_listed_fails_the_run(tmp_path: Path, test: str, status: int) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "pytest.ini").write_text(MARKERS)
    (tmp_path / "test_one.py").write_text(f"import pytest\n\n{test}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--check-skips", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "LOTTERYFW_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    is_reported = (
        "test_one.py:" in done.stdout and "that --check-skips does not allow" in done.stdout
    )
    assert is_reported == (status != 0)
