"""The concept effects of several runs in one picture, one panel a run.

    python examples/side_by_side.py runs/shortcut/correlation-*

Each FOLDER is a run with a TCAV callback. Nothing is measured again: what a run found lies beside its checkpoints.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image

from lightning_xai import load_run
from lightning_xai.render import draw
from lightning_xai.report import Curve, Curves


def effects(folder: Path) -> Curves:
    """The first layer's curves."""
    try:
        readings = load_run(folder).readings.get("tcav")
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from error
    if not readings:
        raise SystemExit(f"{folder} holds no reading of a TCAV callback")
    pictures = readings[-1].report().pictures.values()
    return next(picture for picture in pictures if isinstance(picture, Curves))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=Path("effects.png"))
    args = parser.parse_args()

    found = {folder: effects(folder) for folder in args.folders}
    longest = max(found.values(), key=lambda curves: len(curves.x))
    panels: dict[str, list[Curve]] = {}
    for folder, curves in found.items():
        if list(curves.x) != list(longest.x):
            raise SystemExit(f"{folder} was read at other epochs than the longest run: compare runs of one length")
        for title, lines in curves.panels.items():
            panels[f"{folder.name}, {title}"] = list(lines)
    picture = replace(longest, panels=panels)
    Image.fromarray(draw(picture).numpy()).save(args.output)
    print(args.output)


if __name__ == "__main__":
    main()
