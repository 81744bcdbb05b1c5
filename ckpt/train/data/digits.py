"""The embedded dataset: scikit-learn's handwritten digits, which need no network.

1,797 scans of 8x8 pixels with values 0 to 16: the test part of UCI's "Optical Recognition
of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998), as `sklearn.datasets.load_digits`.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ckpt.train.data.dataset import Dataset, Wanted
from ckpt.train.data.normalisation import mean_and_std
from ckpt.train.data.samples import Samples, every_fifth


def read(wanted: Wanted) -> Dataset:
    """Read the digits from scikit-learn's package.

    Every fifth scan from the first on is a test image: 360 of them, 1,437 to train on. Both parts
    have scans of the same writers, so the score means less than MNIST's.
    """
    from sklearn.datasets import load_digits

    scans, targets = load_digits(return_X_y=True)
    images = enlarge(torch.from_numpy(scans).float().view(-1, 8, 8))  # (1797, 1, 28, 28) uint8
    labels = torch.from_numpy(targets).to(torch.uint8)  # (1797,)
    train, test = every_fifth(Samples(images, labels))
    mean, std = mean_and_std(train[:][0])
    return Dataset(
        name=wanted.name,
        title="digits",
        found="scikit-learn",
        where="scikit-learn",
        train=train,
        test=test,
        classes=10,
        mean=mean,
        std=std,
        test_from="every fifth",
    )


def enlarge(scans: Tensor) -> Tensor:
    """Enlarge ``(n, 8, 8)`` values 0 to 16 to ``(n, 1, 28, 28)`` uint8 with MNIST's layout.

    Bilinear to 20x20 with half-pixel centres (``align_corners=False``), values times
    255/16 and rounded to even, and a border of 4 zeros, as in MNIST, whose digits fill
    20x20 in the middle of 28x28.
    """
    larger = interpolate(scans[:, None], size=(20, 20), mode="bilinear", align_corners=False)
    grey = (larger * (255 / 16)).round().clamp(0, 255).to(torch.uint8)  # (n, 1, 20, 20)
    return pad(grey, (4, 4, 4, 4))
