"""Tensors that do not lie contiguously are gathered in bounded memory, or refused."""

import time

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats import stream as writing
from ckpt.formats.stream import reach_of, tensor_bytes
from ckpt.tensors import TensorEntry
from tests.formats import hostile
from tests.formats.support import Memory, Zeros, contents, expected, opened, saved, torch_file


@pytest.mark.parametrize(
    ("shape", "stride", "says"),
    [
        ([2**40], [0], "would expand to 4 TiB from 4 bytes"),
        ([2**20, 2**20], [0, 0], "would expand to 4 TiB from 4 bytes"),
        ([2**30, 2], [0, 1], "would expand to 8 GiB from 8 bytes"),
        ([2**38], [0], "would expand to 1 TiB from 4 bytes"),
        ([2**60], [0], "would expand to 4 EiB from 4 bytes"),
        ([2**62], [0], "would expand to 16 EiB from 4 bytes"),
        ([2**28 + 2**27], [0], "would expand to 1.5 GiB from 4 bytes"),
        ([2**38 - 2**27], [0], "would expand to 1.02e+03 GiB from 4 bytes"),
    ],
)
def test_fault_14_view_that_would_grow_is_shown_and_not_read(
    shape: list[int], stride: list[int], says: str
) -> None:
    data = torch_file(hostile.state_dict(hostile.tensor(shape, stride)), {"0": bytes(16)})
    begun = time.process_time()
    checkpoint = opened(data)
    (entry,) = (each for each in checkpoint.entries if each.key == "value.0")
    assert (entry.shape, entry.stride) == (tuple(shape), tuple(stride))
    with pytest.raises(FormatError) as refused:
        next(tensor_bytes(checkpoint.source, entry))
    assert str(refused.value) == f"file: value.0: a view that {says}"
    assert time.process_time() - begun < 1


def test_fault_14_overlapping_strides_count_as_well() -> None:
    side = 2**15
    entry = TensorEntry("a", "float32", (side, side), 0, (1, 1))
    with pytest.raises(FormatError, match=r"would expand to 4 GiB from 262,140 bytes"):
        next(tensor_bytes(Memory(bytes(4 * 2 * side)), entry))


@pytest.mark.parametrize(("numel", "read"), [(2**30, True), (2**30 + 1, False)])
def test_fault_14_view_may_have_a_gibibyte(numel: int, read: bool) -> None:
    entry = TensorEntry("a", "uint8", (numel,), 0, (0,))
    if read:
        assert set(next(tensor_bytes(Memory(b"a"), entry))) == set(b"a")
        return
    with pytest.raises(FormatError, match="would expand to 1 GiB from 1 bytes"):
        tensor_bytes(Memory(b"a"), entry)


VIEWS = {
    "columns": lambda big: big[:, 3:5],
    "one column": lambda big: big[:, 7],
    "every other row": lambda big: big[::2],
    "transposed": lambda big: big.T,
    "permuted": lambda big: big.reshape(30, 4, 10).permute(1, 0, 2),
    "expanded": lambda big: big[:1].expand(50, 40),
    "rows that overlap": lambda big: big.as_strided((20, 50), (40, 1)),
    "dimensions of one": lambda big: big[:, None, :3, None],
    "65 dimensions": lambda big: big.T.reshape(40, 30, *[1] * 63),
}


@pytest.mark.parametrize("limit", [1, 100, 1000, 1 << 26])
@pytest.mark.parametrize("name", VIEWS)
def test_gathered_in_parts_is_the_same(
    name: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "GATHERED_BYTES", limit)
    monkeypatch.setattr(writing, "CHUNK", limit)
    state = {"it": VIEWS[name](torch.arange(1200.0).reshape(30, 40))}
    assert contents(opened(saved(state))) == expected(state)


def test_parts_that_lie_apart_are_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GATHERED_BYTES", 1000)
    source = Memory(bytes(1_000_000))
    entry = TensorEntry("a", "float32", (10, 2), 0, (25_000, 1))
    assert b"".join(tensor_bytes(source, entry)) == bytes(80)
    assert source.reads == [(100_000 * row, 8) for row in range(10)]


@pytest.mark.parametrize(
    ("chunk", "given"), [(16, [16, 16, 8, 16, 16, 8, 16]), (8, [8] * 12), (7, [8] * 12)]
)
def test_rows_are_read_and_given_a_few_at_a_time(
    chunk: int, given: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as have the bytes that may be read at once, with the gaps between them."""
    monkeypatch.setattr(writing, "GATHERED_BYTES", 1000)
    monkeypatch.setattr(writing, "CHUNK", chunk)
    data = bytes(range(256)) * 10
    source = Memory(data)
    entry = TensorEntry("a", "float32", (12, 2), 8, (50, 1))
    chunks = [*tensor_bytes(source, entry)]
    assert b"".join(chunks) == b"".join(data[8 + 200 * row :][:8] for row in range(12))
    assert source.reads == [(8, 808), (1008, 808), (2008, 208)]
    assert [len(each) for each in chunks] == given


@pytest.mark.parametrize(("limit", "reads"), [(1008, 1), (1007, 2)])
def test_view_is_read_at_once_up_to_the_limit(
    limit: int, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "GATHERED_BYTES", limit)
    source = Memory(bytes(1008))
    assert b"".join(tensor_bytes(source, TensorEntry("a", "float32", (6, 2), 0, (50, 1))))
    assert len(source.reads) == reads


def test_64_mebibytes_are_read_at_once() -> None:
    for stride, reads in ((2**26 - 1, [(0, 2**26)]), (2**26, [(0, 1), (2**26, 1)])):
        source = Zeros(b"")
        entry = TensorEntry("a", "uint8", (2,), 0, (stride,))
        assert b"".join(tensor_bytes(source, entry)) == bytes(2)
        assert source.reads == reads


def test_rows_that_touch_do_not_interleave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of two elements, each row where the one before ends; then one byte before it ends."""
    monkeypatch.setattr(writing, "GATHERED_BYTES", 10)
    for step, reads in ((5, [(0, 10), (10, 10)]), (4, [(0, 17)])):
        source = Memory(bytes(range(50)))
        entry = TensorEntry("a", "uint8", (4, 2), 0, (step, 4))
        found = b"".join(tensor_bytes(source, entry))
        assert found == bytes(step * row + 4 * column for row in range(4) for column in range(2))
        assert source.reads == reads


def test_reach_is_that_of_the_first_to_the_last_byte() -> None:
    for shape, stride in (((3, 2), (50, 1)), ((1, 2), (50, 3)), ((2, 2), (0, 0)), ((4,), (2,))):
        storage = torch.empty(200).as_strided(shape, stride)
        indices = torch.arange(200).as_strided(shape, stride)
        entry = TensorEntry("a", "float32", shape, 0, storage.stride())
        assert reach_of(entry) == 4 * (int(indices.max()) + 1)
    assert reach_of(TensorEntry("a", "float32", (5, 3), 0)) == 60
