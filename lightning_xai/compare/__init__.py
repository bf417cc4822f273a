"""Finished and running runs, looked at from outside: side by side on one page, and in a notebook."""

from lightning_xai.compare.comparison import Comparison, gather
from lightning_xai.compare.page import to_page

__all__ = ["Comparison", "gather", "to_page"]
