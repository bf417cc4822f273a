"""The promises of every explanation, as checks that any callback can be put to: `check_explanation`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from lightning_xai.explanation import Explanation
from lightning_xai.testing.assertions import Promise
from lightning_xai.testing.project import Project, attention, classification
from lightning_xai.testing.promises import PROMISES, SLOW

__all__ = ["PROMISES", "SLOW", "Project", "Promise", "attention", "check_explanation", "classification"]


def check_explanation(
    make: Callable[..., Explanation], project: Project | None = None, promises: Iterable[str] | None = None
) -> None:
    """Put a callback to the promises that every explanation makes.

    Args:
        make: makes the callback, from settings of `Explanation` that it hands on: the class itself, or a partial of
            it. It is called many times.
        project: what is trained meanwhile; by default `classification`, a small convolutional network.
        promises: names out of `PROMISES` and `SLOW`; by default all of `PROMISES`.

    Raises:
        ValueError: a promise of that name does not exist.
        AssertionError: the first promise that is broken, by its name, and what was seen.

    Example:
        >>> from lightning_xai import Saliency
        >>> check_explanation(Saliency, promises=["pickles"])
    """
    every = {**PROMISES, **SLOW}
    names = list(PROMISES if promises is None else promises)
    if unknown := [name for name in names if name not in every]:
        raise ValueError(f"there is no promise {unknown[0]!r}: the promises are {', '.join(every)}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                every[name](make, project or classification(), Path(folder))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
