"""Small images with labels, and their loader."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CLASSES = 4
SIZE = 16


class Samples(Dataset):
    """Images with a bright row that tells the class, as (image, label), as an image alone or as a mapping.

    Args:
        count: how many.
        kind: ``"tuple"``, ``"tensor"`` or ``"mapping"``: what one sample is.
        seed: of the images and labels.
        classes: names of the classes, kept in ``.classes`` as image folders do.
    """

    def __init__(self, count: int = 12, kind: str = "tuple", seed: int = 0, classes: list[str] | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.kind = kind
        self.labels = torch.randint(0, CLASSES, (count,), generator=generator)
        self.images = torch.randn(count, 3, SIZE, SIZE, generator=generator)
        self.images[torch.arange(count), 0, self.labels * SIZE // CLASSES, :] += 4
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | Tensor | dict[str, Tensor]:
        image, label = self.images[index], self.labels[index]
        if self.kind == "tensor":
            return image
        return {"image": image, "label": label} if self.kind == "mapping" else (image, label)


def loader(count: int = 12, kind: str = "tuple", seed: int = 0, batch_size: int = 4, **settings) -> DataLoader:
    return DataLoader(Samples(count, kind, seed), batch_size, **settings)
