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
MICRO_BATCHES = ("fixed", "auto")
LOADERS = ("auto", "resident", "workers")
KEEPS = ("best", "last", "both")
LARGEST_SIDE = 4096  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, and how fast they are had.

    Two runs of one recipe with the same precision, machine and number of threads give the
    same bytes; ``precision="auto"`` is resolved by timing, so it is the record of a run,
    not this, that says what to repeat.

    Attributes:
        model: Ref of the definition; it gives log-probabilities ``(batch, 10)``.
        init: What the weights are before the first step, a version or a file that fits the
            definition strictly; empty for the definition's own, by `seed`.
        dataset: ``auto`` is MNIST where it can be had, else scikit-learn's digits; what is a
            path, see `is_path`, is a folder of images by class or an ``.npz`` file.
        data_dir: Looked into first, in torchvision's layout (``MNIST/raw/…``).
        image_size: Height and width that a folder's images are brought to; 0 for their own.
        epochs: Passes over the training images.
        batch_size: Images of one micro-batch, what memory has to hold.
        accumulate: Micro-batches of one step; their product is the effective batch.
        micro_batch: ``auto`` begins with the effective batch as one micro-batch, and halves
            it whenever memory runs out; ``fixed`` is `batch_size`.
        precision: ``fp16`` scales its loss; ``auto`` times fp32 against the others.
        optimizer: With torch's defaults but for what stands here.
        lr: Learning rate; Adadelta's factor on its own step.
        momentum: Of ``sgd``, Nesterov's; in [0, 1).
        weight_decay: As the optimizer has it.
        schedule: ``step`` once an epoch; ``cosine`` and ``onecycle`` with every step.
        lr_decay: Of ``step``: `lr` is multiplied by it after every epoch, in (0, 1].
        clip: Largest norm of a step's gradient, after unscaling; 0 for any.
        ema: Decay of the average of the weights, which is what is written; 0 for none.
        holdout: Fraction of the training images that are held out of it, and scored after
            every epoch; in [0, 1).
        patience: Epochs without a lower loss on the hold-out that end the run; 0 for any.
        keep: The epoch whose weights are written: ``best`` on the hold-out, without one the
            last; ``last``; or ``both``.
        seed: Of weights, sample order, dropout and hold-out.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        loader: ``resident`` keeps the images on the device, ``workers`` is a DataLoader;
            ``auto`` is the first where they fit, unless there are `num_workers`.
        num_workers: Processes of the DataLoader that gather batches; 0 for this one.
        prefetch_factor: Windows that each of them makes ahead.
        pin_memory: Whether the DataLoader's batches for CUDA are page-locked.
        persistent_workers: Whether its processes live from epoch to epoch.

    Raises:
        UsageError: A value makes no sense; the message has it and what would.
    """

    model: str = "ckpt.models.mnist_cnn:Net"
    init: str = ""
    dataset: str = "auto"
    data_dir: Path | None = None
    image_size: int = 0
    epochs: int = 14
    batch_size: int = 64
    accumulate: int = 1
    micro_batch: str = "fixed"
    precision: str = "auto"
    optimizer: str = "adadelta"
    lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "step"
    lr_decay: float = 0.7
    clip: float = 0.0
    ema: float = 0.0
    holdout: float = 0.0
    patience: int = 0
    keep: str = "best"
    seed: int = 3
    device: str = "auto"
    loader: str = "auto"
    num_workers: int = 0
    prefetch_factor: int = 4
    pin_memory: bool = True
    persistent_workers: bool = True

    def __post_init__(self) -> None:
        if not is_path(self.dataset):
            _one_of("dataset", self.dataset, DATASETS, ", a folder of images or an .npz file")
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("micro_batch", self.micro_batch, MICRO_BATCHES)
        _one_of("loader", self.loader, LOADERS)
        _one_of("keep", self.keep, KEEPS)
        for name in ("epochs", "batch_size", "accumulate", "prefetch_factor"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("num_workers", "patience"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        sensible = 0 <= self.image_size <= LARGEST_SIDE
        _require(sensible, "image_size", self.image_size, f"from 0 to {LARGEST_SIDE:,}")
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a number above 0")
        for name in ("momentum", "ema", "holdout"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("weight_decay", "clip"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, value, "0 or more")
        _require(0 < self.lr_decay <= 1, "lr_decay", self.lr_decay, "above 0, at most 1")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2^63 - 1")
        needs_none = self.patience == 0 and self.keep != "both"
        _require(
            self.holdout or needs_none, "holdout", self.holdout, "above 0 for patience and both"
        )
        _require(
            self.loader != "resident" or not self.num_workers,
            "num_workers", self.num_workers, "0 with the resident loader",
        )  # fmt: skip
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
