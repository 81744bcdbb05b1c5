"""What two processes do in test_accumulation.py; started by torchrun, writes into its folder."""

import copy
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

# Sizes of the micro-batches of a pass, by rank; windows are of two in each process.
CASES = {
    "even": ([4, 4, 4, 4], [4, 4, 4, 4]),
    "uneven": ([5, 1, 3], [2, 7, 7, 1]),
    "one runs out": ([5], [3, 4, 4, 2, 6]),
    "one runs out, sums": ([5], [3, 4, 4, 2, 6]),
    "one has empty batches": ([4, 2, 0, 0, 3, 0], [2, 3, 4, 4, 1, 2]),
}


def reduction(name: str) -> str:
    return "sum" if name.endswith("sums") else "mean"


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batches_of(name: str, rank: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(10 * list(CASES).index(name) + rank)
    sizes = CASES[name][rank]
    return [
        (
            torch.randn(size, 6, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for size in sizes
    ]


def trained_alone(name: str) -> nn.Module:
    """Plain torch: the samples of both in one batch, for each window."""
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    shares = [
        [batches[at : at + 2] for at in range(0, len(batches), 2)]
        for batches in (batches_of(name, rank) for rank in (0, 1))
    ]
    for at in range(max(map(len, shares))):
        window = [batch for share in shares for batch in (share[at] if at < len(share) else ())]
        sgd.zero_grad()
        inputs, labels = (torch.cat(parts) for parts in zip(*window, strict=True))
        cross_entropy(model(inputs), labels).backward()
        sgd.step()
    return model


def counted(seen: list[int], bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's own reduction, counted."""
    seen.append(bucket.index())
    work = distributed.all_reduce(bucket.buffer().div_(2), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def main(folder: Path) -> None:
    from ckpt.errors import UsageError
    from ckpt.train import accumulate

    rank = int(os.environ["RANK"])
    for name in CASES:
        model = DistributedDataParallel(copy.deepcopy(net()))
        reductions: list[int] = []
        model.register_comm_hook(reductions, counted)
        sgd = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        windows = accumulate(
            batches_of(name, rank), model, sgd, micro_batches=2, reduction=reduction(name)
        )
        for window in windows:
            for inputs, labels in window:
                with window.forward():
                    loss = cross_entropy(model(inputs), labels, reduction=reduction(name))
                window.backward(loss)
        result = {
            "state": model.module.state_dict(),
            "reductions": len(reductions),
            "windows": windows.steps,
            "samples": windows.samples,
        }
        torch.save(result, folder / f"{name}.{rank}.pt")
    sharded = fully_shard(net().float())
    with pytest.raises(UsageError, match="the model is sharded by FSDP"):
        accumulate([], sharded, torch.optim.SGD(sharded.parameters()), micro_batches=2)
    model = DistributedDataParallel(net())
    try:
        mine = batches_of("even", rank) if rank else []
        for _ in accumulate(mine, model, torch.optim.SGD(model.parameters()), micro_batches=2):
            raise AssertionError("no window may begin")
    except UsageError as error:
        (folder / f"none.{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    main(Path(sys.argv[1]))
    distributed.destroy_process_group()
