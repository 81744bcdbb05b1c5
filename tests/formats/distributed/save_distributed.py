"""Saves a checkpoint from four gloo processes, whose tensors are cut in several ways.

    python save_distributed.py FOLDER RENDEZVOUS

Run by `test_four_processes.py`. The ranks are forks of one process, so torch is imported once.
"""

import sys
from multiprocessing import get_context

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import (
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
    init_device_mesh,
)

RANKS = 4
Process = get_context("fork").Process


def whole() -> dict[str, torch.Tensor]:
    """The tensors before they are cut; the same in every process."""
    generator = torch.Generator().manual_seed(1)
    return {
        "rows": torch.randn(5, 3, generator=generator),
        "columns": torch.randn(6, 7, generator=generator),
        "both": torch.randn(7, 5, 2, generator=generator),
        "copies": torch.randn(4, 4, generator=generator),
        "half": torch.randn(9, 2, generator=generator).bfloat16(),
        "few": torch.arange(3),
    }


CUTS: dict[str, list[Placement]] = {
    "rows": [Shard(0), Shard(0)],
    "columns": [Replicate(), Shard(1)],
    "both": [Shard(0), Shard(1)],
    "copies": [Replicate(), Replicate()],
    "half": [Shard(0), Replicate()],
    "few": [Shard(0), Shard(0)],  # fewer rows than ranks: one has none
}


def save(folder: str, rendezvous: str, rank: int) -> None:
    """What one rank does."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (2, 2))
    model = {key: distribute_tensor(each, mesh, CUTS[key]) for key, each in whole().items()}
    dcp.save({"model": model, "epoch": 3}, checkpoint_id=folder)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    folder, rendezvous = sys.argv[1:]
    ranks = [Process(target=save, args=(folder, rendezvous, rank)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    sys.exit(any(rank.exitcode for rank in ranks))


if __name__ == "__main__":
    main()
