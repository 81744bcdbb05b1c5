"""The recipe: all settings of a training run. Importable without torch.

The fields of `Recipe` are the one place where a setting is written: its default, its help and the
values that it allows. The options of `ckpt train`, the checks here and the table in
docs/recipes.md are derived from them.
"""

import ast
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

from ckpt.errors import UsageError

DATASETS = ("auto", "mnist", "fashion-mnist", "kmnist", "digits")
OPTIMIZERS = ("adadelta", "sgd", "adam", "adamw")
CHANGEABLE = ("data_dir", "device", "epochs")  # of a run that is resumed


@dataclass(frozen=True, slots=True)
class Allowed:
    """The values that a setting allows; `words` follow "expected".

    `choices` are all of them, if they can be listed.
    """

    contains: Callable[[Any], bool]
    words: str
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> None:
        """Refuse a value that is not allowed.

        Raises:
            UsageError: With the value and the allowed ones, and a choice that is spelled alike.
        """
        if not self.contains(value):
            near = get_close_matches(str(value), self.choices, n=1)
            raise UsageError(
                f"{option_name(name)} is {value}, expected {self.words}",
                hint=f"did you mean {near[0]}" if near else None,
            )


def one_of(*choices: str) -> Allowed:
    """Allow the values in a list."""
    return Allowed(choices.__contains__, f"one of {', '.join(choices)}", choices)


def is_path(dataset: str) -> bool:
    """Whether a recipe's dataset is a path: it has a separator, ends in .npz, or is a folder.

    The names in `DATASETS` are not paths; ``./mnist`` is the folder.
    """
    if dataset in DATASETS or not dataset:
        return False
    separated = "/" in dataset or os.sep in dataset
    return separated or dataset.lower().endswith(".npz") or Path(dataset).is_dir()


