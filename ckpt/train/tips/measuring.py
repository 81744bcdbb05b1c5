"""The measurements of `doctor`, a function for each tip.

Ways are timed in turns, one step of each, so that all meet the same noise; only loaders are timed
in blocks, also in turns, because workers go on fetching while others are timed.
"""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from torch import nn

from ckpt.definitions.importing import DefinitionError, own_code
from ckpt.errors import UsageError
from ckpt.train.batches import Batches
from ckpt.train.data.normalisation import MicroBatch
from ckpt.train.loop import batch_norms
from ckpt.train.losses import loss_sum, scores_of
from ckpt.train.memory.room import available_bytes
from ckpt.train.memory.size import SHORT, MicroBatchSize, is_out_of_memory
from ckpt.train.processes import ALONE, started_by_torchrun
from ckpt.train.random_numbers import restored
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.setup import Setup, find_device
from ckpt.train.tips.diagnosis import Diagnosis, Spread, Tried, Verdict, fastest
from ckpt.train.tips.kept import Graphs, alive, collections_of
from ckpt.train.tips.patient import Patient, Turns
from ckpt.train.trials import WORTH_IT, lower_precision, step_seconds, take_step, wait
from ckpt.train.watch.events import Callback, Note

_BLOCKS, _WARM_UP, _WINDOWS = 3, 2, 16  # of each loader; windows are warmed up and timed
_MOST_WORKERS = 4
_LARGEST, _TIMES = 1024, 16  # images of a batch: up to the first, or so many times the recipe's
_SLOWEST = 5.0  # seconds of a step; larger batches are not tried
_TINY = 1e-9  # learning rate


def measure(recipe: Recipe, callback: Callback) -> Diagnosis:
    """See `doctor`."""
    recipe = replace(
        recipe, precision="fp32", loader="resident", num_workers=0, lr=_TINY, schedule="constant",
        micro_batch="fixed", accumulate=1, ema=0.0, holdout=0.0, patience=0, keep="best", warmup=0,
    )  # fmt: skip
    if started_by_torchrun().count > 1:
        raise UsageError("--doctor needs a single process", hint="run it without torchrun")
    device = find_device(recipe.device, ALONE)
    with restored(device):
        setup = Setup(recipe, device, ALONE, lambda _: None, resumed=None, initial=None)
        patient = Patient(setup, setup.recipe)
        rows: list[Tried] = []
        verdicts: list[Verdict] = []
        for examine in (workers, largest_batch, sixteen_bits, accumulation, kept_graphs):
            callback(Note(f"measuring: {(examine.__doc__ or '').rstrip('.')}"))
            found, verdict = examine(patient)
            rows += found
            verdicts.append(verdict)
    return Diagnosis(patient.where, tuple(rows), tuple(verdicts))


Found = tuple[Sequence[Tried], Verdict]


def _tried(tip: str, name: str, typed: str, turns: Turns, held: int | None = None) -> Tried:
    ratio, speed = turns.ratio(name), turns.images_per_second(name)
    return Tried(tip, name, typed, speed, ratio.middle, held, ratio.low, ratio.high)


def _verdict(
    tip: str, gain: Spread, subject: str, beside: str, why: str = "", more: str = ""
) -> Verdict:
    """The verdict on a speed, by default with the gain as the reason; `more` is true anyway.

    Args:
        tip: The tip.
        gain: Of the speed of `subject` beside that of `beside`.
        subject: The way.
        beside: The way that it is compared with.
        why: The reason, if the turns agree.
        more: What was found besides, after a semicolon.
    """
    apart, end = f"{subject} is {gain.times(WORTH_IT)} {beside}", f"; {more}" if more else ""
    if gain.agrees(WORTH_IT):
        return Verdict(tip, gain.middle >= WORTH_IT, f"{why or apart}{end}")
    unclear = f"the turns disagree: {apart}; run it again on an idle machine"
    return Verdict(tip, None, f"{unclear}{end}")


def workers(patient: Patient) -> Found:
    """Loaders and their workers."""
    tip, cores = "workers", min(len(_cores()), _MOST_WORKERS)
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "DataLoader, 0 workers": ("--loader workers", {"loader": "workers"}),
        "images in memory": ("--loader resident", {"loader": "resident"}),
    }
    for count in sorted({1, cores}):
        name = f"DataLoader, {count} worker{'s' * (count > 1)}"
        ways[name] = (f"--num-workers {count}", {"loader": "workers", "num_workers": count})
    timed = {
        name: _loader(patient, replace(patient.recipe, prefetch_factor=1, **options))
        for name, (_, options) in ways.items()
    }
    blocks = [{name: block() for name, block in timed.items()} for _ in range(_BLOCKS)]
    turns = Turns(blocks)
    rows = [_tried(tip, name, typed, turns) for name, (typed, _) in ways.items()]
    resident = rows[1].name
    best = fastest([row for row in rows if row.name != resident])
    gain = turns.ratio(best.name, resident)
    return rows, _verdict(tip, gain, best.name, resident)


