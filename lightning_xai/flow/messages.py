"""What a callback tells the user, each thing once a run."""

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
        self._texts: set[str] = set()

    def first_time(self, text: str) -> bool:
        """Whether this is the first time that it is asked of this text."""
        if text in self._texts:
            return False
        self._texts.add(text)
        return True

    def say(self, text: str) -> None:
        """Inform once, on the main process."""
        if self.first_time(text):
            rank_zero_info(f"{self._speaker}: {text}.")

    def caution(self, text: str) -> None:
        """Warn once of a setting that does not fit: no error was raised, but less is shown than was asked for."""
        if self.first_time(text):
            warnings.warn(f"{self._speaker}: {text}", RuntimeWarning, stacklevel=2)

    def warn(self, error: Exception, consequence: str) -> None:
        """Warn once of an error that training survives; its traceback goes to the debug log.

        Args:
            error: the cause, of which there is one warning a run, whatever follows from it.
            consequence: what the user goes without.
        """
        cause = f"{type(error).__name__}: {error}"
        if self.first_time(cause):
            warnings.warn(
                f"{self._speaker}: {consequence}. {cause}\nTraining goes on; said once. on_error='raise' stops here.",
                RuntimeWarning,
                stacklevel=2,
            )
            log.debug("the cause in full", exc_info=error)
