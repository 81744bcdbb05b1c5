"""One change planted in a state_dict is reported, and nothing else is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckpt
from ckpt.show.diff import diff_data
from tests.effort import examples

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
OTHERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.complex64)
GROUPS = ("removed", "added", "renamed", "reshaped", "retyped", "changed", "swapped",
          "reordered", "tied", "untied", "not_compared")  # fmt: skip
State = dict[str, torch.Tensor]


def state(draw: st.DrawFn) -> State:
    """Two to six tensors of any dtypes, no two with the same bytes."""
    count = draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    made: State = {}
    for at in range(count):
        dtype = draw(st.sampled_from(FLOATS + OTHERS)) if at else draw(st.sampled_from(FLOATS))
        values = torch.randn(3, 4, generator=generator) * 50 + at
        made[f"layers.{at}.weight"] = values.to(dtype)
    return made


def ulp(tensor: torch.Tensor) -> torch.Tensor:
    """One element moved by one unit in the last place."""
    bits = tensor.clone().view(torch.int16 if tensor.itemsize == 2 else
                               torch.int32 if tensor.itemsize == 4 else torch.int64)  # fmt: skip
    bits.view(-1)[5] += 1
    return bits.view(tensor.dtype)


def planted(kind: str, before: State) -> tuple[State, State, dict[str, Any]]:
    """Both sides, and the groups that are not empty."""
    after = dict(before)
    key, other = list(before)[:2]
    match kind:
        case "ulp":
            after[key] = ulp(before[key])
            return before, after, {"changed": [key]}
        case "sign of zero":
            before = {**before, key: torch.zeros(3, dtype=before[key].dtype)}
            return before, {**after, key: -before[key]}, {"changed": [key]}
        case "NaN payload":
            one, two = (np.array([bits], np.uint32) for bits in (0x7FC00000, 0x7FC00001))
            before = {**before, key: torch.from_numpy(one.view(np.float32))}
            return (
                before,
                {**after, key: torch.from_numpy(two.view(np.float32))},
                {"changed": [key]},
            )
        case "shape":
            after[key] = before[key].reshape(4, 3)
            return before, after, {"reshaped": [key]}
        case "dtype":
            target = torch.float32 if before[key].dtype is not torch.float32 else torch.float64
            after[key] = before[key].to(target)
            return before, after, {"retyped": [key]}
        case "rename":
            after = {("new.place" if k == key else k): v for k, v in before.items()}
            return before, after, {"renamed": [(key, "new.place")]}
        case "swap":
            before = {**before, other: before[key] + 1}
            after = {**before, key: before[other], other: before[key]}
            return before, after, {"swapped": [[key, other]], "changed": [key, other]}
        case "order":
            return before, dict(reversed(before.items())), {"reordered": len(before) - 1}
    twins = {**before, other: before[key].clone()}
    tied = {**twins, other: twins[key]}
    return (twins, tied, {"tied": [(other, key)]}) if kind == "tie" else (
        tied, twins, {"untied": [(other, key)]})  # fmt: skip


def reported(data: dict[str, Any]) -> dict[str, Any]:
    def plain(group: str, entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        names = {"renamed": ("old", "new"), "tied": ("key", "other"), "untied": ("key", "other")}
        return tuple(entry[n] for n in names[group]) if group in names else entry["key"]

    found = {group: [plain(group, each) for each in data[group]] for group in GROUPS if data[group]}
    return {k: len(v) if k == "reordered" else v for k, v in found.items()}


@pytest.mark.parametrize("container", ["a.pt", "version"])
@pytest.mark.parametrize(
    "kind",
    ["ulp", "sign of zero", "NaN payload", "shape", "dtype", "rename", "swap", "tie", "untie",
     "order", "nothing"],
)  # fmt: skip
@settings(
    max_examples=examples(15),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_planted_change_is_reported_and_nothing_else(
    container: str, kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    before = data.draw(st.composite(state)())
    expected: dict[str, Any] = {}
    after = before
    if kind != "nothing":
        before, after, expected = planted(kind, before)
    refs: list[str] = []
    registry = ckpt.Registry(tmp_path)
    for name, tensors in (("one", before), ("two", after)):
        path = tmp_path / f"{name}.pt"
        torch.save(tensors, path)
        if container == "version":
            refs.append(ckpt.register(path, registry=registry, name=name).version.ref)
        else:
            refs.append(str(path))
    found = ckpt.diff(*refs, registry=registry, values=True)
    assert reported(diff_data(found)) == expected
    differs = kind not in ("tie", "untie", "order", "nothing")
    assert found.differs is differs
    assert [pair.before.key for pair in found.values or ()] == sorted(
        expected.get("changed", []) + [
            key for key in expected.get("retyped", ())
            if before[key].is_floating_point() and after[key].is_floating_point()
        ],
        key=[pair.before.key for pair in found.values or ()].index,
    )  # fmt: skip
