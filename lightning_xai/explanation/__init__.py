"""What every callback is: the base, and the families that close one of its two methods."""

from lightning_xai.explanation.base import Explanation
from lightning_xai.explanation.features import Features
from lightning_xai.explanation.maps import Maps
from lightning_xai.explanation.values import Values

__all__ = ["Explanation", "Features", "Maps", "Values"]
