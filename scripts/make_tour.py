"""Writes docs/tutorials/tour.md from a session in an empty folder with only the wheel installed.

    python scripts/make_tour.py

The steps are those of tests/support/tour.py, which tests/test_tour.py takes as well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.tour import STEPS, install, take  # noqa: E402

PAGE = ROOT / "docs" / "tutorials" / "tour.md"
HEAD = """<!-- Generated: do not edit. Regenerate with `python scripts/make_tour.py`. -->

# A tour

This is a session in an empty folder: a first figure, a study with a component of your own, your \
own arrays, trained weights, two runs compared. Install lotteryfw first, from a clone and in a \
virtual environment, as the [README](../../README.md) says: `pip install -e ".[plots,fast]"`. The \
extra `plots` draws the figures. A test takes the same steps. Progress, which is on stderr, is left \
out.
"""


def main() -> None:
    parts = [HEAD]
    with TemporaryDirectory() as site, TemporaryDirectory() as folder:
        install(Path(site))
        for step in STEPS:
            done = take(step, Path(folder), Path(site))
            if done.returncode:
                sys.exit(f"{step.command}\n{done.stdout}{done.stderr}")
            if step.title:
                parts.append(f"## {step.title}\n")
            parts.append(f"{step.text}\n")
            if step.file is not None:
                name, text = step.file
                parts.append(f'```python title="{name}"\n{text}```\n')
            parts.append(f"```console\n$ {step.command}\n```\n")
            if done.stdout.strip():
                lines = "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())
                parts.append(f"```text\n{lines}\n```\n")
    PAGE.write_text("\n".join(parts).rstrip() + "\n")


if __name__ == "__main__":
    main()
