import logging
from collections.abc import Iterator

import pytest
import torch

from tests.support.defaults import other_defaults
from tests.support.namespaces import NAMESPACES

__all__ = ["other_defaults"]

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """What a program may silence for good, a test silences for itself alone."""
    levels, disabled = {name: logging.getLogger(name).level for name in NAMESPACES}, logging.root.manager.disable
    yield
    logging.disable(disabled)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
