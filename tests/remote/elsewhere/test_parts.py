"""The plan of an object that is put together in the bucket, at the sizes of real models."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.remote.elsewhere.parts import LEAST, MOST, MOST_PARTS, Copied, Sent, parts_of
from ckpt.tensors import Span
from tests.effort import examples

SOURCE = bytes(range(256)) * 8


def pieces() -> st.SearchStrategy[list[bytes | Span]]:
    span = st.tuples(st.integers(0, 1500), st.integers(0, 500)).map(lambda pair: Span(*pair))
    return st.lists(st.one_of(st.binary(max_size=60), span), max_size=12)


def joined(pieces: object) -> bytes:
    assert isinstance(pieces, list | tuple)
    return b"".join(
        SOURCE[each.offset : each.end] if isinstance(each, Span) else each for each in pieces
    )


@settings(max_examples=examples(100))
@given(pieces(), st.integers(1, 90), st.integers(2, 5))
def test_parts_joined_are_the_pieces_joined(
    given: list[bytes | Span], least: int, times: int
) -> None:
    parts = parts_of(given, least=least, most=least * times)
    made = [part.pieces if isinstance(part, Sent) else (part.span,) for part in parts]
    assert b"".join(map(joined, made)) == joined(given)
    sizes = [len(joined(each)) for each in made]
    assert all(size >= least for size in sizes[:-1])
    copied = [part.span.nbytes for part in parts if isinstance(part, Copied)]
    assert all(least <= size <= least * times for size in copied)


@pytest.mark.parametrize("size", [100 << 20, 5 << 30, 100 * 10**9, 5 * 10**12])
def test_less_than_ten_megabytes_are_sent_of_a_model_of_any_size(size: int) -> None:
    """A new header, and the body of a safetensors file."""
    parts = parts_of([b"x" * 200_000, Span(210_000, size)])
    sent = [part.nbytes for part in parts if isinstance(part, Sent)]
    copied = [part.span for part in parts if isinstance(part, Copied)]
    assert sum(sent) + sum(span.nbytes for span in copied) == 200_000 + size
    assert sent == [LEAST]
    assert all(LEAST <= span.nbytes <= MOST for span in copied)
    assert len(parts) == 1 + -(-(size - LEAST + 200_000) // MOST) <= MOST_PARTS


def test_records_between_large_tensors_are_sent_with_their_beginnings() -> None:
    """A zip archive: a small record before each storage."""
    large = 50 << 20
    parts = parts_of([x for n in range(40) for x in (b"h" * 100, Span(n * (large + 100), large))])
    assert [type(part) for part in parts] == [Sent, Copied] * 40
    assert all(part.nbytes == LEAST for part in parts if isinstance(part, Sent))


def test_no_more_than_ten_thousand_parts() -> None:
    large = 11 << 20
    many = [x for n in range(12_000) for x in (b"h", Span(n * large, large))]
    assert len(parts_of(many)) <= MOST_PARTS
