"""Parameters in shards (FSDP2): each process keeps a part of them, and of all that follows them.

Laws: state_dicts that leave a run are whole, with the keys and shapes of one process; a gradient is
that of one batch but for the rounding of sums. Every function here but `local` communicates where
there are shards, so all processes have to call it, in the same order.
"""

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Shard `model`, in which rank 0's values hold; its parameters become new ones.

    Blocks are gathered one at a time, if no other module has a part of them; the rest as a whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # not in its stub
    follow_first(chain(model.parameters(), model.buffers()))
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in blocks:
        if not _shares(model, block):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _shares(model: nn.Module, block: nn.Module) -> bool:
    """Whether a parameter of `block` is also one of a module outside of it."""
    inside = {id(module) for module in block.modules()}
    outside = (module for module in model.modules() if id(module) not in inside)
    others = {id(each) for module in outside for each in module.parameters(recurse=False)}
    return any(id(parameter) in others for parameter in block.parameters())


def follow_first(tensors: Iterable[Tensor]) -> None:
    """Give all processes rank 0's values of these tensors."""
    for tensor in tensors:
        distributed.broadcast(tensor.detach(), src=0)


def average_gradients(model: nn.Module, now: bool) -> None:
    """Whether the next backward pass of a sharded model averages its gradients, or adds them up."""
    cast("FSDPModule", model).set_requires_gradient_sync(now)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor in this process."""
    part: Tensor = cast("Any", tensor).to_local() if _is_part(tensor) else tensor
    return part


def whole(value: Any) -> Any:
    """A tensor from its parts; in dicts and lists, all of them."""
    if _is_part(value):
        return value.full_tensor()
    if isinstance(value, dict):
        return type(value)((key, whole(each)) for key, each in value.items())
    return [whole(each) for each in value] if isinstance(value, list) else value


def load_whole(part: Any, state: dict[str, Any]) -> None:
    """Load what `whole` made of the state_dict of a module, an optimizer or anything else."""
    if isinstance(part, nn.Module):
        own = part.state_dict()
        state = {key: _like(each, own.get(key)) for key, each in state.items()}
    elif isinstance(part, Optimizer):
        parameters = [each for group in part.param_groups for each in group["params"]]
        of_each = {
            number: {name: _like(each, parameters[number]) for name, each in values.items()}
            for number, values in state["state"].items()
        }
        state = {**state, "state": of_each}
    part.load_state_dict(state)


def _like(value: Any, owner: Any) -> Any:
    """A whole tensor in the parts of its owner; a value of another shape, as a count, stays."""
    if not _is_part(owner) or not isinstance(value, Tensor) or value.shape != owner.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(owner.device), owner.device_mesh, owner.placements)


def _is_part(value: Any) -> bool:
    """Whether it is a DTensor; importing that class takes a second."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")
