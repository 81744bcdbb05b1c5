"""The recipe: what a training run is asked to do. Importable without torch."""

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ckpt.errors import UsageError

DATASETS = ("auto", "mnist", "fashion-mnist", "kmnist", "digits")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OPTIMIZERS = ("adadelta", "sgd", "adam", "adamw")
SCHEDULES = ("step", "cosine", "onecycle", "constant")
LARGEST_SIDE = 4096  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, and how fast they are had.

    Two runs of one recipe with the same precision, machine and number of threads give the
    same bytes; ``precision="auto"`` is resolved by timing, so it is the record of a run,
    not this, that says what to repeat.

    Attributes:
        model: Ref of the definition; it gives log-probabilities ``(batch, 10)``.
        dataset: ``auto`` is MNIST where it can be had, else scikit-learn's digits; what is a
            path, see `is_path`, is a folder of images by class or an ``.npz`` file.
        data_dir: Looked into first, in torchvision's layout (``MNIST/raw/…``).
        image_size: Height and width that a folder's images are brought to; 0 for their own.
        epochs: Passes over the training images.
        batch_size: Images of one micro-batch, what memory has to hold.
        accumulate: Micro-batches of one step; their product is the effective batch.
        precision: ``fp16`` scales its loss; ``auto`` times fp32 against the others.
        optimizer: With torch's defaults but for what stands here.
        lr: Learning rate; Adadelta's factor on its own step.
        momentum: Of ``sgd``, Nesterov's; in [0, 1).
        weight_decay: As the optimizer has it.
        schedule: ``step`` once an epoch; ``cosine`` and ``onecycle`` with every step.
        lr_decay: Of ``step``: `lr` is multiplied by it after every epoch, in (0, 1].
        clip: Largest norm of a step's gradient, after unscaling; 0 for any.
        ema: Decay of the average of the weights, which is what is written; 0 for none.
        seed: Of weights, sample order and dropout.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        num_workers: Processes that gather batches; 0 keeps the images on the device.

    Raises:
        UsageError: A value makes no sense; the message has it and what would.
    """

    model: str = "ckpt.models.mnist_cnn:Net"
    dataset: str = "auto"
    data_dir: Path | None = None
    image_size: int = 0
    epochs: int = 14
    batch_size: int = 64
    accumulate: int = 1
    precision: str = "auto"
    optimizer: str = "adadelta"
    lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "step"
    lr_decay: float = 0.7
    clip: float = 0.0
    ema: float = 0.0
    seed: int = 3
    device: str = "auto"
    num_workers: int = 0

    def __post_init__(self) -> None:
        if not is_path(self.dataset):
            _one_of("dataset", self.dataset, DATASETS, ", a folder of images or an .npz file")
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        for name in ("epochs", "batch_size", "accumulate"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.num_workers >= 0, "num_workers", self.num_workers, "0 or more")
        sensible = 0 <= self.image_size <= LARGEST_SIDE
        _require(sensible, "image_size", self.image_size, f"from 0 to {LARGEST_SIDE:,}")
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a number above 0")
        for name in ("momentum", "ema"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("weight_decay", "clip"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, value, "0 or more")
        _require(0 < self.lr_decay <= 1, "lr_decay", self.lr_decay, "above 0, at most 1")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2^63 - 1")
        known = re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device) is not None
        _require(known, "device", self.device, "auto, cpu, cuda or cuda:N")

    @property
    def effective_batch(self) -> int:
        """Images of one whole step."""
        return self.batch_size * self.accumulate


def is_path(dataset: str) -> bool:
    """Whether a recipe's dataset is a path: it has a separator, ends in .npz, or is a folder.

    The names in `DATASETS` are none; ``./mnist`` is the folder.
    """
    if dataset in DATASETS or not dataset:
        return False
    separated = "/" in dataset or os.sep in dataset
    return separated or dataset.lower().endswith(".npz") or Path(dataset).is_dir()


def _require(holds: object, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name.replace('_', '-')} is {value}, expected {expected}")


def _one_of(name: str, value: str, known: Collection[str], other: str = "") -> None:
    if value not in known:
        near = get_close_matches(value, known, n=1)
        hint = f"did you mean {near[0]}" if near else None
        raise UsageError(f"{name} is {value}, expected one of {', '.join(known)}{other}", hint=hint)
