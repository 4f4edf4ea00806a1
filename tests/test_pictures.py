"""The pictures of the README: each is there in a light and a dark form, and small."""

from __future__ import annotations

import re

from support.paths import ROOT

LARGEST = 60_000
"""Bytes: the README is read on phones, too."""


def test_every_picture_of_the_readme_is_there_light_and_dark_and_small() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(
        r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(.+?)-dark\.png">\s*'
        r'<img src="(.+?)-light\.png" width="\d+" alt="(.+?)">\s*</picture>',
        text,
    )
    assert len(pictures) == text.count("<img") == 2
    sizes = set()
    for dark, light, description in pictures:
        assert dark == light
        assert len(description) > 20
        for scheme in ("light", "dark"):
            content = (ROOT / f"{light}-{scheme}.png").read_bytes()
            assert content.startswith(b"\x89PNG")
            assert len(content) < LARGEST
            sizes.add(content)
    assert len(sizes) == 4
