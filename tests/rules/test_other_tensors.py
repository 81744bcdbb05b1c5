"""What operations do to the tensors that go with their own: which elements are used, and how."""

from dataclasses import replace

import pytest
import torch

from ckpt.errors import PlanError
from ckpt.rules.derived.other_tensors import changed_by, used_twice, with_sources
from ckpt.rules.expressions import (
    Copied,
    Expression,
    Narrowed,
    Source,
    cast,
    filled,
    joined,
    merged,
    reshaped,
    sources_of,
    split,
    transposed,
)

A = Source("a", "float32", (12, 6))
B = Source("b", "float32", (4, 6))
BOTH = joined([A, B], 0)


@pytest.mark.parametrize(
    ("expressions", "twice"),
    [
        (split(A, 0, 3), set()),
        (split(BOTH, 0, 4), set()),
        ([*split(BOTH, 0, 4), B], {"b"}),
        ([A, transposed(A, 0, 1)], {"a"}),
        ([joined([B, B], 0)], {"b"}),
        ([Narrowed(A, 0, 0, 4), Narrowed(A, 0, 2, 4)], {"a"}),
        ([transposed(Narrowed(A, 0, 0, 4), 0, 1), Narrowed(A, 0, 4, 8)], set()),
        ([Narrowed(A, 0, 0, 4), Narrowed(A, 1, 0, 3)], {"a"}),
        ([part for half in split(A, 0, 2) for part in split(half, 1, 2)], set()),
    ],
    ids=lambda it: None,
)
def test_elements_that_are_used_twice_are_found(
    expressions: list[Expression], twice: set[str]
) -> None:
    """The oracle counts the elements that torch gives."""
    count = {"a": torch.zeros(72), "b": torch.zeros(24)}
    numbers = {"a": torch.arange(72).reshape(12, 6), "b": torch.arange(24).reshape(4, 6)}
    for key in count:
        for made in expressions:
            found = values(
                made, {it: numbers[it] if it == key else -1 - numbers[it] for it in numbers}
            )
            used = found[found >= 0].flatten()
            count[key].index_add_(0, used, torch.ones(len(used)))
    assert {key for key, it in count.items() if it.max() > 1} == twice
    assert {*used_twice(expressions, {"a": 0, "b": 1})} == twice


def test_keys_of_one_tensor_use_its_elements_together() -> None:
    tied = [A, *split(replace(A, key="tied"), 0, 2)]
    assert [*used_twice(tied, {"a": 0, "tied": 0})] == ["a"]
    assert [*used_twice(tied, {"a": 0, "tied": 1})] == []


def values(made: Expression, of: dict[str, torch.Tensor]) -> torch.Tensor:
    match made:
        case Source(key=key):
            return of[key]
        case Narrowed(of=inner, dim=dim, start=start, length=length):
            return values(inner, of).narrow(dim, start, length)
    if hasattr(made, "parts"):
        return torch.cat([values(part, of) for part in made.parts], made.dim)
    return values(made.of, of).permute(made.dims)  # type: ignore[union-attr]


def test_only_moves_change_no_values() -> None:
    assert changed_by(transposed(reshaped(BOTH, (8, 12)), 0, 1)) is None
    assert changed_by(joined([A, filled("float32", (1, 6), 0)], 0)) == "gets new elements"
    assert changed_by(transposed(cast(A, "float16"), 0, 1)) == "is cast"
    assert changed_by(Copied(A)) == "is a copy of another parameter"
    assert changed_by(merged(A, A)) == "is tied to another parameter"


def test_expression_over_other_tensors_has_their_dtype() -> None:
    def other(source: Source) -> Source:
        return Source(f"ema.{source.key}", "float64", source.shape)

    made = with_sources(split(transposed(BOTH, 0, 1), 1, 2)[1], other)
    assert (made.dtype, made.shape) == ("float64", (6, 8))
    assert set(sources_of(made)) == {"ema.a", "ema.b"}
    with pytest.raises(PlanError, match="cannot join float64 and float32"):
        with_sources(BOTH, lambda it: other(it) if it.key == "a" else it)
