"""An action's result or its exception, as values: what is explained must not stop what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """The result and None, or None and what was raised. Interrupts are let through."""
    try:
        return action(), None
    except Exception as error:
        return None, error
