import torch

from tests.support.defaults import other_defaults

__all__ = ["other_defaults"]

torch.set_num_threads(1)
