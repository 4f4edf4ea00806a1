"""A folder with a small recipe, in which commands run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import QUICK


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(QUICK.format(length="40it", more=""))
    return tmp_path
