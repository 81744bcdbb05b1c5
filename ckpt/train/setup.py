"""The setup of a run: all that is decided before its first step, and how it is reported."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ckpt.definitions import find_definition, load_strictly
from ckpt.definitions.importing import own_code
from ckpt.errors import DatasetError, FitError, UsageError
from ckpt.train.batches import Batches
from ckpt.train.data.dataset import Dataset, load_dataset
from ckpt.train.data.windows import ORDER_RULE
from ckpt.train.loop import LOWER, batch_norms
from ckpt.train.losses import chosen_loss, scores_of
from ckpt.train.memory.room import available_bytes
from ckpt.train.memory.size import MicroBatchSize
from ckpt.train.processes import Processes
from ckpt.train.provenance import environment, git_state
from ckpt.train.random_numbers import restored, seed_all
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.state import State, resume_command
from ckpt.train.trials import choose_precision, first_size
from ckpt.train.watch.events import Callback, Note, Started

_TRIED = 256  # images that precisions are timed on, at most: memory may not hold a micro-batch


class Setup:
    """All that is decided before the first step: data, model, batches, precision.

    Args:
        initial: The state_dict to start from, if there is one.
        resumed: The state to continue from, if there is one.

    Raises:
        CkptError: As for `run.train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        processes: Processes,
        callback: Callback,
        *,
        resumed: State | None,
        initial: Mapping[str, torch.Tensor] | None,
    ) -> None:
        self.recipe, self.device, self.processes = recipe, device, processes
        self.definition = find_definition(recipe.model)
        self.source = self.definition.source() or ""
        self.dataset = _load(recipe, processes, callback)
        if resumed is not None:
            if resumed.definition != self.source:
                hint = "start a new run, without --resume"
                raise FitError(f"{recipe.model}: has changed since the run started", hint=hint)
            if resumed.dataset != self.dataset.digest():
                title = self.dataset.title
                raise DatasetError(f"{title}: not the images that the run started with")
        if recipe.precision == "fp16" and device.type == "cpu":
            callback(Note("fp16 on a CPU can be a hundred times slower than fp32; bf16 is faster"))
        adapts = recipe.micro_batch == "auto"
        first = recipe.effective_batch if adapts else recipe.batch_size
        self.size = MicroBatchSize(resumed.micro_batch if resumed else first, adapts, callback)
        self.batches = Batches(self.dataset, recipe, device, processes)
        seed_all(recipe.seed)
        # Channels last: measured 1.1 to 1.2 times as fast in bf16 on a CPU with AVX-512.
        built = self.definition.build()
        self.batches.channels = _channels(built, self.batches.channels)
        if any(map(is_lazy, built.parameters())):  # shapes come from the first images
            with own_code(recipe.model), torch.no_grad():
                built(self.batches.first_images(1)[0].cpu())
        _expect_parameters(built, recipe.model)
        # Its stub lacks this overload.
        self.model = built.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if initial is not None:
            hint = f"to see both sides:  ckpt diff {recipe.init} {recipe.model}"
            load_strictly(self.model, initial, f"{recipe.init} does not fit {recipe.model}", hint)
        recipe = replace(recipe, loss=_choose_loss(self.model, self.batches, recipe))
        self.recipe = recipe
        if adapts and resumed is None and device.type == "cpu":
            self._begin_where_memory_allows(callback)
        self._note_on_batch_norm(callback)
        if resumed is not None:
            precision = resumed.precision
        else:
            tried = self.batches.first_images(min(recipe.batch_size, _TRIED, self.size.now))
            precision = choose_precision(recipe, self.model, tried)
        self.precision = processes.of_first(precision)

    def _begin_where_memory_allows(self, callback: Callback) -> None:
        """Begin with smaller micro-batches if the system would kill the process at larger ones."""
        most = min(self.size.now, self.batches.train_count)
        size, left = first_size(self.recipe, self.model, self.batches.first_images, most)
        if size < most:
            self.size.now = size
            room = "memory" if left is None else f"the {left / 1e6:,.0f} MB of memory that are left"
            callback(Note(f"{most:,} images at once may not fit into {room}: now {size:,}"))

    def _note_on_batch_norm(self, callback: Callback) -> None:
        step = self.recipe.effective_batch
        at_once = min(self.size.now, -(-step // self.processes.count))
        if at_once < step and self.recipe.batch_norm != "frozen" and batch_norms(self.model):
            callback(
                Note(
                    f"BatchNorm takes its statistics from {at_once:,} images at once, not from the "
                    f"{step:,} of a step; --batch-norm frozen takes the running ones"
                )
            )

    def started(self) -> Started:
        """The event that reports the setup."""
        return Started(
            dataset=self.dataset.title,
            where=self.dataset.where,
            train_count=self.batches.train_count,
            holdout_count=self.batches.holdout_count,
            test_count=len(self.dataset.test),
            epochs=self.recipe.epochs,
            effective_batch=self.recipe.effective_batch,
            batch_size=self.size.now,
            precision=self.precision.name,
            why=self.precision.why,
            loader=self.batches.loader.name,
            why_loader=self.batches.loader.why,
            processes=self.processes.count,
            device=str(self.device),
            threads=torch.get_num_threads(),
        )

    def record(self) -> dict[str, Any]:
        """All that is needed to train the same weights again; JSON-able."""
        name = self.precision.name
        settings = asdict(replace(self.recipe, precision=name, device=str(self.device)))
        # Never a folder of this machine; the dataset's digest identifies its content.
        settings["dataset"] = self.dataset.name
        del settings["data_dir"]
        return {
            "recipe": settings,
            "effective_batch": self.recipe.effective_batch,
            "micro_batch": self.size.now,
            "processes": self.processes.count,
            "loader": asdict(self.batches.loader),
            "holdout_count": self.batches.holdout_count,
            "sample_order": ORDER_RULE,
            "dataset": self.dataset.describe(),
            "precision": asdict(self.precision),
            "autocast": str(LOWER[name]).removeprefix("torch.") if name in LOWER else None,
            "tested": "the file, read back, fp32, once",
            "device": str(self.device),
            "environment": environment(self.device, devices=self.processes.count),
            "git": git_state(Path.cwd()),
        }


def check_torch() -> None:
    """Refuse a torch without the functions that training needs.

    Raises:
        UsageError: It is older than 2.6.
    """
    if not hasattr(nn.utils, "get_total_norm"):
        raise UsageError(
            f"training needs torch 2.6 or newer, this is {torch.__version__}",
            hint="pip install --upgrade 'ckpt-registry[train]'",
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
    if recipe.parallel == "fsdp" and processes.count == 1:
        raise UsageError(
            "parallel is fsdp, expected ddp in a single process",
            hint="torchrun --nproc-per-node 2 -m ckpt train --parallel fsdp",
        )
    if recipe.micro_batch == "auto" and processes.count > 1:
        raise UsageError(
            "--micro-batch auto needs a single process: the others would wait for the halving one",
            hint="set --batch-size, the images that each process takes at once",
        )


def check_epochs(recipe: Recipe, resumed: State | None) -> None:
    """Refuse fewer epochs than a resumed run has begun.

    Raises:
        UsageError: The weights are those in the middle of a later epoch, or after it.
    """
    if resumed is None:
        return
    begun = len(resumed.curves) + bool(resumed.progress.windows)
    if recipe.epochs < begun:
        raise UsageError(f"epochs is {recipe.epochs}, but the run is in epoch {begun}")


def find_device(name: str, processes: Processes) -> torch.device:
    """The device that a recipe names.

    Raises:
        UsageError: torch does not see it, or it cannot count in float64.
    """
    if name == "mps":
        raise UsageError(
            "device is mps, which has no float64 to add up losses in; expected cpu or cuda",
            hint="--device cpu",
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and processes.count > 1:
        name = f"cuda:{processes.local_rank}"
    device = torch.device(name)
    if device.type == "cuda":
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise UsageError(f"device is {name}, but torch sees {count} CUDA devices")
        torch.cuda.set_device(device)  # else NCCL and each `cuda` without a number take the first
    return device


def _load(recipe: Recipe, processes: Processes, callback: Callback) -> Dataset:
    """Rank 0 loads before the others, because it may have to download the files."""
    if not processes.is_first:
        processes.wait()
    dataset = load_dataset(
        recipe.dataset, data_dir=recipe.data_dir, image_size=recipe.image_size, callback=callback,
        loader=recipe.loader, room=available_bytes(),
    )  # fmt: skip
    if processes.is_first:
        processes.wait()
    return dataset


def _expect_parameters(model: nn.Module, ref: str) -> None:
    if not any(it.requires_grad for it in model.parameters()):
        raise FitError(f"{ref}: has no parameters to train")
    if any(it.is_meta for it in (*model.parameters(), *model.buffers())):
        raise FitError(f"{ref}: is built on the meta device, expected parameters with values")


def _channels(model: nn.Module, here: int) -> int:
    """The channels that a model takes: those of its first convolution, if they are 1 or 3."""
    convolutions = (it for it in model.modules() if isinstance(it, nn.Conv2d))
    first = next(convolutions, None)
    return here if first is None or first.in_channels not in (1, 3) else first.in_channels


def _choose_loss(model: nn.Module, batches: Batches, recipe: Recipe) -> str:
    """Try a few images in both modes: no loss reports scores that it is not meant for.

    Raises:
        FitError: The output has another shape, or is not what the recipe's loss takes.
        DefinitionError: The model's own code fails.
    """
    images, labels = batches.first_images(8)  # (b, c, h, w) float32, (b,) int64
    expected, found = (len(labels), batches.classes), set()
    with restored(images.device), torch.no_grad():
        for trains in (False, True):
            with own_code(f"{recipe.model}: on images {tuple(images.shape)}"):
                tried = copy.deepcopy(model) if trains else model  # BatchNorm would learn from it
                scores = scores_of(tried.train(trains)(images))
            if scores.shape != expected:
                shape = tuple(scores.shape)
                hint = f"--arg num_classes={batches.classes}  where the model has such an argument"
                raise FitError(f"{recipe.model}: returns {shape}, expected {expected}", hint=hint)
            found.add(chosen_loss(scores))
    if recipe.loss == "nll" and found != {"nll"}:
        raise FitError(
            f"{recipe.model}: does not return log-probabilities, which --loss nll takes",
            hint="--loss cross-entropy  takes logits",
        )
    if recipe.loss != "auto":
        return recipe.loss
    return "nll" if found == {"nll"} else "cross-entropy"
