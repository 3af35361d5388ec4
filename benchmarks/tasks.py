"""What is learned in benchmarks/training.py: data that is on the machine, and models for it."""

import gzip
import importlib
import pydoc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian package dataset-fashion-mnist
Data = tuple[torch.Tensor, torch.Tensor]  # inputs, classes


class Missing(Exception):
    """The data is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Task:
    """A classification problem and how it is trained.

    load: (seed) -> training data, sorted so that a contiguous share of it is unlike the others,
        and test data.
    """

    load: Callable[[int], tuple[Data, Data]]
    make_model: Callable[[], nn.Module]
    epochs: int
    batch: int  # per rank
    lr: float  # of the start; follows a cosine down to a tenth
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD


def digits(seed: int) -> tuple[Data, Data]:
    """1,797 handwritten digits of 8 x 8 pixels (scikit-learn), sorted by label."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return _split(x / 16, y, seed)


def breast_cancer(seed: int) -> tuple[Data, Data]:
    """569 tumours by 30 measures of their cells (scikit-learn), sorted by label."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return _split((x - x.mean(0)) / x.std(0), y, seed)


def fashion_mnist(seed: int) -> tuple[Data, Data]:
    """12,000 of the 60,000 pictures of clothes for training, by label, and the 10,000 for tests."""
    if not FASHION_MNIST.exists():
        raise Missing("apt-get install dataset-fashion-mnist")
    x, y = _idx("train-images-idx3-ubyte.gz"), _idx("train-labels-idx1-ubyte.gz")
    some = np.random.default_rng(seed).permutation(len(y))[:12000]
    test = _idx("t10k-images-idx3-ubyte.gz"), _idx("t10k-labels-idx1-ubyte.gz")
    return _sorted(_image(x[some]), y[some]), (_image(test[0]), torch.tensor(test[1]).long())


def pydoc_text(seed: int) -> tuple[Data, Data]:
    """Characters of the documentation of Python's own modules, to guess the next one of.

    64 characters each, in the order of the text: each rank reads other modules. Every tenth is for
    the test.
    """
    names = ("argparse", "asyncio", "collections", "decimal", "logging", "socket", "subprocess")
    text = "".join(pydoc.plain(pydoc.render_doc(importlib.import_module(n))) for n in names)
    codes = torch.tensor([min(ord(letter), 127) for letter in text])
    length = 64
    rows = codes[: (len(codes) - 1) // length * length].view(-1, length)
    following = codes[1 : rows.numel() + 1].view(-1, length)
    test = torch.arange(len(rows)) % 10 == seed % 10
    return (rows[~test], following[~test]), (rows[test], following[test])


def mlp(*widths: int) -> nn.Module:
    layers = [m for pair in zip(widths, widths[1:]) for m in (nn.Linear(*pair), nn.ReLU())]  # noqa: B905, RUF007
    return nn.Sequential(*layers[:-1])


def lenet() -> nn.Module:
    """LeNet-5 with ReLU and max pooling, for 1 x 28 x 28."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


class CharacterTransformer(nn.Module):
    """Two layers of causal attention over characters; returns (batch, 128, length) logits."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2, length: int = 64) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(128, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        length = codes.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.letters(codes) + self.places(torch.arange(length))
        return self.head(self.body(x, mask=mask, is_causal=True)).transpose(1, 2)


TASKS = {
    "digits": Task(digits, lambda: mlp(64, 128, 64, 10), epochs=30, batch=8, lr=0.2),
    "breast_cancer": Task(breast_cancer, lambda: mlp(30, 32, 2), epochs=20, batch=8, lr=0.1),
    "fashion_mnist": Task(fashion_mnist, lenet, epochs=4, batch=16, lr=0.2),
    "pydoc_text": Task(
        pydoc_text, CharacterTransformer, epochs=2, batch=8, lr=5e-3, optimizer=torch.optim.AdamW
    ),
}


def loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x), y)


@torch.no_grad()
def percent_right(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    right = [(model(xs).argmax(1) == ys).double().mean() for xs, ys in _pieces(x, y)]
    sizes = [len(ys) for _, ys in _pieces(x, y)]
    return 100 * float(np.average(right, weights=sizes))


def _pieces(x: torch.Tensor, y: torch.Tensor) -> list[Data]:
    return list(zip(x.split(1000), y.split(1000), strict=True))


def _split(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[Data, Data]:
    """A quarter is for the test."""
    from sklearn.model_selection import train_test_split

    x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, stratify=y, random_state=seed)
    return _sorted(x, y), (torch.tensor(x_test).float(), torch.tensor(y_test))


def _sorted(x: np.ndarray | torch.Tensor, y: np.ndarray) -> Data:
    order = np.argsort(y, kind="stable")
    return torch.as_tensor(x[order]).float(), torch.tensor(y[order]).long()


def _idx(name: str) -> np.ndarray:
    """Reads a file of the IDX format: a header that ends with the sizes, and bytes."""
    raw = gzip.decompress((FASHION_MNIST / name).read_bytes())
    dims = raw[3]
    shape = np.frombuffer(raw, ">i4", dims, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def _image(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x).float().div(255).unsqueeze(1)
