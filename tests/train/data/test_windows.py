"""Window arithmetic and sample order."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt.train.batches import IGNORED, Batches, epoch_order
from ckpt.train.data.dataset import Dataset
from ckpt.train.data.samples import Samples
from ckpt.train.data.windows import cut, epoch_seed, share, windows
from ckpt.train.processes import Processes
from ckpt.train.recipes.recipe import Recipe

sizes = st.integers(1, 500)


def dataset_of(images: torch.Tensor, labels: torch.Tensor) -> Dataset:
    split = Samples(images, labels)
    return Dataset(
        name="x", title="x", found="", where="", train=split, test=split, classes=1,
        mean=(0.0,), std=(1.0,), test_from="",
    )  # fmt: skip


@given(samples=sizes, size=sizes)
def test_windows_joined_are_the_samples_in_order(samples, size):
    assert [at for window in windows(samples, size) for at in window] == list(range(samples))


@given(samples=sizes, size=sizes)
def test_every_window_but_the_last_is_whole(samples, size):
    *whole, last = (len(window) for window in windows(samples, size))
    assert whole == [size] * len(whole)
    assert 0 < last <= size


@given(start=sizes, samples=sizes, count=st.integers(1, 9))
def test_shares_joined_are_the_window_and_differ_by_one_at_most(start, samples, count):
    window = range(start, start + samples)
    shares = [share(window, rank=rank, count=count) for rank in range(count)]
    assert [at for part in shares for at in part] == list(window)
    assert len(shares[0]) - len(shares[-1]) in (0, 1)


@given(samples=sizes, size=sizes)
def test_micro_batches_joined_are_the_share(samples, size):
    parts = list(cut(samples, size))
    assert [at for part in parts for at in range(samples)[part]] == list(range(samples))
    assert all(part.stop - part.start == size for part in parts[:-1])


def test_the_tail_of_96_samples_is_64_and_32():
    *_, tail = windows(60_000, 256)
    assert [part.stop - part.start for part in cut(len(tail), 64)] == [64, 32]


@given(samples=sizes, size=sizes, count=st.integers(1, 4), first=st.integers(0, 3))
def test_processes_see_each_sample_once_and_agree_on_the_windows(samples, size, count, first):
    """Except for one that has no share, which is given a sample without its label."""
    digits = torch.arange(samples)
    dataset = dataset_of(digits.view(-1, 1, 1, 1).to(torch.float64), digits)
    recipe = Recipe(batch_size=size, seed=5)
    every = [
        Batches(dataset, recipe, torch.device("cpu"), Processes(rank, count))
        for rank in range(count)
    ]
    order = epoch_order(samples, seed=5, epoch=3)
    windows_of_all = zip(*(batches.windows(3, first) for batches in every), strict=True)
    seen = 0
    for number, of_processes in enumerate(windows_of_all, first):
        whole = order[number * size :][:size]
        assert {window.samples for window in of_processes} == {len(whole)}
        labels = [torch.cat([part for _, part in w.micro_batches(7)]) for w in of_processes]
        assert torch.equal(torch.cat([part[part != IGNORED] for part in labels]), whole)
        assert [len(part) for part in labels] == [max(w.here, 1) for w in of_processes]
        seen += len(whole)
    assert seen == max(0, samples - first * size)


def test_sample_order_depends_on_seed_and_epoch_alone():
    first = epoch_order(1000, seed=1, epoch=1)
    torch.rand(7)  # the global generator moves on
    assert torch.equal(first, epoch_order(1000, seed=1, epoch=1))
    assert sorted(first.tolist()) == list(range(1000))
    assert not torch.equal(first, epoch_order(1000, seed=1, epoch=2))
    assert not torch.equal(first, epoch_order(1000, seed=2, epoch=1))


@pytest.mark.long
def test_sample_order_is_the_same_in_another_process():
    code = "from ckpt.train.batches import epoch_order as o;print(o(50, seed=5, epoch=9).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(epoch_order(50, seed=5, epoch=9).tolist())


@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(1, 1000))
def test_epoch_seeds_are_seeds_and_differ_by_purpose(seed, epoch):
    order, dropout = (epoch_seed(purpose, seed, epoch) for purpose in ("order", "dropout"))
    assert 0 <= order < 2**63
    assert order != dropout
