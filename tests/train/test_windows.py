"""Window arithmetic and sample order."""

import subprocess
import sys

import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt.train.pixels import epoch_order, micro_batch_indices
from ckpt.train.recipe import Recipe
from ckpt.train.windows import epoch_seed, windows

sizes = st.integers(1, 500)


@given(samples=sizes, batch_size=sizes, accumulate=sizes)
def test_micro_batches_joined_are_the_samples_in_order(samples, batch_size, accumulate):
    epoch = list(windows(samples, batch_size=batch_size, accumulate=accumulate))
    joined = [at for window in epoch for cut in window for at in range(cut.start, cut.stop)]
    assert joined == list(range(samples))


@given(samples=sizes, batch_size=sizes, accumulate=sizes)
def test_every_window_but_the_last_is_whole(samples, batch_size, accumulate):
    epoch = list(windows(samples, batch_size=batch_size, accumulate=accumulate))
    lengths = [[cut.stop - cut.start for cut in window] for window in epoch]
    assert all(window == [batch_size] * accumulate for window in lengths[:-1])
    assert all(0 < length <= batch_size for length in lengths[-1])
    assert len(lengths[-1]) <= accumulate


def test_the_tail_of_96_samples_is_64_and_32():
    *_, tail = windows(60_000, batch_size=64, accumulate=4)
    assert [cut.stop - cut.start for cut in tail] == [64, 32]


@given(samples=sizes, batch_size=sizes, accumulate=sizes)
def test_micro_batch_indices_are_those_of_the_windows(samples, batch_size, accumulate):
    recipe = Recipe(batch_size=batch_size, accumulate=accumulate)
    order = epoch_order(samples, seed=recipe.seed, epoch=3)
    cuts = [
        cut
        for window in windows(samples, batch_size=batch_size, accumulate=accumulate)
        for cut in window
    ]
    indices = list(micro_batch_indices(samples, recipe, 3))
    assert len(indices) == len(cuts)
    assert all(torch.equal(order[cut], got) for cut, got in zip(cuts, indices, strict=True))


def test_sample_order_depends_on_seed_and_epoch_alone():
    first = epoch_order(1000, seed=1, epoch=1)
    torch.rand(7)  # the global generator moves on
    assert torch.equal(first, epoch_order(1000, seed=1, epoch=1))
    assert sorted(first.tolist()) == list(range(1000))
    assert not torch.equal(first, epoch_order(1000, seed=1, epoch=2))
    assert not torch.equal(first, epoch_order(1000, seed=2, epoch=1))


def test_sample_order_is_the_same_in_another_process():
    code = "from ckpt.train.pixels import epoch_order as o; print(o(50, seed=5, epoch=9).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(epoch_order(50, seed=5, epoch=9).tolist())


@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(1, 1000))
def test_epoch_seeds_are_seeds_and_differ_by_purpose(seed, epoch):
    order, dropout = (epoch_seed(purpose, seed, epoch) for purpose in ("order", "dropout"))
    assert 0 <= order < 2**63
    assert order != dropout
