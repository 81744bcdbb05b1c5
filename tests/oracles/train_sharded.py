"""Trains a sharded net in two gloo processes, as FSDP2 does it, and saves or resumes it.

    python train_sharded.py Old|New|Joined FOLDER RANK RENDEZVOUS OUT

`Old` trains, saves the folder and trains on; the others load the folder and train on. Rank 0 writes
the weights at the end to OUT. Run by `test_resume_distributed.py`, once for each rank.
"""

import sys
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import init_device_mesh
from torch.nn.functional import cross_entropy, linear, relu

from tests.oracles.test_resume import AFTER, BEFORE, classes, forward, in_groups


class Joined(nn.Module):
    """The old class with the matrices of both layers in one."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.randn(12, 6))
        self.first, self.second = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6))
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, second = self.both.split(6)
        hidden = self.norm(relu(linear(images, first, self.first)))
        out: torch.Tensor = self.head(relu(linear(hidden, second, self.second)))
        return out


def train(net: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Every process has its own images."""
    for step in steps:
        generator = torch.Generator().manual_seed(2 * step + dist.get_rank())
        images = torch.randn(16, 6, generator=generator)
        labels = torch.randint(0, 3, (16,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()


def main() -> None:
    name, folder, rank, rendezvous, out = sys.argv[1:]
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=2
    )
    torch.manual_seed(0)
    cls: type[nn.Module] = Joined
    if name != "Joined":
        cls = classes()[name == "New"]
        cls.forward = forward  # type: ignore[assignment]
    net = fully_shard(cls(), mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(in_groups(net), 0.01, amsgrad=True)
    if name == "Old":
        train(net, optimizer, range(BEFORE))
    model, state = get_state_dict(net, optimizer)
    whole = {"model": model, "optimizer": state}
    if name == "Old":
        dcp.save(whole, checkpoint_id=folder)
    else:
        dcp.load(whole, checkpoint_id=folder)
        set_state_dict(
            net,
            optimizer,
            model_state_dict=whole["model"],
            optim_state_dict=whole["optimizer"],
        )
    train(net, optimizer, range(BEFORE, BEFORE + AFTER))
    weights = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))
    if rank == "0":
        torch.save(weights, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
