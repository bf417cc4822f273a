"""What a callback tells the user, each thing once."""

from __future__ import annotations

import logging
import warnings

from lightning_xai.flow.namespaces import rank_zero_info

log = logging.getLogger(__name__)


class Messages:
    """Of one callback in one run.

    Args:
        speaker: the callback's class, which every message begins with.
    """

    def __init__(self, speaker: str) -> None:
        self._speaker = speaker
        self._told: set[str] = set()

    def is_new(self, text: str) -> bool:
        """Whether it has not been told yet; from now on it has."""
        if text in self._told:
            return False
        self._told.add(text)
        return True

    def say(self, text: str) -> None:
        """Inform once, on the main process."""
        if self.is_new(text):
            rank_zero_info(f"{self._speaker}: {text}.")

    def caution(self, text: str) -> None:
        """Warn once of what is no error, but harms what is shown."""
        if self.is_new(text):
            warnings.warn(f"{self._speaker}: {text}", RuntimeWarning, stacklevel=2)

    def warn(self, error: Exception, what: str) -> None:
        """Warn once of each cause; its traceback goes to the debug log."""
        cause = f"{type(error).__name__}: {error}"
        if self.is_new(cause):
            warnings.warn(
                f"{self._speaker}: {what}. {cause}\nTraining goes on; said once. on_error='raise' stops here.",
                RuntimeWarning,
                stacklevel=2,
            )
            log.debug("the cause in full", exc_info=error)
