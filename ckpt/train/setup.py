"""The setup of a run: all that is decided before its first step, and how it is reported."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ckpt.definitions import Definition, find_definition, load_strictly
from ckpt.errors import DatasetError, FitError, UsageError
from ckpt.train.batches import Batches
from ckpt.train.data.dataset import Dataset, load_dataset
from ckpt.train.data.windows import ORDER_RULE
from ckpt.train.memory import MicroBatchSize
from ckpt.train.precision import Precision, choose_precision
from ckpt.train.processes import Processes
from ckpt.train.provenance import environment, git_state
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.state import State, resume_command
from ckpt.train.watch.events import Callback, Note, Started

_TRIED = 256  # images that precisions are timed on, at most: memory may not hold a micro-batch
_AUTOCAST = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}  # torch's spelling


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that is decided before the first step."""

    recipe: Recipe
    definition: Definition
    dataset: Dataset
    device: torch.device
    processes: Processes
    size: MicroBatchSize
    batches: Batches
    model: nn.Module
    precision: Precision


def prepare(
    recipe: Recipe,
    device: torch.device,
    processes: Processes,
    callback: Callback,
    *,
    resumed: State | None,
    initial: Mapping[str, torch.Tensor] | None,
) -> Setup:
    """Load the data, build the model and choose a precision.

    Raises:
        CkptError: See `run.train`.
    """
    definition = find_definition(recipe.model)
    dataset = _load(recipe, processes, callback)
    if resumed is not None:
        _expect_same(resumed, definition, dataset)
    if recipe.precision == "fp16" and device.type == "cpu":
        callback(Note("fp16 on a CPU can be a hundred times slower than fp32; bf16 is faster"))
    size = _micro_batch_size(recipe, callback, resumed)
    batches = Batches(dataset, recipe, device, processes)
    torch.manual_seed(recipe.seed)
    # Channels last: measured 1.1 to 1.2 times as fast in bf16 on a CPU with AVX-512.
    model = definition.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if initial is not None:
        hint = f"ckpt diff {recipe.init} {definition.ref}  shows both sides"
        load_strictly(model, initial, f"{recipe.init} does not fit {definition.ref}", hint)
    _check_output(model, batches, definition.ref)
    if resumed is not None:
        precision = resumed.precision
    else:
        tried = batches.first_images(min(recipe.batch_size, _TRIED))
        precision = choose_precision(recipe, model, tried)
    return Setup(
        recipe=recipe,
        definition=definition,
        dataset=dataset,
        device=device,
        processes=processes,
        size=size,
        batches=batches,
        model=model,
        precision=processes.of_first(precision),
    )


def check_processes(recipe: Recipe, resumed: State | None, processes: Processes) -> None:
    """Refuse a number of processes that the run cannot have.

    Raises:
        UsageError: The interrupted run had another number, or the recipe needs a single one.
    """
    if resumed is not None and len(resumed.generators) != processes.count:
        began = len(resumed.generators)
        raise UsageError(
            f"resumed with {processes.count} process{'es' * (processes.count > 1)}, expected "
            f"{began} as at the start of the run",
            hint=resume_command(began, "FILE"),
        )
    if recipe.micro_batch == "auto" and processes.count > 1:
        raise UsageError(
            "--micro-batch auto needs a single process: the others would wait for the halving one",
            hint="set --batch-size, the images that each process takes at once",
        )


def find_device(name: str, processes: Processes) -> torch.device:
    """The device that a recipe names.

    Raises:
        UsageError: torch does not see it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and processes.count > 1:
        name = f"cuda:{processes.local_rank}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UsageError(f"device is {name}, but torch sees {count} CUDA devices")
    return device


def own_generators(device: torch.device) -> AbstractContextManager[None]:
    """Restore torch's global generators at the end."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def repeatable() -> AbstractContextManager[None]:
    """Have cuDNN pick its algorithms by rule, not by timing, and only deterministic ones."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def started(setup: Setup) -> Started:
    """The event that reports the setup."""
    recipe, dataset, batches = setup.recipe, setup.dataset, setup.batches
    return Started(
        dataset=dataset.title,
        where=dataset.where,
        train_count=batches.train_count,
        holdout_count=batches.holdout_count,
        test_count=len(dataset.test),
        epochs=recipe.epochs,
        effective_batch=recipe.effective_batch,
        batch_size=setup.size.now,
        precision=setup.precision.name,
        why=setup.precision.why,
        loader=batches.loader.name,
        why_loader=batches.loader.why,
        processes=setup.processes.count,
        device=str(setup.device),
        threads=torch.get_num_threads(),
    )


def record(setup: Setup) -> dict[str, Any]:
    """All that is needed to train the same weights again; JSON-able."""
    precision, batches = setup.precision, setup.batches
    recipe = replace(setup.recipe, precision=precision.name, device=str(setup.device))
    settings = asdict(recipe)
    # Never a folder of this machine; the dataset's digest identifies its content.
    settings["dataset"] = setup.dataset.name
    del settings["data_dir"]
    return {
        "recipe": settings,
        "effective_batch": recipe.effective_batch,
        "micro_batch": setup.size.now,
        "processes": setup.processes.count,
        "loader": asdict(batches.loader),
        "holdout_count": batches.holdout_count,
        "sample_order": ORDER_RULE,
        "dataset": setup.dataset.describe(),
        "precision": asdict(precision),
        "autocast": _AUTOCAST[precision.name],
        "tested": "the file, read back, fp32, once",
        "device": str(setup.device),
        "environment": environment(setup.device, devices=setup.processes.count),
        "git": git_state(Path.cwd()),
    }


def _load(recipe: Recipe, processes: Processes, callback: Callback) -> Dataset:
    """Rank 0 loads before the others, because it may have to download the files."""
    if not processes.is_first:
        processes.wait()
    dataset = load_dataset(
        recipe.dataset,
        data_dir=recipe.data_dir,
        image_size=recipe.image_size,
        callback=callback,
    )
    if processes.is_first:
        processes.wait()
    return dataset


def _micro_batch_size(recipe: Recipe, callback: Callback, resumed: State | None) -> MicroBatchSize:
    adapts = recipe.micro_batch == "auto"
    first = recipe.effective_batch if adapts else recipe.batch_size
    return MicroBatchSize(first if resumed is None else resumed.micro_batch, adapts, callback)


def _expect_same(resumed: State, definition: Definition, dataset: Dataset) -> None:
    if resumed.definition != (definition.source() or ""):
        raise FitError(
            f"{definition.ref}: has changed since the run started",
            hint="start a new run, without --resume",
        )
    if resumed.dataset != dataset.digest():
        raise DatasetError(f"{dataset.title}: not the images that the run started with")


def _check_output(model: nn.Module, batches: Batches, ref: str) -> None:
    """Try a few images: nll_loss takes any numbers for log-probabilities without an error."""
    images, labels = batches.first_images(8)  # (b, c, h, w) float32, (b,) int64
    expected = (len(labels), batches.classes)
    model.eval()
    try:
        with torch.inference_mode():
            log_probs = model(images)  # (b, classes)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FitError(f"{ref}: fails on images {tuple(images.shape)}: {reason}") from error
    shape = tuple(getattr(log_probs, "shape", ()))
    if shape != expected:
        raise FitError(f"{ref}: returns {shape or type(log_probs)}, expected {expected}")
    sums = log_probs.double().exp().sum(dim=1)  # (b,)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise FitError(
            f"{ref}: does not return log-probabilities: exp of a row sums to {sums[0]:.3g}",
            hint="end its forward with torch.nn.functional.log_softmax(x, dim=1)",
        )
