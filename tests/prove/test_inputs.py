"""The input of a proof as Python gives it; the command line's texts are in `cli`."""

from typing import Any

import pytest
import torch
from torch import nn

from ckpt.errors import UsageError
from ckpt.prove.inputs import inputs_for

ONES = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("given", "shapes"),
    [((2, 4), [(2, 4)]), (["2x4"], [(2, 4)]), (ONES, [(2, 4)]), ([ONES, ONES], [(2, 4)] * 2)],
    ids=["shape", "text", "tensor", "tensors"],
)
def test_places_are_taken_as_given(given: Any, shapes: list[tuple[int, ...]]) -> None:
    (inputs,) = inputs_for(nn.Linear(4, 3), given)
    assert [tuple(it.shape) for it in inputs.places] == shapes


def test_names_are_taken_as_given() -> None:
    (inputs,) = inputs_for(nn.Linear(4, 3), {"input": ONES})
    assert (inputs.places, {*inputs.names}) == ((), {"input"})


@pytest.mark.parametrize(
    "given",
    [[], {}, ["2x4", ONES], [2, "4"], [2, ONES], {"input": "2x4"}, 1.5, [None]],
    ids=lambda it: str(type(it)) + str(len(it) if hasattr(it, "__len__") else ""),
)
def test_other_input_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="the input of a proof is a shape"):
        list(inputs_for(nn.Linear(4, 3), given))
