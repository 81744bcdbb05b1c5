"""`simplified` against torch: the value of an expression, before and after."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.rules.derived.simplified import simplified
from ckpt.rules.expressions import Expression, Joined, Narrowed, Permuted, Reshaped, Source
from ckpt.writing.evaluated import evaluated
from tests.effort import examples

SHAPE = (6, 4)
STATE = {name: torch.arange(24.0).reshape(SHAPE) + 100 * at for at, name in enumerate("ab")}


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    """Views of two tensors, and joins of these, a few steps deep."""
    made: Expression = Source(draw(st.sampled_from("ab")), "float32", SHAPE)
    for _ in range(draw(st.integers(0, 6))):
        dim = draw(st.integers(0, len(made.shape) - 1))
        match draw(st.sampled_from(["narrow", "halves", "turn", "flat", "join"])):
            case "narrow":
                start = draw(st.integers(0, made.shape[dim] - 1))
                length = draw(st.integers(1, made.shape[dim] - start))
                made = Narrowed(made, dim, start, length)
            case "halves" if made.shape[dim] > 1:
                cut = draw(st.integers(1, made.shape[dim] - 1))
                rest = made.shape[dim] - cut
                parts = Narrowed(made, dim, 0, cut), Narrowed(made, dim, cut, rest)
                made = Joined(parts if draw(st.booleans()) else parts[::-1], dim)
            case "turn":
                made = Permuted(made, tuple(draw(st.permutations(range(len(made.shape))))))
            case "flat":
                size = torch.Size(made.shape).numel()
                made = Reshaped(made, draw(st.sampled_from([(size,), (1, size), (size, 1)])))
            case "join" if made.shape == SHAPE:
                made = Joined((made, Source("b", "float32", SHAPE)), dim)
    return made


@given(expressions())
@settings(max_examples=examples(300), deadline=None)
def test_simplified_keeps_the_value(made: Expression) -> None:
    simple = simplified(made)
    assert (simple.shape, simple.dtype) == (made.shape, made.dtype)
    assert torch.equal(evaluated(simple, STATE), evaluated(made, STATE))
    assert simplified(simple) == simple


def test_what_was_joined_and_split_again_is_what_it_was_before() -> None:
    one, two = (Source(name, "float32", SHAPE) for name in "ab")
    both = Joined((one, two), 0)
    assert simplified(Narrowed(both, 0, 6, 6)) == two
    halves = (Narrowed(one, 1, 0, 2), Narrowed(one, 1, 2, 2))
    assert simplified(Joined(halves, 1)) == one
    assert simplified(Permuted(Permuted(one, (1, 0)), (1, 0))) == one
