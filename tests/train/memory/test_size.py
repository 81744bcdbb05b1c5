"""Memory that runs out: smaller micro-batches, the same windows, order and gradients."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from ckpt.definitions.importing import DefinitionError
from ckpt.errors import OutOfMemoryError, UsageError
from ckpt.train.loop import Trainer
from ckpt.train.memory.size import MicroBatchSize
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from tests.train.epochs import train_epoch, window_of


class Tight(nn.Module):
    """Has room for a number of samples; in the middle of a window too, where `later` says."""

    def __init__(self, room, later=0, error=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))
        self.norm = nn.BatchNorm2d(1)
        self.room, self.left, self.seen = room, later, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, images):
        self.seen.append(len(images))
        normed = self.norm(images)
        self.left -= 1
        if len(images) > self.room and self.left < 0:
            raise self.error
        return self.layers(normed)


def window(count):
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(count, 1, 28, 28, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return window_of(images, labels)


def trainer_for(model, size):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return Trainer(model.double(), "fp32", Recipe(), size=size)


@pytest.mark.parametrize("later", [0, 1, 2], ids=["first", "second", "third micro-batch"])
def test_halving_keeps_window_order_and_gradient(later):
    """As if the window had been cut that way from the start: gradients, buffers, metrics."""
    notes = []
    adapting = MicroBatchSize(96, adapts=True, callback=notes.append)
    if later:
        adapting.now = 32  # so that there are micro-batches before the one that fails
    tight = trainer_for(Tight(16, later), adapting)
    tally = tight.accumulate_window(window(96))
    fixed = MicroBatchSize(adapting.now, adapts=False)
    roomy = trainer_for(Tight(1000), fixed)
    expected = roomy.accumulate_window(window(96))
    assert adapting.now <= 16
    assert torch.equal(tally, expected)
    for found, wanted in zip(tight.model.parameters(), roomy.model.parameters(), strict=True):
        assert torch.equal(found.grad, wanted.grad)
    for found, wanted in zip(tight.model.buffers(), roomy.model.buffers(), strict=True):
        assert torch.equal(found, wanted)
    assert notes[0].text.startswith(
        "out of memory with 96" if not later else "out of memory with 32"
    )


def test_the_size_stays_for_the_windows_that_follow():
    size = MicroBatchSize(64, adapts=True)
    trainer = trainer_for(Tight(16), size)
    totals = train_epoch(trainer, [window(64), window(64)])
    assert trainer.model.seen == [64, 32] + [16] * 8
    assert (totals.samples, totals.windows, totals.steps) == (128, 2, 2)


CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
ERRORS = [
    RuntimeError(CPU),
    RuntimeError("std::bad_alloc"),
    RuntimeError("could not create a memory object"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_cpus_allocators_count_too(error):
    size = MicroBatchSize(8, adapts=True)
    trainer_for(Tight(4, error=error), size).accumulate_window(window(8))
    assert size.now == 4


@pytest.mark.parametrize(
    "text", ["shapes do not match", "could not create a primitive descriptor for a convolution"]
)
def test_other_errors_are_not_taken_for_it(text):
    size = MicroBatchSize(8, adapts=True)
    trainer = trainer_for(Tight(4, error=RuntimeError(text)), size)
    with pytest.raises(DefinitionError, match=f"raises RuntimeError: {text}"):
        trainer.accumulate_window(window(8))


def test_one_image_that_does_not_fit_is_an_error():
    size = MicroBatchSize(4, adapts=True)
    with pytest.raises(OutOfMemoryError, match="out of memory with 1 image at once"):
        trainer_for(Tight(0), size).accumulate_window(window(8))


def test_a_size_that_was_asked_for_is_kept_and_the_way_out_said():
    size = MicroBatchSize(8, adapts=False)
    with pytest.raises(OutOfMemoryError) as caught:
        trainer_for(Tight(4), size).accumulate_window(window(8))
    assert "--micro-batch auto" in str(caught.value.hint)


LIMITED = """
import resource, sys
from ckpt.cli import main
import torch
from sklearn.datasets import load_digits
kind, line = {"data": (resource.RLIMIT_DATA, "VmData"), "space": (resource.RLIMIT_AS, "VmSize")}[
    sys.argv.pop(1)
]
with open("/proc/self/status") as status:
    now = next(int(each.split()[1]) for each in status if each.startswith(line))
limit = now * 1024 + int(sys.argv.pop(1))
resource.setrlimit(kind, (limit, limit))
main()
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the limits bound mmap on Linux only")
@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("data", 400 << 20, ("--precision", "fp32")),
        ("space", 500 << 20, ("--precision", "fp32")),
        ("space", 500 << 20, ("--holdout", "0.4")),  # the precision is tried, a hold-out scored
    ],
    ids=["data", "address space", "trials and scoring"],
)
def test_a_cpu_without_enough_memory_trains_all_the_same(tmp_path, kind, more, words):
    """A real limit on a real process; the default network on 1,437 images at once."""

    def run(*others):
        command = [sys.executable, "-c", LIMITED, kind, str(more), "train", "--dataset", "digits"]
        return subprocess.run(
            [*command, "--epochs", "1", "--batch-size", "1437", *words, *others],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
            capture_output=True, check=False,
        )  # fmt: skip

    if "fp32" in words:
        fixed = run()
        assert fixed.returncode == 5, fixed.stderr
        assert "error: out of memory with 1,437 images at once" in fixed.stderr
        assert "hint:  --micro-batch auto" in fixed.stderr
    adapting = run("--micro-batch", "auto", "--json")
    assert adapting.returncode == 0, adapting.stderr
    assert "out of memory with" in adapting.stderr or "may not fit" in adapting.stderr
    assert json.loads(adapting.stdout)["record"]["effective_batch"] == 1437


# Under a limit the answer is a trained file or one line about memory, never a fault of ckpt.
@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the limits bound mmap on Linux only")
@pytest.mark.parametrize("megabytes", [100, 150, 200, 300])
def test_tight_address_space_is_survived_or_said(tmp_path, megabytes):
    command = [sys.executable, "-c", LIMITED, "space", str(megabytes << 20), "train"]
    ran = subprocess.run(
        [*command, "--dataset", "digits", "--epochs", "1", "--micro-batch", "auto"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode in (0, 5), ran.stderr
    assert ran.returncode == 0 or "error: out of memory" in ran.stderr


def test_auto_is_for_one_process(tmp_path):
    from ckpt.train.processes import Processes

    recipe = Recipe(dataset="digits", micro_batch="auto")
    with pytest.raises(UsageError, match="needs a single process"):
        train(recipe, tmp_path / "w.pt", processes=Processes(0, 2))
