"""``lightning-xai``: runs side by side on one page, and one reading of a finished model."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lightning_xai.stored_run import StoredRun, read_run

EPILOG = """examples:
  lightning-xai compare runs/shortcut/correlation-1.0 runs/shortcut/correlation-0.5
  lightning-xai report runs/shortcut/correlation-1.0 --out report.html
  lightning-xai explain last.ckpt --model my_project.models:Classifier --probe probe.pt --out explained

A RUN is a folder that a Trainer with a lightning_xai callback wrote, or one above it: the logger's
folder of one version, for example. The pages hold all they show: they open from disk and can be sent.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for what the user has to set right."""
    options = parser().parse_args(arguments)
    # as `python -m` does: classes of the user's project are named from where they stand
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        options.command(options)
    except (OSError, ValueError) as error:
        print(f"lightning-xai: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    top = argparse.ArgumentParser(
        prog="lightning-xai", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    compare = commands.add_parser("compare", help="several runs on one page, one slider moving all of them")
    compare.add_argument(
        "runs", nargs="+", metavar="RUN", type=Path, help="folder of a run; agreement is with the first"
    )
    compare.add_argument("--out", type=Path, default=Path("compare.html"), help="the page (default: %(default)s)")
    compare.set_defaults(command=_compare)

    report = commands.add_parser("report", help="one run on a page")
    report.add_argument("runs", nargs=1, metavar="RUN", type=Path, help="folder of a run")
    report.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: %(default)s)")
    report.set_defaults(command=_compare)

    explain = commands.add_parser("explain", help="Grad-CAM of a finished model, as pictures")
    explain.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="written by a Trainer")
    explain.add_argument("--model", required=True, metavar="MODULE:CLASS", help="the LightningModule it was made of")
    explain.add_argument("--probe", required=True, type=Path, metavar="FILE", help="written by Probe(...).save(FILE)")
    explain.add_argument(
        "--layers", nargs="+", metavar="NAME", help="names or patterns (default: the last spatial one)"
    )
    explain.add_argument("--variant", default="grad_cam", help="of Grad-CAM, as layer_cam (default: %(default)s)")
    explain.add_argument("--out", type=Path, default=Path("explained"), metavar="FOLDER", help="(default: %(default)s)")
    explain.set_defaults(command=_explain)
    return top


def _compare(options: argparse.Namespace) -> None:
    from lightning_xai.compare import gather, to_page  # Lightning and matplotlib, which --help does not need

    runs: list[StoredRun] = []
    refused: list[str] = []
    for path in options.runs:
        try:
            runs.append(_open(path))
        except ValueError as error:
            refused.append(f"nothing of {path}: {error}")
    if not runs:
        raise ValueError("\n".join(refused))
    comparison = gather(runs)
    comparison = replace(comparison, notes=[*refused, *comparison.notes])
    text = to_page(comparison)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    for section in comparison.sections:
        for run, why in section.missing.items():
            print(f"{section.name}: nothing of {run}: {why}")
        if not section.same_probe:
            print(f"{section.name}: the runs explained different samples, which are shown unpaired")
    for note in comparison.notes:
        print(note)
    print(f"{options.out}: {len(text.encode()) / 2**20:.1f} MiB, opens in any browser")


def _open(path: Path) -> StoredRun:
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}: name the folder of a run")
    try:
        return read_run(path)
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:  # a foreign or damaged folder raises anything
        cause = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} was not written by lightning_xai, or is damaged. {cause}") from error


def _explain(options: argparse.Namespace) -> None:
    from lightning_xai.compare.explain import explain
    from lightning_xai.loggers import Files, log_report
    from lightning_xai.probe import Probe

    if not options.checkpoint.is_file():
        raise FileNotFoundError(f"there is no checkpoint {options.checkpoint}")
    probe = Probe.load(options.probe)
    with _quiet("pytorch_lightning", "lightning.pytorch"):
        report = explain(options.checkpoint, options.model, probe, layers=options.layers, variant=options.variant)
    log_report(Files(options.out), report, report.epoch)
    for tag, value in report.scalars.items():
        print(f"{tag:50} {value:.4g}")
    print(f"pictures of epoch {report.epoch}: {options.out / 'pictures'}")


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """No information from these loggers inside: the devices that Lightning finds are not what was asked for."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