def _loader(patient: Patient, recipe: Recipe) -> Callable[[], float]:
    """A function that trains on some windows of a loader, and gives images a second."""
    batches = Batches(patient.setup.dataset, recipe, patient.setup.device)
    batches.channels = patient.setup.batches.channels
    trainer = patient.trainer()
    # What workers had fetched before the clock started has to be small beside the rest.
    first = min(_WARM_UP, batches.window_count // 4)

    def block() -> float:
        samples, began = 0, 0.0
        for index, window in enumerate(islice(batches.windows(1), first + _WINDOWS)):
            if index == first:
                wait(trainer.device)
                began = perf_counter()
            take_step(trainer, [*window.micro_batches(recipe.batch_size)])
            samples += window.samples if index >= first else 0
        wait(trainer.device)
        return samples / (perf_counter() - began)

    return block


def _cores() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def largest_batch(patient: Patient) -> Found:
    """Batches, twice as large each time."""
    tip, size = "largest batch", patient.recipe.batch_size
    most = max(_LARGEST, size * _TIMES)
    ways: dict[int, Sequence[MicroBatch]] = {}
    held: dict[int, int] = {}
    ended = f"{most:,} were the most tried"
    while size <= most:
        batch = patient.images(size)
        if ways and len(batch[1]) < size:
            ended = f"the dataset has {patient.setup.batches.train_count:,} images"
            break
        free = _free_bytes(patient.setup.device)
        if held and free is not None and 4 * held[size // 2] > free:
            ended = f"{size:,} would need {2 * held[size // 2] / 1e6:,.0f} MB and its gradients"
            break
        try:
            held[size] = patient.held([batch])
            seconds = step_seconds(patient.trainer(), [batch])
            ways[size] = [batch]
            if seconds > _SLOWEST:
                ended = f"a step of {size:,} takes over {_SLOWEST:.0f} s"
                break
        except SHORT as error:
            if not is_out_of_memory(error):
                raise
            if not ways:
                MicroBatchSize(size).halve(error)  # raises: not even the recipe's batch fits
            ended = f"{size:,} ran out of memory"
            break
        size *= 2
    names = {at: f"batch {at:,}" for at in ways}
    turns = patient.in_turns({names[at]: ("fp32", batches) for at, batches in ways.items()})
    rows = [_tried(tip, names[at], f"--batch-size {at}", turns, held[at]) for at in ways]
    best, first = fastest(rows[1:] or rows), rows[0].name
    gain = turns.ratio(best.name)
    why = f"{best.name} is {gain.times(WORTH_IT)} {first}, with fewer steps an epoch"
    if gain.middle < WORTH_IT:
        why = f"none is {WORTH_IT} × as fast as {first}"
    return rows, _verdict(tip, gain, best.name, first, why, ended)


def _free_bytes(device: torch.device) -> int | None:
    """Memory that a process may still take; None where the system does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes()


def sixteen_bits(patient: Patient) -> Found:
    """Precisions."""
    tip, names = "16 bits", ("fp32", lower_precision(patient.setup.device))
    batch = [patient.images(patient.recipe.batch_size)]
    turns = patient.in_turns({name: (name, batch) for name in names})
    rows = [
        _tried(tip, name, f"--precision {name}", turns, patient.held(batch, name)) for name in names
    ]
    lower, gain = rows[1], turns.ratio(names[1])
    less = (lower.bytes or 0) / (rows[0].bytes or 1)
    return rows, _verdict(tip, gain, lower.name, "fp32", more=f"it holds {less:.2f} × the memory")


def accumulation(patient: Patient) -> Found:
    """One batch, and the same in four."""
    tip, size = "accumulation", patient.recipe.batch_size
    whole = patient.images(size)
    size = len(whole[1])
    part = -(-size // 4)
    # Copies: a slice would hold the images of the whole batch.
    parts = [
        (whole[0][at : at + part].clone(), whole[1][at : at + part].clone())
        for at in range(0, size, part)
    ]
    ways: dict[str, Sequence[MicroBatch]] = {
        f"{size:,} × 1": [whole],
        f"{part:,} × {len(parts)}": parts,
    }
    typed = (f"--batch-size {size}", f"--batch-size {part} --accumulate {len(parts)}")
    turns = patient.in_turns({name: ("fp32", batches) for name, batches in ways.items()})
    rows = [
        _tried(tip, name, option, turns, patient.held(batches))
        for option, (name, batches) in zip(typed, ways.items(), strict=True)
    ]
    less = (rows[1].bytes or 0) / (rows[0].bytes or 1)
    speed = turns.ratio(rows[1].name).times(WORTH_IT)
    why = (
        f"{rows[1].name} holds {less:.2f} × the memory at {speed} the speed; "
        f"{_gradient_words(patient, whole, parts)}"
    )
    return rows, Verdict(tip, less < 1 / WORTH_IT, why)


def _gradient_words(patient: Patient, whole: MicroBatch, parts: Sequence[MicroBatch]) -> str:
    """How far both gradients differ; a model's own code may not take float64, or a single image."""
    try:
        with own_code(patient.recipe.model):
            error = _gradient_error(patient, whole, parts)
    except DefinitionError as failed:
        return f"its gradient was not compared in float64: {failed}"
    words = f"its gradient differs by {error:.0e}"
    if error > 1e-6 and batch_norms(patient.setup.model):
        words += ", because BatchNorm sees a part: --batch-norm frozen"
    return words


def _gradient_error(patient: Patient, whole: MicroBatch, parts: Sequence[MicroBatch]) -> float:
    """The norm of the difference beside that of the gradient, in float64, without dropout."""
    model = copy.deepcopy(patient.setup.model).double().eval()
    for norm in batch_norms(model):
        norm.train()
    gradients = []
    for batches in ([whole], parts):
        model.zero_grad()
        for images, labels in batches:
            losses = loss_sum(patient.recipe.loss, scores_of(model(images.double())), labels)
            (losses / len(whole[1])).backward()
        gradients.append([it.grad.clone() for it in model.parameters() if it.grad is not None])
    expected, found = (torch.cat([each.flatten() for each in both]) for both in gradients)
    return float((expected - found).norm() / expected.norm().clamp(min=1e-300))


def kept_graphs(patient: Patient) -> Found:
    """Memory after each step."""
    tip, batch = "kept graphs", patient.images(patient.recipe.batch_size)
    trainer = patient.trainer()
    graphs = Graphs(trainer.model)

    def train() -> None:
        take_step(trainer, [batch])

    def validate() -> None:
        trainer.model.eval()
        with torch.inference_mode():
            scores_of(trainer.model(batch[0]))
        trainer.model.train()

    with graphs.watched():
        growing = {
            "training": _growth(graphs, train, trainer.model),
            "validation": _growth(graphs, validate, trainer.model),
        }
        trainer.model.eval()
        before = graphs.now
        loss = loss_sum(patient.recipe.loss, scores_of(trainer.model(batch[0])), batch[1])
        held = graphs.now - before
        del loss
    rows = [
        Tried(tip, f"kept in {name}", "", bytes=growth.bytes) for name, growth in growing.items()
    ]
    rows.append(Tried(tip, "loss kept as a tensor", "losses.append(loss)", bytes=held))
    rows.append(Tried(tip, "loss kept as a float", "losses.append(loss.item())", bytes=0))
    leaks = [
        f"{growth.bytes:,} bytes a step of {name}"
        + (f", in {', '.join(growth.names)}" if growth.names else "")
        for name, growth in growing.items()
        if growth.bytes
    ]
    if leaks:
        why = f"the model keeps tensors: {'; '.join(leaks)}; keep .item() or .detach() of them"
        return rows, Verdict(tip, True, why)
    why = (
        "the model keeps no tensor; a validation loss kept as a tensor, outside of "
        f"torch.inference_mode(), keeps {held:,} bytes a batch"
    )
    return rows, Verdict(tip, False, why)


@dataclass(frozen=True, slots=True)
class _Growth:
    """Bytes that stay after each step, and the attributes that hold more and more tensors."""

    bytes: int
    names: Sequence[str]


def _growth(graphs: Graphs, step: Callable[[], None], model: nn.Module) -> _Growth:
    for _ in range(2):  # optimizer state and caches come into being
        step()
    before, counts = alive(graphs), collections_of(model)
    for _ in range(3):
        step()
    grown = alive(graphs) - before
    names = [name for name, count in collections_of(model).items() if count > counts.get(name, 0)]
    return _Growth(max(grown, 0) // 3, names)
