"""A training run from recipe to tested file."""

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from ckpt.definitions import Definition, find_definition
from ckpt.errors import DatasetError, FitError, UsageError
from ckpt.train.data.dataset import Dataset, load_dataset
from ckpt.train.data.windows import ORDER_RULE
from ckpt.train.epochs import Epochs, Run
from ckpt.train.feed import Feed
from ckpt.train.holdout import Best
from ckpt.train.loop import Totals, evaluate
from ckpt.train.memory import MicroBatchSize
from ckpt.train.precision import choose_precision
from ckpt.train.processes import ALONE, Processes, joined
from ckpt.train.provenance import environment, git_state, peak_bytes, process_age
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.state import Keeper, State, again
from ckpt.train.watch.events import Epoch, Facts, Trained, Unwatched, Watcher
from ckpt.train.weights import check_destination, load_strictly, read_weights, write_weights

_TRIED = 256  # images that precisions are timed on, at most: memory may not hold a micro-batch
_AUTOCAST = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}  # as torch spells them


def train(
    recipe: Recipe,
    out: Path,
    *,
    watch: Watcher,
    replace: bool = False,
    keeper: Keeper | None = None,
    resumed: State | None = None,
    processes: Processes = ALONE,
    initial: Mapping[str, torch.Tensor] | None = None,
) -> Trained | None:
    """Train, write the weights to `out`, read them back and score the test images once.

    The score is that of the file: loaded strictly into a new module, in fp32. Interrupted
    or failed, it leaves no file. torch's global generators are as before afterwards.

    Args:
        recipe: What to do.
        out: The suffix says the format: ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` by
            torch.save, ``.safetensors`` by safetensors.
        watch: Told how it goes.
        replace: Whether a file that stands there is replaced.
        keeper: Writes the state of the run now and then, and where a signal ends it.
        resumed: The state to go on from; `recipe` is its own then.
        processes: That train together, each calling this; only the first one is watched,
            writes and gives a result.
        initial: The state_dict that `recipe.init` names, to begin with; a run that is resumed
            needs none.

    Raises:
        UsageError: `out` cannot be written, or the device is not there.
        InterruptedTrainingError: A signal ended it; `keeper` has written its state.
        RefError: There is no such definition.
        DefinitionError: The definition's code fails.
        FitError: `initial` does not fit; or the model does not map images to log-probabilities
            of the dataset's classes.
        DatasetError: The dataset is not to be had, or damaged.
    """
    start, age = perf_counter(), process_age()
    _check_processes(recipe, resumed, processes)
    check_destination(out, replace=replace)
    last_out = _last_path(out) if recipe.keep == "both" else None
    if last_out is not None:
        check_destination(last_out, replace=replace)
    watch = watch if processes.is_first else Unwatched()
    device = _device(recipe.device, processes)
    with joined(processes), _own_generators(device), _reproducible():
        run = _prepare(recipe, device, watch, resumed, processes, initial)
        epochs = Epochs(run, watch, keeper, resumed)
        ready = perf_counter()
        curves = epochs.train()
        ended = perf_counter()
        if not processes.is_first:
            return None
        kept = epochs.last if recipe.keep == "last" else epochs.best
        write_weights(kept.weights, out, replace=replace)
        if last_out is not None:
            write_weights(epochs.last.weights, last_out, replace=replace)
        score = _score_file(run, out)
    trained = _result(run, out, last_out, kept, curves, score, seconds=perf_counter() - start)
    trained.record["wall_clock"] = _wall_clock(age, ready - start, ended - ready)
    if resumed is not None:
        trained.record["resumes"] = resumed.resumes + 1
    watch.finished(trained)
    return trained


def _last_path(out: Path) -> Path:
    """``w.pt`` gives ``w.last.pt``."""
    return out.with_name(f"{out.stem}.last{out.suffix}")


def _check_processes(recipe: Recipe, resumed: State | None, processes: Processes) -> None:
    if resumed is not None and len(resumed.generators) != processes.count:
        began = len(resumed.generators)
        raise UsageError(
            f"the run has {began} process{'es' * (began > 1)}, here are {processes.count}",
            hint=f"{again(began)} train --resume FILE",
        )
    if recipe.micro_batch == "auto" and processes.count > 1:
        raise UsageError(
            "--micro-batch auto is for one process: the others would wait for the one that halves",
            hint="--batch-size  sets what each takes at once",
        )


def _prepare(
    recipe: Recipe,
    device: torch.device,
    watch: Watcher,
    resumed: State | None,
    processes: Processes,
    initial: Mapping[str, torch.Tensor] | None,
) -> Run:
    definition = find_definition(recipe.model)
    dataset = _load(recipe, watch, processes)
    if resumed is not None:
        _expect_same(resumed, definition, dataset)
    if recipe.precision == "fp16" and device.type == "cpu":
        watch.note("fp16 on a CPU may take a hundred times as long as fp32; bf16 is made for it")
    size = _micro_batch_size(recipe, watch, resumed)
    feed = Feed(dataset, recipe, device, processes=processes, size=size)
    torch.manual_seed(recipe.seed)
    # Channels last: measured 1.1 to 1.2 times as fast in bf16 on a CPU with AVX-512.
    model = definition.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if initial is not None:
        hint = f"ckpt diff {recipe.init} {definition.ref}  shows both sides"
        load_strictly(model, initial, f"{recipe.init} does not fit {definition.ref}", hint)
    _check_output(model, feed, definition.ref)
    chosen = resumed.precision if resumed is not None else None
    tried = min(recipe.batch_size, _TRIED)
    precision = chosen or choose_precision(recipe, model, feed.first_images(tried))
    precision = processes.of_first(precision)
    run = Run(
        recipe=recipe,
        definition=definition,
        dataset=dataset,
        device=device,
        processes=processes,
        size=size,
        feed=feed,
        model=model,
        precision=precision,
    )
    watch.started(_facts(run))
    return run


