"""What two processes do in test_processes.py; started by torchrun, writes into its folder."""

import json
import sys
from pathlib import Path

import pytest
import torch
from ckpt.models.mnist_cnn import Net

from ckpt.errors import InterruptedTrainingError
from ckpt.train.batches import Window
from ckpt.train.data.windows import shares
from ckpt.train.loop import Trainer
from ckpt.train.processes import joined, started_by_torchrun
from ckpt.train.recipes.recipe import Recipe
from ckpt.train.run import train
from ckpt.train.state import Keeper, read_state

ME = started_by_torchrun()
CASES = {"256 = 128 + 128": (256, 64), "101 = 51 + 50": (101, 50), "1 = 1 + 0": (1, 64)}


def samples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 1, 28, 28, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (count,), generator=generator)


def share_of(images: torch.Tensor, labels: torch.Tensor) -> Window:
    """A window of all samples as this process sees it."""
    whole, mine = next(shares(len(labels), len(labels), rank=ME.rank, count=ME.count))
    chosen = mine or whole[:1]
    mine_images, truth = images[chosen.start : chosen.stop], labels[chosen.start : chosen.stop]
    return Window(len(whole), len(mine), lambda part: (mine_images[part], truth[part]))


def gradients(out: Path) -> None:
    torch.manual_seed(ME.rank)  # unlike weights: the first process's hold
    trainer = Trainer(Net().double().eval(), "fp32", Recipe(), processes=ME)
    reduced = []

    def counted(
        _: object, bucket: torch.distributed.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        reduced.append(bucket.index())
        work = torch.distributed.all_reduce(bucket.buffer().div_(ME.count), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    trainer.parallel.register_comm_hook(None, counted)
    found, counts = {}, {}
    for name, (count, micro) in CASES.items():
        trainer.optimizer.zero_grad()
        reduced.clear()
        trainer.size.now = micro
        tally = trainer.accumulate_window(share_of(*samples(count)))
        found[name] = [parameter.grad.clone() for parameter in trainer.model.parameters()]
        counts[name] = [len(reduced), len(set(reduced)), *ME.total(tally).tolist()]
    torch.save({"grads": found, "state": trainer.model.state_dict()}, out / f"grads{ME.rank}.pt")
    (out / f"counts{ME.rank}.json").write_text(json.dumps(counts))


def linear() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Flatten(), torch.nn.Linear(784, 10), torch.nn.LogSoftmax(1)
    return torch.nn.Sequential(*layers).double()


def epoch(trainer: Trainer) -> list[float]:
    """Loss and gradient norm of an epoch of two windows."""
    progress = trainer.new_epoch()
    for _ in trainer.steps([share_of(*samples(count)) for count in (101, 1)], progress):
        pass
    score, norm = trainer.end_epoch(progress)
    return [score.loss, norm]


class Stops(Keeper):
    """Stops after a number of windows, by a signal that only one of the processes has."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path, every=1e9, processes=ME)
        self._left = after

    @property
    def due(self) -> bool:
        self._left -= 1
        self._next = 1  # they meet after every window, so that the signal counts at once
        if self._left == 0 and not ME.is_first:
            self._asked = 15
        return super().due


def resuming(out: Path, model: str) -> None:
    recipe = Recipe(
        model=model, dataset="digits", epochs=2, batch_size=20, accumulate=3, precision="fp32",
        holdout=0.1, ema=0.9, device="cpu",
    )  # fmt: skip
    windows = 22  # of an epoch: 1,293 = 21 x 60 + 33
    train(recipe, out / "whole.pt", processes=ME)
    for after in (1, 13, windows, windows + 1, 2 * windows):
        with pytest.raises(InterruptedTrainingError):
            train(recipe, out / "x.pt", keeper=Stops(out / "s", after), processes=ME)
        state = read_state(out / "s")
        resumed = out / f"resumed{after}.pt"
        train(state.recipe, resumed, resumed=state, processes=ME)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined(ME):
        gradients(folder)
        found = epoch(Trainer(linear(), "fp32", Recipe(clip=0.1), processes=ME))
        (folder / f"epoch{ME.rank}.json").write_text(json.dumps(found))
        resuming(folder, sys.argv[2])
