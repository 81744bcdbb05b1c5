"""The options of `ckpt train` that make a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ckpt.errors import UsageError
from ckpt.train.recipes.recipe import (
    DATASETS,
    KEEPS,
    LOADERS,
    MICRO_BATCHES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    Recipe,
)
from ckpt.train.recipes.recipe_file import NAMES, read_recipe

_DEFAULT = Recipe()


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for the recipe, and one for each of its settings."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def recipe_of(ref: str, settings: dict[str, Any]) -> Recipe:
    """The recipe, with what was typed besides."""
    typed = {name: value for name, value in settings.items() if _is_typed(name)}
    return Recipe(**{**read_recipe(ref), **typed})


def _is_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


def expect_none_typed(path: Path) -> None:
    """The recipe of a run that goes on is that of its state file.

    Raises:
        UsageError: One was typed, or a setting.
    """
    for name in ("recipe_ref", *Recipe.__dataclass_fields__):
        if _is_typed(name):
            option = "recipe" if name == "recipe_ref" else name.replace("_", "-")
            raise UsageError(f"--resume takes the recipe of {path}; --{option} cannot go with it")


_OPTIONS = (
    click.option(
        "--recipe",
        "recipe_ref",
        default="classic",
        show_default=True,
        metavar="NAME|FILE",
        help=f"Settings to begin with: {', '.join(NAMES)}, or a TOML file; options go before it.",
    ),
    click.option("--model", default=_DEFAULT.model, show_default=True, help="The definition."),
    click.option(
        "--init",
        metavar="REF",
        default=_DEFAULT.init,
        help="Begin with the weights of a version or a file, and not anew: fine-tuning.",
    ),
    click.option(
        "--dataset",
        metavar="NAME|FOLDER|FILE.npz",
        default=_DEFAULT.dataset,
        show_default=True,
        help=f"{', '.join(DATASETS)}: auto is MNIST where it can be had, else scikit-learn's "
        "digits. Or FOLDER/CLASS/*.png, in train and test folders or not; or x_train, y_train, "
        "x_test and y_test in an .npz.",
    ),
    click.option(
        "--image-size",
        type=int,
        default=_DEFAULT.image_size,
        metavar="PIXELS",
        help="Bring a folder's images to this height and width; the middle is kept.",
    ),
    click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="A folder in torchvision's layout; else CKPT_DATA, else the cache.",
    ),
    click.option("--epochs", type=int, default=_DEFAULT.epochs, show_default=True),
    click.option(
        "--batch-size",
        type=int,
        default=_DEFAULT.batch_size,
        show_default=True,
        help="Images of one micro-batch, what memory has to hold.",
    ),
    click.option(
        "--accumulate",
        type=int,
        default=_DEFAULT.accumulate,
        show_default=True,
        help="Micro-batches of one step; the product is the effective batch.",
    ),
    click.option(
        "--micro-batch",
        type=click.Choice(MICRO_BATCHES),
        default=_DEFAULT.micro_batch,
        show_default=True,
        help="auto begins with the whole effective batch and halves when memory runs out.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default=_DEFAULT.precision,
        show_default=True,
        help="auto times a few steps of each and says what it chose.",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(OPTIMIZERS),
        default=_DEFAULT.optimizer,
        show_default=True,
    ),
    click.option("--lr", type=float, default=_DEFAULT.lr, show_default=True),
    click.option("--momentum", type=float, default=_DEFAULT.momentum, help="Of sgd."),
    click.option("--weight-decay", type=float, default=_DEFAULT.weight_decay, show_default=True),
    click.option(
        "--schedule",
        type=click.Choice(SCHEDULES),
        default=_DEFAULT.schedule,
        show_default=True,
        help="Of the learning rate: step once an epoch, cosine and onecycle with every step.",
    ),
    click.option("--lr-decay", type=float, default=_DEFAULT.lr_decay, help="Of step, an epoch."),
    click.option("--clip", type=float, default=_DEFAULT.clip, help="Largest norm of the gradient."),
    click.option(
        "--ema",
        type=float,
        default=_DEFAULT.ema,
        metavar="DECAY",
        help="Keep an average of the weights, 0.99 or so, and write that.",
    ),
    click.option(
        "--holdout",
        type=float,
        default=_DEFAULT.holdout,
        show_default=True,
        metavar="FRACTION",
        help="Of the training images, held out and scored after every epoch.",
    ),
    click.option(
        "--patience",
        type=int,
        default=_DEFAULT.patience,
        show_default=True,
        metavar="EPOCHS",
        help="Stop after so many without a lower loss on the hold-out; 0 never does.",
    ),
    click.option(
        "--keep",
        type=click.Choice(KEEPS),
        default=_DEFAULT.keep,
        show_default=True,
        help="Whose weights: the best epoch's on the hold-out, the last's, or both in two files.",
    ),
    click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True),
    click.option("--device", default=_DEFAULT.device, show_default=True),
    click.option(
        "--loader",
        type=click.Choice(LOADERS),
        default=_DEFAULT.loader,
        show_default=True,
        help="Images in the device's memory, or a DataLoader; auto chooses and says why.",
    ),
    click.option(
        "--num-workers",
        type=int,
        default=_DEFAULT.num_workers,
        show_default=True,
        help="Processes of the DataLoader; any choose it.",
    ),
    click.option(
        "--prefetch-factor",
        type=int,
        default=_DEFAULT.prefetch_factor,
        show_default=True,
        help="Windows that each of them makes ahead.",
    ),
    click.option(
        "--pin-memory/--no-pin-memory",
        default=_DEFAULT.pin_memory,
        show_default=True,
        help="Page-locked batches, for CUDA.",
    ),
    click.option(
        "--persistent-workers/--no-persistent-workers",
        default=_DEFAULT.persistent_workers,
        show_default=True,
        help="Keep the DataLoader's processes from epoch to epoch.",
    ),
)
