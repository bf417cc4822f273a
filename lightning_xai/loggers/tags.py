"""The names under which Lightning's loggers keep what they are given."""

from __future__ import annotations

from typing import Any

from lightning_xai.foreign.lightning import prefix_of


def prefixed(logger: Any, tag: str) -> str:
    """The tag as Lightning's logger writes that of a metric, its ``prefix=`` before it."""
    prefix = prefix_of(logger)
    return f"{prefix}{logger.LOGGER_JOIN_CHAR}{tag}" if prefix else tag
