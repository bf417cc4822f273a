"""What the log was told."""

import pytest


def lines_with(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """The lines that hold this text."""
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """How often a line of the log holds this text."""
    return len(lines_with(caplog, text))