def calls_of(text: str) -> list[tuple[str, list[Any], dict[str, Any]]] | None:
    """Read ``RandomRotation(10),RandomErasing(p=0.2)``: names, arguments, keyword arguments.

    Nothing is evaluated but literals.

    Returns:
        None if it is anything else.
    """
    try:
        parsed = ast.parse(f"({text},)", mode="eval").body
        return [_call_of(each) for each in parsed.elts] if isinstance(parsed, ast.Tuple) else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _call_of(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("not a call of a name")
    named = {each.arg: ast.literal_eval(each.value) for each in node.keywords}
    if None in named:
        raise ValueError("a mapping")
    return (
        node.func.id,
        [ast.literal_eval(each) for each in node.args],
        {str(name): value for name, value in named.items()},
    )


_ANY = Allowed(lambda _: True, "anything")
_ONE_OR_MORE = Allowed(lambda value: value >= 1, "at least 1")
_ZERO_OR_MORE = Allowed(lambda value: 0 <= value < inf, "0 or more")
_POSITIVE = Allowed(lambda value: 0 < value < inf, "a number above 0")
_BELOW_ONE = Allowed(lambda value: 0 <= value < 1, "from 0 to below 1")
_DECAY = Allowed(lambda value: 0 < value <= 1, "above 0, at most 1")
_SEED = Allowed(lambda value: 0 <= value < 2**63, "from 0 to 2^63 - 1")
_SIDE = Allowed(lambda value: 0 <= value <= 4096, "from 0 to 4,096")
_DEVICE = Allowed(
    lambda value: re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None,
    "auto, cpu, cuda or cuda:N",
)
_AUGMENT = Allowed(
    lambda value: not value or calls_of(value) is not None,
    "transforms with literal arguments, e.g. RandomRotation(10),RandomErasing(p=0.2)",
)
_DATASET = Allowed(
    lambda value: value in DATASETS or is_path(value),
    f"one of {', '.join(DATASETS)}, a folder of images or an .npz file",
    DATASETS,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of `Recipe`, as options, checks and documentation need it.

    `type` is ``str``, ``int``, ``float``, ``bool`` or ``Path``; `unit` is the placeholder in its
    option's help, e.g. ``PIXELS``, by default the type's name.
    """

    name: str
    default: Any
    type: type
    help: str
    allowed: Allowed
    unit: str


def settings() -> tuple[Setting, ...]:
    """The settings of a recipe, in the order of `Recipe`."""
    return tuple(
        # ``Path | None`` is the one type that is not a class.
        Setting(it.name, it.default, it.type if isinstance(it.type, type) else Path, **it.metadata)
        for it in fields(Recipe)
    )


def option_name(name: str) -> str:
    """The name of a setting's option: ``batch-size`` for ``batch_size``."""
    return name.replace("_", "-")


def expect_changeable(names: Iterable[str], state_file: str) -> None:
    """Refuse to change settings of a resumed run, but for a few.

    Raises:
        UsageError: One that the run keeps from its state file.
    """
    for name in names:
        if name not in CHANGEABLE:
            raise kept(option_name(name), state_file)


def kept(option: str, state_file: str) -> UsageError:
    """The error about an option that a resumed run keeps from its state file."""
    others = ", ".join(f"--{option_name(name)}" for name in CHANGEABLE)
    return UsageError(
        f"--{option} cannot be used with --resume, which takes the recipe of {state_file}",
        hint=f"a resumed run takes other values for {others} and --save-every",
    )


def _setting(default: Any, help: str, allowed: Allowed = _ANY, unit: str = "") -> Any:
    return field(default=default, metadata={"help": help, "allowed": allowed, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings that determine the weights and the training speed.

    Two runs of one recipe with the same precision, machine and number of threads give the
    same bytes. ``precision="auto"`` is resolved by timing, so to repeat a run take the recipe in
    its record, which has the precision that was chosen.

    Raises:
        UsageError: A value is not allowed; the message has it and the allowed ones.
    """

    model: str = _setting(
        "ckpt.models.mnist_cnn:Net",
        "Model definition, FILE.py:CLASS or MODULE:CLASS, e.g. torchvision.models:resnet18.",
        unit="DEFINITION",
    )
    loss: str = _setting(
        "auto",
        "Loss of the model's output: nll of log-probabilities, cross-entropy of logits, bce or "
        "mse of one score a class; auto looks at the output.",
        one_of("auto", "nll", "cross-entropy", "bce", "mse"),
    )
    label_smoothing: float = _setting(
        0.0,
        "Train on labels that give this part of their probability to all classes alike, with nll "
        "and cross-entropy; scores are of the labels as they are.",
        _BELOW_ONE,
        "FRACTION",
    )
    init: str = _setting(
        "",
        "Start from the weights of a version or a file (fine-tuning) instead of random weights.",
        unit="REF",
    )
    dataset: str = _setting(
        "auto",
        f"{', '.join(DATASETS)}; auto is MNIST if it is here or can be downloaded, else "
        "scikit-learn's digits. Or FOLDER/CLASS/*.png, optionally in train and test folders; or "
        "an .npz file with x_train, y_train, x_test and y_test.",
        _DATASET,
        "NAME|FOLDER|FILE.npz",
    )
    data_dir: Path | None = _setting(  # noqa: RUF009
        None,
        "Folder to search first, in torchvision's layout (MNIST/raw/…); then CKPT_DATA and the "
        "cache.",
        unit="FOLDER",
    )
    image_size: int = _setting(
        0,
        "Resize and crop a folder's images to this height and width; 0 keeps theirs.",
        _SIDE,
        "PIXELS",
    )
    augment: str = _setting(
        "",
        "Change training images at random, by names of torchvision.transforms.v2 with literal "
        "arguments, in this order: 'RandomRotation(10),RandomErasing(p=0.2)'.",
        _AUGMENT,
        "TRANSFORMS",
    )
    epochs: int = _setting(14, "Passes over the training images.", _ONE_OR_MORE)
    batch_size: int = _setting(
        64, "Images in one micro-batch, which must fit into memory.", _ONE_OR_MORE, "IMAGES"
    )
    accumulate: int = _setting(
        1,
        "Micro-batches per optimizer step; times --batch-size, the effective batch.",
        _ONE_OR_MORE,
    )
    micro_batch: str = _setting(
        "fixed",
        "auto starts with the whole effective batch, or as much of it as fits into the memory that "
        "is left, and halves it whenever memory runs out; fixed is --batch-size.",
        one_of("fixed", "auto"),
    )
    gradient_checkpointing: bool = _setting(
        False,
        "Keep only the inputs of a model's blocks for the backward pass, and compute the rest "
        "again there: less memory, more time, the same gradient.",
    )
    precision: str = _setting(
        "auto",
        "Precision of the forward pass; fp16 scales the loss, auto times a few steps of each and "
        "prints its choice.",
        one_of("auto", "fp32", "bf16", "fp16"),
    )
    optimizer: str = _setting("adadelta", "Optimizer, with torch's defaults.", one_of(*OPTIMIZERS))
    lr: float = _setting(1.0, "Learning rate.", _POSITIVE)
    momentum: float = _setting(0.9, "Nesterov momentum of sgd.", _BELOW_ONE)
    weight_decay: float = _setting(0.0, "Weight decay of the optimizer.", _ZERO_OR_MORE)
    decay_on: str = _setting(
        "all",
        "Parameters that the weight decay is for: all, or only matrices (two dimensions or more: "
        "no biases and no norms).",
        one_of("all", "matrices"),
    )
    schedule: str = _setting(
        "step",
        "Learning rate schedule: step changes it after every epoch, cosine and onecycle after "
        "every step.",
        one_of("step", "cosine", "onecycle", "constant"),
    )
    lr_decay: float = _setting(
        0.7, "Factor of the step schedule: multiplies the learning rate after every epoch.", _DECAY
    )
    warmup: int = _setting(
        0,
        "Raise the learning rate from almost 0 over this many steps at the start, on top of the "
        "schedule; onecycle has its own warm-up.",
        _ZERO_OR_MORE,
        "STEPS",
    )
    clip: float = _setting(
        0.0, "Clip the gradient of a step to this norm; 0 does not clip.", _ZERO_OR_MORE, "NORM"
    )
    batch_norm: str = _setting(
        "micro-batch",
        "BatchNorm normalises by the statistics of each micro-batch; frozen takes the running "
        "ones, which stay as they are: then a step has exactly the gradient of one batch.",
        one_of("micro-batch", "frozen"),
    )
    ema: float = _setting(
        0.0,
        "Keep an exponential moving average of the weights with this decay, e.g. 0.99, and write "
        "that; 0 keeps none.",
        _BELOW_ONE,
        "DECAY",
    )
    holdout: float = _setting(
        0.0,
        "Fraction of the training images to hold out and score after every epoch (validation).",
        _BELOW_ONE,
        "FRACTION",
    )
    patience: int = _setting(
        0,
        "Stop early after this many epochs without a lower hold-out loss; 0 never does.",
        _ZERO_OR_MORE,
        "EPOCHS",
    )
    keep: str = _setting(
        "best",
        "Write the weights of the best epoch on the hold-out, of the last one, or both in two "
        "files; without a hold-out, the last is the best.",
        one_of("best", "last", "both"),
    )
    seed: int = _setting(3, "Seed of weights, sample order, dropout and hold-out.", _SEED)
    device: str = _setting(
        "auto", "Device to train on: auto, cpu, cuda or cuda:N.", _DEVICE, "DEVICE"
    )
    parallel: str = _setting(
        "ddp",
        "How processes of torchrun share a model: ddp has all of it in each, fsdp (FSDP2) a part "
        "of its parameters, gradients and optimizer state.",
        one_of("ddp", "fsdp"),
    )
    loader: str = _setting(
        "auto",
        "resident keeps the images in the device's memory, workers in the machine's, with a "
        "DataLoader; disk reads a folder's or an .npz file's when they are needed; auto prints its "
        "choice.",
        one_of("auto", "resident", "workers", "disk"),
    )
    num_workers: int = _setting(
        0, "Processes of the DataLoader; 1 or more selects it.", _ZERO_OR_MORE
    )
    prefetch_factor: int = _setting(4, "Windows that each worker prefetches.", _ONE_OR_MORE)
    pin_memory: bool = _setting(True, "Page-lock the DataLoader's batches, for CUDA.")
    persistent_workers: bool = _setting(True, "Keep the DataLoader's processes between epochs.")

    def __post_init__(self) -> None:
        for setting in settings():
            setting.allowed.check(setting.name, getattr(self, setting.name))
        needs_holdout = self.patience > 0 or self.keep == "both"
        if needs_holdout and not self.holdout:
            raise UsageError(
                f"holdout is {self.holdout}, expected above 0 with --patience or --keep both"
            )
        if self.warmup and self.schedule == "onecycle":
            raise UsageError(f"warmup is {self.warmup}, expected 0 with --schedule onecycle")
        if self.label_smoothing and self.loss in ("bce", "mse"):
            raise UsageError(
                f"label-smoothing is {self.label_smoothing}, expected 0 with --loss {self.loss}"
            )
        if self.num_workers and self.loader == "resident":
            raise UsageError(
                f"num-workers is {self.num_workers}, expected 0 with --loader resident"
            )

    @property
    def effective_batch(self) -> int:
        """Images of one whole step."""
        return self.batch_size * self.accumulate
