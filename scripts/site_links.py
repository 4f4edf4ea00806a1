"""A hook of mkdocs: links that lead out of docs/ become plain text on the site, which has no such files.

On GitHub the same links open the code. mkdocs still checks all other links, and tests/test_docs.py checks these.
"""

from __future__ import annotations

import os
import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page's text as the site has it. mkdocs calls this for each page."""
    folder = os.path.dirname(page.file.src_uri)

    def shown(link: re.Match[str]) -> str:
        text, target = link.groups()
        is_outside = os.path.normpath(os.path.join(folder, target)).startswith("..")
        if not is_outside:
            return link[0]
        return text if "`" in text else f"`{text}`"

    return _LINK.sub(shown, markdown)
