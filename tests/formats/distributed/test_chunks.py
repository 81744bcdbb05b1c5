"""Tensors in chunks: put together row-major, whatever the boxes and the range."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import FormatError
from ckpt.formats.distributed import chunks as module
from ckpt.formats.distributed.chunks import Chunk, ChunkedTensor, expect_filled
from tests.formats.support import Memory

Cuts = list[list[int]]


@st.composite
def cut_tensors(draw: st.DrawFn) -> tuple[tuple[int, ...], Cuts]:
    """A shape, and where each dimension is cut."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    cuts = [
        sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=2))}) for count in shape
    ]
    return shape, cuts


def boxes(cuts: Cuts) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Begin and shape of every box of the grid."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())]
    for cut in cuts:
        found = [
            ((*begin, low), (*shape, high - low))
            for begin, shape in found
            for low, high in pairwise(cut)
        ]
    return found


@given(cut_tensors(), st.data())
def test_stream_of_any_range_is_the_row_major_tensor(
    cut: tuple[tuple[int, ...], Cuts], draw: st.DataObject
) -> None:
    shape, cuts = cut
    tensor = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    data, chunks = b"xy", []
    for begin, count in draw.draw(st.permutations(boxes(cuts))):
        window = tuple(slice(at, at + many) for at, many in zip(begin, count, strict=True))
        chunks.append(Chunk(begin, count, len(data)))
        data += tensor[window].tobytes()
    expect_filled("a", shape, chunks)
    region = ChunkedTensor(Memory(data), shape, 2, chunks)
    whole = tensor.tobytes()
    assert region.nbytes == len(whole)
    assert b"".join(region.stream(0, len(whole))) == whole
    first = draw.draw(st.integers(0, len(whole)))
    count = draw.draw(st.integers(0, len(whole) - first))
    assert b"".join(region.stream(first, count)) == whole[first : first + count]


def test_every_range_of_rows_of_two_chunks() -> None:
    whole = np.arange(24, dtype=np.uint8).tobytes()
    region = ChunkedTensor(
        Memory(whole), (12, 2), 1, [Chunk((0, 0), (5, 2), 0), Chunk((5, 0), (7, 2), 10)]
    )
    for begin in range(24):
        for end in range(begin, 25):
            assert b"".join(region.stream(begin, end - begin)) == whole[begin:end]


def test_memory_stays_within_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_BYTES", 30)
    tensor = np.arange(1000, dtype=np.uint8).reshape(100, 10)
    source = Memory(tensor[:, :5].tobytes() + tensor[:, 5:].tobytes())
    halves = [Chunk((0, 0), (100, 5), 0), Chunk((0, 5), (100, 5), 500)]
    parts = list(ChunkedTensor(source, (100, 10), 1, halves).stream(0, 1000))
    assert b"".join(parts) == tensor.tobytes()
    assert max(map(len, parts)) == 30
    assert max(nbytes for _, nbytes in source.reads) == 15


@pytest.mark.long
def test_four_megabytes_are_put_together_at_a_time() -> None:
    rows = (1 << 22) + 1
    region = ChunkedTensor(Memory(bytes(rows)), (rows,), 1, [Chunk((0,), (rows,), 0)])
    assert [len(part) for part in region.stream(0, rows)] == [1 << 22, 1]


WRONG = {
    "a hole": ((4, 4), [Chunk((0, 0), (4, 2), 0)]),
    "an overlap": ((4, 4), [Chunk((0, 0), (4, 2), 0), Chunk((0, 1), (4, 2), 8)]),
    "an overlap further on": (
        (4, 2),
        [Chunk((0, 0), (2, 2), 0), Chunk((2, 0), (1, 2), 4), Chunk((2, 0), (1, 2), 6)],
    ),
    "outside": ((4,), [Chunk((0,), (2,), 0), Chunk((3,), (2,), 2)]),
    "too few dimensions": ((4, 4), [Chunk((0,), (16,), 0)]),
    "no chunk": ((1,), []),
}


@pytest.mark.parametrize("name", WRONG)
def test_boxes_that_do_not_fill_the_tensor_are_refused(name: str) -> None:
    shape, chunks = WRONG[name]
    with pytest.raises(FormatError, match="chunk"):
        expect_filled("a", shape, chunks)
