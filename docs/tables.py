"""Writes the README's tables of scalars from what the callbacks declare. `make tables` runs it."""

from __future__ import annotations

import re
from pathlib import Path

import lightning_xai
from lightning_xai.callbacks import Explanation

README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(r"(<!-- scalars of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(callback: type[Explanation]) -> str:
    """A row a scalar: its tag below ``xai/<name>``, and what it means."""
    named = ((re.sub(r"{(\w+)}", r"<\1>", scalar.name), scalar.meaning) for scalar in callback.scalars)
    rows = [f"| `/{name}` | {meaning} |\n" for name, meaning in named]
    return "".join(["| scalar, under `xai/<name>` | what it is |\n", "| --- | --- |\n", *rows])


def written(page: str) -> str:
    """The page with its tables as they are declared now."""
    return TABLE.sub(lambda found: f"{found[1]}{table(getattr(lightning_xai, found[2]))}{found[3]}", page)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
