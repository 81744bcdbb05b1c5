"""``fits`` is `load_state_dict(strict=True)`: torch's own loader on real modules is the oracle."""

import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckpt
from tests.effort import by_effort
from tests.oracles import networks

State = OrderedDict[str, Any]
DEFINITION = f"{networks.__file__}:build"
PAIRS = by_effort(25, 500, 2000)


def tensor_key(state: State, draw: random.Random) -> str | None:
    keys = [key for key, value in state.items() if isinstance(value, torch.Tensor)]
    return draw.choice(keys) if keys else None


def removed(state: State, draw: random.Random) -> None:
    state.pop(draw.choice([*state]))


def added(state: State, draw: random.Random) -> None:
    state[draw.choice(["more", "m0.more", "m0.num_batches_tracked", "m0._extra_state"])] = (
        torch.zeros(2)
    )


def renamed(state: State, draw: random.Random) -> None:
    key = draw.choice([*state])
    state[key.replace("embed", "conv") if "embed" in key else key + "s"] = state.pop(key)


def reshaped(state: State, draw: random.Random) -> None:
    key = tensor_key(state, draw)
    if key is not None:
        value = state[key]
        state[key] = draw.choice([value[None], value.flatten(), value.new_zeros(1)])


def retyped(state: State, draw: random.Random) -> None:
    key = tensor_key(state, draw)
    if key is not None:
        state[key] = state[key].to(draw.choice([torch.float16, torch.float64, torch.int32]))


def uncounted(state: State, _draw: random.Random) -> None:
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]


def as_before_embed(state: State, _draw: random.Random) -> None:
    for key in [key for key in state if ".embed." in key]:
        state[key.replace(".embed.", ".conv.")] = state.pop(key)


def with_units(state: State, _draw: random.Random) -> None:
    """What every `Demanding` module needs."""
    for key in [key for key in state if key.endswith("weight")]:
        state[key.removesuffix("weight") + "unit"] = torch.zeros(())


def counted_in_one_dimension(state: State, _draw: random.Random) -> None:
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        state[key] = torch.zeros(1, dtype=torch.int64)


def not_a_tensor(state: State, draw: random.Random) -> None:
    state[draw.choice([*state])] = draw.choice([None, {"scale": 1.0}, b"bytes", 3])


def extra(state: State, draw: random.Random) -> None:
    prefix = draw.choice([*state]).rpartition(".")[0]
    state[f"{prefix}._extra_state"] = draw.choice([None, {"scale": 1.0}])


CHANGES: list[Callable[[State, random.Random], None]] = [
    *(removed, added, renamed, reshaped, retyped, uncounted, as_before_embed, with_units),
    *(counted_in_one_dimension, not_a_tensor, extra),
]


def file_of(seed: int, draw: random.Random) -> State:
    module = networks.build(seed)
    state: State = OrderedDict(module.state_dict())
    for change in draw.choices(CHANGES, k=draw.choice([0, 1, 1, 1, 2])):
        if state:
            change(state, draw)
    versions = module.state_dict()._metadata
    match draw.choice(["kept", "none", "old"]):
        case "kept":
            state._metadata = versions
        case "old":
            state._metadata = OrderedDict((key, {"version": 1}) for key in versions)
    return state


def torch_loads(path: Path, seed: int) -> bool:
    try:
        networks.build(seed).load_state_dict(torch.load(path), strict=True)
    except Exception:  # noqa: BLE001  # whatever it is: the weights are not loaded
        return False
    return True


def test_fits_is_what_torch_loads(tmp_path: Path, record_property: Callable[..., None]) -> None:
    fitting = 0
    for seed in range(PAIRS):
        draw = random.Random(f"file {seed}")
        path = tmp_path / f"{seed}.pt"
        state = file_of(seed, draw)
        if not any(isinstance(value, torch.Tensor) for value in state.values()):
            continue
        torch.save(state, path)
        found = ckpt.diff(path, DEFINITION, arguments={"seed": seed}).fitting
        assert found is not None
        loads = torch_loads(path, seed)
        assert found.fit.fits == loads, (seed, found)
        assert found.fit.unasked is None
        fitting += loads
    assert PAIRS / 5 < fitting < PAIRS * 4 / 5, "both verdicts occur often"
    record_property("count: pairs of file and definition, as torch loads them", str(PAIRS))


@pytest.mark.parametrize("seed", range(5))
def test_file_fits_the_definition_that_saved_it(seed: int, tmp_path: Path) -> None:
    torch.save(networks.build(seed).state_dict(), tmp_path / "a.pt")
    found = ckpt.diff(tmp_path / "a.pt", DEFINITION, arguments={"seed": seed}).fitting
    assert found is not None
    assert found.fit.fits == torch_loads(tmp_path / "a.pt", seed)
