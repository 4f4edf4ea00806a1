"""Makes the pictures at the head of the README from a run of the quickstart, light and dark.

    lotteryfw recipe recipes/quickstart.toml --out runs/quickstart
    python scripts/make_pictures.py runs/quickstart

It writes docs/pictures/: `figure` is the report's first chart, `report` its claims and one row of
masks. It needs playwright and a Chromium (see CONTRIBUTING), and Pillow, which comes with
matplotlib.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 1000
GAP = 20
COLOURS = 96
"""Enough for curves, bands and letters; a picture takes a third of its size in full colour."""


def picture(page: Page, selector: str) -> Image.Image:
    """Return what the first element of a selector looks like."""
    content = page.locator(selector).first.screenshot(animations="disabled")
    return Image.open(io.BytesIO(content)).convert("RGB")


def below_each_other(pictures: list[Image.Image], background: tuple[int, int, int]) -> Image.Image:
    """Return pictures in one column."""
    height = sum(part.height for part in pictures) + GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (max(part.width for part in pictures), height), background)
    top = 0
    for part in pictures:
        whole.paste(part, (0, top))
        top += part.height + GAP
    return whole


def pictures_of(browser: Any, report: Path, scheme: str) -> dict[str, Image.Image]:
    """Return the pictures of a report in a colour scheme."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    page.wait_for_selector(".chart:last-of-type .legend")
    # buttons and the list of views are of no use in a picture
    page.add_style_tag(content=".save, select, .chart > .note { display: none !important; }")
    page.wait_for_timeout(500)
    claims = picture(page, "#claims")
    parts = [claims, picture(page, ".masks")]
    made = {
        "figure": picture(page, ".chart"),
        "report": below_each_other(parts, claims.getpixel((0, 0))),
    }
    context.close()
    return made


def main() -> None:
    """Write the pictures of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a run of the quickstart")
    report = parser.parse_args().run / "report.html"
    named = os.environ.get("LOTTERYFW_CHROMIUM")
    chromium = named or shutil.which("chromium") or shutil.which("google-chrome")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        # Chromium's own sandbox refuses to work for root
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = play.chromium.launch(executable_path=chromium, args=arguments)
        for scheme in ("light", "dark"):
            for name, image in pictures_of(browser, report, scheme).items():
                path = FOLDER / f"{name}-{scheme}.png"
                image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
                print(f"{path}: {path.stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    main()