def _load(recipe: Recipe, watch: Watcher, processes: Processes) -> Dataset:
    """The first process loads before the others, for it may have to fetch the files."""
    if not processes.is_first:
        processes.wait()
    dataset = load_dataset(
        recipe.dataset,
        data_dir=recipe.data_dir,
        image_size=recipe.image_size,
        note=watch.note,
        loading=watch.loading,
    )
    if processes.is_first:
        processes.wait()
    return dataset


def _micro_batch_size(recipe: Recipe, watch: Watcher, resumed: State | None) -> MicroBatchSize:
    adapts = recipe.micro_batch == "auto"
    first = recipe.effective_batch if adapts else recipe.batch_size
    now = first if resumed is None else resumed.micro_batch
    return MicroBatchSize(now, adapts, watch.note)


def _expect_same(resumed: State, definition: Definition, dataset: Dataset) -> None:
    """What is gone on with is what was begun with."""
    if resumed.definition != (definition.source() or ""):
        raise FitError(
            f"{definition.ref}: has changed since the run began",
            hint="begin a run with the new one",
        )
    if resumed.dataset != dataset.digest():
        raise DatasetError(f"{dataset.title}: other images than those the run began with")


def _score_file(run: Run, path: Path) -> Totals:
    model = run.definition.build()
    read_weights(model, path)
    model = model.to(run.device)
    return evaluate(model, run.feed.test_batches())


def _check_output(model: nn.Module, feed: Feed, ref: str) -> None:
    """Try a few images: nll_loss takes anything for log-probabilities, and says nothing."""
    images, labels = feed.first_images(8)  # (b, c, h, w) float32, (b,) int64
    expected = (len(labels), feed.classes)
    model.eval()
    try:
        with torch.inference_mode():
            log_probs = model(images)  # (b, classes)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FitError(f"{ref}: does not take images {tuple(images.shape)}: {reason}") from error
    shape = tuple(getattr(log_probs, "shape", ()))
    if shape != expected:
        raise FitError(f"{ref}: gives {shape or type(log_probs)}, expected {expected}")
    sums = log_probs.double().exp().sum(dim=1)  # (b,)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise FitError(
            f"{ref}: its outputs are no log-probabilities: a row's exp sums to {sums[0]:.3g}",
            hint="end its forward with torch.nn.functional.log_softmax(x, dim=1)",
        )


def _device(name: str, processes: Processes) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and processes.count > 1:
        name = f"cuda:{processes.local_rank}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"device is {name}, but torch sees {count} CUDA devices here")
    return device


def _own_generators(device: torch.device) -> AbstractContextManager[None]:
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _reproducible() -> AbstractContextManager[None]:
    """Have cuDNN pick its algorithms by rule, not by timing, and only repeatable ones."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def _facts(run: Run) -> Facts:
    recipe, dataset = run.recipe, run.dataset
    return Facts(
        dataset=dataset.title,
        where=dataset.where,
        train_count=run.feed.train_count,
        holdout_count=run.feed.holdout_count,
        test_count=len(dataset.test),
        epochs=recipe.epochs,
        effective_batch=recipe.effective_batch,
        batch_size=run.size.now,
        precision=run.precision.name,
        why=run.precision.why,
        loader=run.feed.loader.name,
        why_loader=run.feed.loader.why,
        processes=run.processes.count,
        device=str(run.device),
        threads=torch.get_num_threads(),
    )


def _result(
    run: Run,
    path: Path,
    last_path: Path | None,
    kept: Best,
    curves: tuple[Epoch, ...],
    score: Totals,
    *,
    seconds: float,
) -> Trained:
    peak = peak_bytes(run.device)
    return Trained(
        path=path,
        last_path=last_path,
        epoch=kept.epoch,
        curves=curves,
        test_loss=score.loss_sum / score.samples,
        test_accuracy=score.correct / score.samples,
        test_correct=score.correct,
        test_count=score.samples,
        seconds=seconds,
        peak_bytes=peak,
        record={
            **_record(run),
            "epoch": kept.epoch,
            "seconds": round(seconds, 3),
            "peak_bytes": peak,
        },
        definition_source=run.definition.source() or "",
    )


def _wall_clock(process: float | None, warm_up: float, loop: float) -> dict[str, Any]:
    """Seconds until `train` was called, until the first window, and of the epochs."""
    return {
        "process": None if process is None else round(process, 3),
        "warm_up": round(warm_up, 3),
        "loop": round(loop, 3),
    }


def _record(run: Run) -> dict[str, Any]:
    """What is needed to have the same weights again; JSON-able."""
    recipe = dataclasses.replace(
        run.recipe,
        precision=run.precision.name,
        device=str(run.device),
    )
    settings = asdict(recipe)
    # Never a folder of this machine; the dataset's digest says what it held.
    settings["dataset"] = run.dataset.name
    del settings["data_dir"]
    return {
        "recipe": settings,
        "effective_batch": recipe.effective_batch,
        "micro_batch": run.size.now,
        "processes": run.processes.count,
        "loader": asdict(run.feed.loader),
        "holdout_count": run.feed.holdout_count,
        "sample_order": ORDER_RULE,
        "dataset": run.dataset.describe(),
        "precision": asdict(run.precision),
        "autocast": _AUTOCAST[run.precision.name],
        "tested": "the file, read back, fp32, once",
        "device": str(run.device),
        "environment": environment(run.device, devices=run.processes.count),
        "git": git_state(Path.cwd()),
    }
