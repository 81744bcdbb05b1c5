"""A training run from recipe to tested file."""

import dataclasses
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from ckpt.definitions import Definition, find_definition
from ckpt.errors import DatasetError, FitError, UsageError
from ckpt.train.dataset import Dataset, load_dataset
from ckpt.train.epochs import Epochs, Run
from ckpt.train.loop import Totals, evaluate
from ckpt.train.pixels import Feed
from ckpt.train.precision import choose_precision
from ckpt.train.provenance import environment, git_state, peak_bytes, process_age
from ckpt.train.recipe import Recipe
from ckpt.train.state import Keeper, State
from ckpt.train.watch import Epoch, Facts, Trained, Watcher
from ckpt.train.weights import check_destination, read_weights, write_weights
from ckpt.train.windows import ORDER_RULE

_AUTOCAST = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}  # as torch spells them


def train(
    recipe: Recipe,
    out: Path,
    *,
    watch: Watcher,
    replace: bool = False,
    keeper: Keeper | None = None,
    resumed: State | None = None,
) -> Trained:
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

    Raises:
        UsageError: `out` cannot be written, or the device is not there.
        InterruptedTrainingError: A signal ended it; `keeper` has written its state.
        RefError: There is no such definition.
        DefinitionError: The definition's code fails.
        FitError: The model does not map images to log-probabilities of the dataset's classes.
        DatasetError: The dataset is not to be had, or damaged.
    """
    start, age = perf_counter(), process_age()
    check_destination(out, replace=replace)
    device = _device(recipe.device)
    with _own_generators(device), _reproducible():
        run = _prepare(recipe, device, watch, resumed)
        epochs = Epochs(run, watch, keeper, resumed)
        ready = perf_counter()
        curves = epochs.train()
        ended = perf_counter()
        write_weights(epochs.result, out, replace=replace)
        score = _score_file(run, out)
    trained = _result(run, out, curves, score, seconds=perf_counter() - start)
    trained.record["wall_clock"] = _wall_clock(age, ready - start, ended - ready)
    if resumed is not None:
        trained.record["resumes"] = resumed.resumes + 1
    watch.finished(trained)
    return trained


def _prepare(recipe: Recipe, device: torch.device, watch: Watcher, resumed: State | None) -> Run:
    definition = find_definition(recipe.model)
    dataset = load_dataset(recipe.dataset, data_dir=recipe.data_dir, note=watch.note)
    if resumed is not None:
        _expect_same(resumed, definition, dataset)
    feed = Feed(dataset, recipe, device)
    torch.manual_seed(recipe.seed)
    # Channels last: measured 1.1 to 1.2 times as fast in bf16 on a CPU with AVX-512.
    model = definition.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _check_output(model, feed, definition.ref)
    chosen = resumed.precision if resumed is not None else None
    precision = chosen or choose_precision(recipe, model, feed.first_batch())
    run = Run(
        recipe=recipe,
        definition=definition,
        dataset=dataset,
        device=device,
        feed=feed,
        model=model,
        precision=precision,
    )
    watch.started(_facts(run))
    return run


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
    """Try one batch: nll_loss takes anything for log-probabilities, and says nothing."""
    images, labels = feed.first_batch()  # (b, c, h, w) float32, (b,) int64
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


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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
        train_count=len(dataset.train),
        test_count=len(dataset.test),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        accumulate=recipe.accumulate,
        precision=run.precision.name,
        why=run.precision.why,
        device=str(run.device),
        threads=torch.get_num_threads(),
    )


def _result(
    run: Run, path: Path, curves: tuple[Epoch, ...], score: Totals, *, seconds: float
) -> Trained:
    peak = peak_bytes(run.device)
    return Trained(
        path=path,
        curves=curves,
        test_loss=score.loss_sum / score.samples,
        test_accuracy=score.correct / score.samples,
        test_correct=score.correct,
        test_count=score.samples,
        seconds=seconds,
        peak_bytes=peak,
        record={**_record(run), "seconds": round(seconds, 3), "peak_bytes": peak},
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
        dataset=run.dataset.name,
        precision=run.precision.name,
        device=str(run.device),
    )
    settings = asdict(recipe)
    del settings["data_dir"]  # a folder of this machine; the dataset's digest says what it held
    return {
        "recipe": settings,
        "effective_batch": recipe.effective_batch,
        "sample_order": ORDER_RULE,
        "dataset": run.dataset.describe(),
        "precision": asdict(run.precision),
        "autocast": _AUTOCAST[run.precision.name],
        "tested": "the file, read back, fp32, once",
        "device": str(run.device),
        "environment": environment(run.device),
        "git": git_state(Path.cwd()),
    }
