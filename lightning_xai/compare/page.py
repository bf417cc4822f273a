"""One HTML file that holds everything it shows: the comparison as JSON, and the script that draws it."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files

from lightning_xai.compare.comparison import Comparison
from lightning_xai.compare.encode import encode


def to_page(comparison: Comparison) -> str:
    """The page as text."""
    template = files("lightning_xai.compare") / "template"
    data = json.dumps(encode(comparison), allow_nan=False, separators=(",", ":"))
    parts = {
        "<!--title-->": escape(heading(comparison)),
        "/*style*/": (template / "page.css").read_text(encoding="utf-8"),
        "/*script*/": (template / "page.js").read_text(encoding="utf-8"),
        # no class name may end the script element
        "/*data*/": data.replace("<", "\\u003c"),
    }
    text = (template / "page.html").read_text(encoding="utf-8")
    # in one pass: what is put in may hold the marks itself
    return re.sub("|".join(map(re.escape, parts)), lambda mark: parts[mark[0]], text)


def heading(comparison: Comparison) -> str:
    """What the page is called."""
    names = comparison.names
    if len(names) == 1:
        return f"What {names[0]} looks at"
    alike = all(section.same_probe for section in comparison.sections)
    who = f"{len(names)} runs" if len(names) > 3 else " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{who} on {'the same' if alike else 'different'} samples"
