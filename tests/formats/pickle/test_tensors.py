"""Tensors at the ends of what a description may say; torch is the oracle where it can be."""

from collections.abc import Mapping, Sequence

import pytest
import torch

from ckpt.errors import FormatError
from ckpt.formats.torch_zip import TorchZipFile
from ckpt.tensors import TensorEntry
from tests.formats import hostile
from tests.formats.hostile import call, global_, number, storage, tensor, text, tuple_of
from tests.formats.support import contents, expected, loaded, opened, torch_file

RECORDS = {"0": bytes(range(16)), "1": b""}
V2 = global_("torch._utils", "_rebuild_tensor_v2")
ARGUMENTS = (storage(), number(0), tuple_of(number(4)), tuple_of(number(1)), b"\x89", b"}")


def file_of(
    *tensors: bytes, keys: Sequence[str] = "abc", records: Mapping[str, bytes] = RECORDS
) -> bytes:
    """A file with a dict of tensors."""
    items = b"".join(text(key) + it for key, it in zip(keys, tensors, strict=False))
    return torch_file(hostile.PROTO2 + b"}(" + items + b"u.", records)


def entry_of(described: bytes) -> TensorEntry:
    (entry,) = opened(file_of(described)).entries
    return entry


def refused(described: bytes) -> str:
    with pytest.raises(FormatError) as error:
        opened(file_of(described))
    return str(error.value)


def parameter(of: bytes) -> bytes:
    return call("torch._utils", "_rebuild_parameter", of, b"\x88", b"}")


def with_attributes(*arguments: bytes) -> bytes:
    """A Parameter with attributes of its own."""
    make = global_("torch._utils", "_rebuild_parameter")
    kind = global_("torch.nn.parameter", "Parameter")
    return call("torch._tensor", "_rebuild_from_type_v2", make, kind, tuple_of(*arguments), b"}")


@pytest.mark.parametrize(
    "described",
    [
        tensor(),
        parameter(tensor()),
        with_attributes(tensor(), b"\x88", b"}"),
        parameter(tensor([2], [2], offset=1)),
    ],
    ids=["tensor", "parameter", "with attributes", "view"],
)
def test_tensor_in_others_is_read_as_torch_reads_it(described: bytes) -> None:
    data = file_of(described)
    assert contents(opened(data)) == expected(loaded(data))


def test_tensor_is_not_searched_in_more_than_two_others() -> None:
    says = refused(with_attributes(parameter(tensor()), b"\x88", b"}"))
    assert "ckpt reads only plain ones" in says


@pytest.mark.parametrize("count", range(4))
def test_tensor_of_too_few_arguments_is_refused(count: int) -> None:
    says = refused(call("torch._utils", "_rebuild_tensor_v2", *ARGUMENTS[:count]))
    assert says.startswith("file: a: not a tensor as torch describes it")


def test_dimensions_have_a_limit() -> None:
    assert entry_of(tensor([1] * 1000, [1] * 1000)).shape == (1,) * 1000
    says = refused(tensor([1] * 1001, [1] * 1001))
    assert "1,001 dimensions, the limit is 1,000" in says


def test_numbers_are_those_of_64_bits() -> None:
    largest = 2**63 - 1
    data = file_of(tensor([1], [largest]))
    assert contents(opened(data)) == expected(loaded(data))
    assert f"{2**63} is not a size, stride or offset" in refused(tensor([1], [2**63]))
    assert f"{2**63} is not a size, stride or offset" in refused(tensor(offset=2**63))
    assert entry_of(tensor([0, largest], [1, 1])).shape == (0, largest)
    assert "2^63 elements or more" in refused(tensor([0, 2**62, 2], [1, 1, 1]))
    sizes = tuple_of(b"\x88"), tuple_of(number(1))
    true = call("torch._utils", "_rebuild_tensor_v2", storage(), number(0), *sizes, b"\x89", b"}")
    assert "True is not a size, stride or offset" in refused(true)


def test_dimension_of_one_has_any_stride() -> None:
    entry = entry_of(tensor([1, 4, 1], [99, 1, 77]))
    assert entry.stride is None
    assert entry_of(tensor([2, 2], [1, 2])).stride == (1, 2)


