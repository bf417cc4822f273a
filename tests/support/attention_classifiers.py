"""Tiny LightningModules with attention, for images and for texts."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.support.data import CLASSES, SIZE
from tests.support.texts import LENGTH, WORDS


class Model(pl.LightningModule):
    """Trains whatever `forward` returns on (inputs, labels) or a mapping with `labels`."""

    def training_step(self, batch, batch_idx):
        if isinstance(batch, dict):
            output = self(**{key: value for key, value in batch.items() if key != "labels"})
            return nn.functional.cross_entropy(output, batch["labels"])
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)


class ViT(Model):
    """Two encoder layers over 4 x 4 patches of 4 pixels, with a class token or the mean over the patches."""

    def __init__(self, class_token: bool = True, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, 16)) if class_token else None
        self.places = nn.Parameter(0.1 * torch.randn(1, (SIZE // 4) ** 2 + class_token, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).mT
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        x = self.encoder(x + self.places)
        return self.head(x.mean(1) if self.class_token is None else x[:, 0])


class Attending(Model):
    """Convolutions, one attention over the cells, one linear layer: all callbacks apply."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, image):
        cells = self.features(image).flatten(2).mT
        return self.head((cells + self.attention(cells, cells, cells, need_weights=False)[0]).mean(1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Windowed(nn.Module):
    """Attention in windows of an image (N, H, W, C) that is rolled before it is cut, as in Swin."""

    def __init__(self, window: int, shift: int) -> None:
        super().__init__()
        self.window_size, self.shift_size = window, shift
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        side, s = x.shape[1] // self.window_size, self.window_size
        x = x.roll((-self.shift_size, -self.shift_size), (1, 2))
        cut = x.view(len(x), side, s, side, s, 16).transpose(2, 3).reshape(-1, s * s, 16)
        q, k, v = (t[:, None] for t in self.qkv(cut).chunk(3, -1))
        out = nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]
        out = out.view(len(x), side, side, s, s, 16).transpose(2, 3).reshape(x.shape)
        return out.roll((self.shift_size, self.shift_size), (1, 2))


class Swin(Model):
    """Plain and shifted windows of 2 x 2 over 4 x 4 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.plain, self.shifted = Windowed(2, 0), Windowed(2, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).movedim(1, -1)
        for layer in (self.plain, self.shifted):
            x = x + layer(x)
        return self.head(x.mean((1, 2)))


class Reader(Model):
    """An LSTM with additive attention in its own forward; 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(len(WORDS), 8, padding_idx=0), nn.LSTM(8, 8, batch_first=True)
        self.score, self.head = nn.Linear(8, 1), nn.Linear(8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        states = self.lstm(self.embedding(ids))[0]
        weights = self.score(states).masked_fill((ids == 0)[..., None], -torch.inf).softmax(1)
        return self.head((weights * states).sum(1))


class Encoder(Model):
    """As BERT: a mapping with ``attention_mask``, the answer at the first token; or causal, at the last."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.embedding, self.places = nn.Embedding(len(WORDS), 8), nn.Parameter(torch.randn(LENGTH, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        ahead = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1) if self.causal else None
        x = self.embedding(input_ids) + self.places
        x = self.encoder(x, mask=ahead, src_key_padding_mask=attention_mask == 0)
        last = attention_mask.sum(1) - 1 if self.causal else torch.zeros(len(x), dtype=torch.long)
        return self.head(x[torch.arange(len(x)), last])


class Translator(Model):
    """As BART: an encoder, and a causal decoder of the same texts turned round, that reads it at every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(len(WORDS), 8), nn.Parameter(torch.randn(LENGTH, 8))
        self.encoder, self.decoder, self.cross = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x, y = (self.embedding(ids) + self.places for ids in (input_ids, input_ids.flip(1)))
        x = x + self.encoder(x, x, x, key_padding_mask=attention_mask == 0)[0]
        ahead = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        y = y + self.decoder(y, y, y, attn_mask=ahead)[0]
        y = y + self.cross(y, x, x, key_padding_mask=attention_mask == 0)[0]
        return self.head(y[torch.arange(len(y)), attention_mask.sum(1) - 1])
