"""Small nets, one for each shape of model that the functions have to read."""

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Convolutions whose ReLUs may write in place, global average pooling, one linear layer."""

    def __init__(self, inplace: bool = False, dimensions: int = 2, classes: int = 5) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.first = conv(3, 6, 3, stride=2)
        self.act = nn.ReLU(inplace)
        self.last = conv(6, 8, 3)
        self.act2 = nn.ReLU(inplace)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.last(self.act(self.first(x))))
        return self.head(x.flatten(2).mean(2))


class Deep(nn.Module):
    """A convolution, then a head that is not affine."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.target = nn.Conv2d(6, 7, 3)
        self.tail = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(7, 4, 3), nn.Dropout(0.5), nn.GELU(), nn.Flatten())
        self.head = nn.LazyLinear(classes)
        self.head(self.tail(self.target(self.stem(torch.zeros(2, 3, 12, 12)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tail(self.target(self.stem(x))))


class Block(nn.Module):
    """A residual block as torchvision writes it: one in-place ReLU, called twice."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.layer1 = Block(8, 8, 1)
        self.layer2 = nn.Sequential(Block(8, 12, 2), Block(12, 12, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.layer2(self.layer1(self.stem(x)))).flatten(1))


class ChannelsLast(nn.Module):
    """(N, H, W, C) inside, as Swin in torchvision."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.block = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        x = x + self.block(x)
        return self.head(self.norm(x).mean((1, 2)))


class ViTBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, `prefix` extra tokens; reads the first token, or the mean of the patches."""

    def __init__(self, prefix: int = 1, pool: str = "token", width: int = 12, classes: int = 5) -> None:
        super().__init__()
        self.prefix, self.pool = prefix, pool
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.tokens = nn.Parameter(torch.randn(1, prefix, width))
        self.blocks = nn.Sequential(ViTBlock(width), ViTBlock(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0] if self.pool == "token" else x[:, self.prefix :].mean(1))


class Text(nn.Module):
    """(N, L) token indices; reads the mean or the first token."""

    def __init__(self, first: bool = False, classes: int = 3) -> None:
        super().__init__()
        self.first = first
        self.embed = nn.Embedding(20, 8)
        self.blocks = nn.Sequential(ViTBlock(8), ViTBlock(8))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embed(x)))
        return self.head(x[:, 0] if self.first else x.mean(1))