@pytest.mark.parametrize(
    ("shape", "stride", "offset"), [([2], [2], 1), ([2, 2], [2, 1], 0), ([1], [9], 3)]
)
def test_view_that_ends_with_its_storage_is_read_and_one_beyond_refused(
    shape: list[int], stride: list[int], offset: int
) -> None:
    data = file_of(tensor(shape, stride, offset))
    assert contents(opened(data)) == expected(loaded(data))
    says = refused(tensor(shape, stride, offset + 1))
    assert says == "file: a: reaches to byte 20 of storage 0, which has 16"
    says = refused(tensor([6]))
    assert says == "file: a: reaches to byte 24 of storage 0, which has 16"


def test_tensor_without_elements_begins_with_its_storage() -> None:
    """Whatever offset it has, so that it lies in the file."""
    checkpoint = opened(file_of(tensor([0], [1], offset=2**62, of=storage("1", 0))))
    assert isinstance(checkpoint, TorchZipFile)
    assert checkpoint.entries[0].offset == checkpoint.archive.spans["data/1"].offset


def test_only_empty_storages_have_two_dtypes() -> None:
    empty = tensor([0], of=storage("1", 0))
    data = file_of(empty, tensor([0], of=storage("1", 0, "IntStorage")))
    found = contents(opened(data))
    assert found["a"] == expected(loaded(data))["a"]
    assert found["b"][1:] == ((0,), b"")
    for other in (storage("1", 4), storage("1", 4, "IntStorage")):
        full = {**RECORDS, "1": bytes(16)}
        for first, second, records in (
            (empty, tensor(of=other), RECORDS),
            (tensor(of=other), empty, full),
        ):
            with pytest.raises(FormatError, match="storage 1 has two dtypes or sizes"):
                opened(file_of(first, second, records=records))


FIELDS = (
    text("storage"), global_("torch", "FloatStorage"), text("0"), text("cpu"), number(4),
)  # fmt: skip


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (0, text("storages")), (0, b"N"), (1, text("torch.FloatStorage")), (1, b"N"),
        (2, number(0)), (2, b"N"), (3, number(0)), (3, b"N"),
        (4, text("4")), (4, b"N"), (4, b"\x88"), (4, number(-1)), (4, number(2**63)),
    ],
)  # fmt: skip
def test_storage_with_a_wrong_field_is_refused(place: int, field: bytes) -> None:
    fields = [*FIELDS[:place], field, *FIELDS[place + 1 :]]
    says = refused(tensor(of=tuple_of(*fields) + hostile.BINPERSID))
    assert "not a storage" in says or "is not a size, stride or offset" in says


@pytest.mark.parametrize("fields", [FIELDS[:4], (*FIELDS, b"N", b"N")], ids=["four", "seven"])
def test_storage_of_too_few_or_many_fields_is_refused(fields: Sequence[bytes]) -> None:
    assert "not a storage" in refused(tensor(of=tuple_of(*fields) + hostile.BINPERSID))


@pytest.mark.parametrize("location", ["cpu", "cuda:0", "mps", "xla:1", "npu:0"])
def test_location_of_a_storage_changes_nothing(location: str) -> None:
    fields = [*FIELDS[:3], text(location), FIELDS[4]]
    data = file_of(tensor(of=tuple_of(*fields) + hostile.BINPERSID))
    assert contents(opened(data)) == expected(loaded(data, map_location="cpu"))


@pytest.mark.parametrize("key", ["\ud800", "a\udfff"])
def test_key_with_half_a_surrogate_pair_is_refused(key: str) -> None:
    with pytest.raises(FormatError, match="is not valid Unicode"):
        opened(file_of(tensor(), keys=[key]))


@pytest.mark.parametrize("key", ["\ud7ff", "\ue000"], ids=ascii)
def test_key_beside_the_surrogates_is_kept(key: str) -> None:
    data = file_of(tensor(), keys=[key])
    assert contents(opened(data)) == expected(loaded(data))


def test_pairs_become_a_dict_that_can_have_attributes() -> None:
    """As before Python 2.7."""
    pairs = b"](" + tuple_of(text("a"), tensor()) + b"]" + text("b") + b"a" + tensor() + b"ae"
    made = call("collections", "OrderedDict", pairs)
    data = torch_file(hostile.PROTO2 + made + b"}" + text("x") + b"Nsb.", RECORDS)
    found: dict[str, torch.Tensor] = loaded(data)
    assert list(found) == ["a", "b"]
    assert contents(opened(data)) == expected(found)
