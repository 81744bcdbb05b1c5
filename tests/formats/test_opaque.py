"""Which globals torch may be told to accept, and the bytes of a layout."""

import itertools

import pytest

from ckpt.errors import FormatError
from ckpt.formats.opaque import LaidOut, foreign_among, safe_globals
from ckpt.io.sources import Part
from ckpt.tensors import Span, Summed, TensorEntry
from tests.formats.support import Memory


def test_layout_over_a_source_is_read_at_any_range() -> None:
    """Whatever pieces it has, of no bytes as well."""
    data = bytes(range(50))
    layout = [Span(5, 0), b"", b"abc", Span(10, 4), b"", Span(30, 0), Span(2, 3), b"z", b""]
    source = Memory(data)
    laid_out = LaidOut(source, layout)
    whole = b"abc" + data[10:14] + data[2:5] + b"z"
    assert laid_out.size == len(whole)
    for begin, end in itertools.combinations_with_replacement(range(len(whole) + 1), 2):
        assert laid_out.read(begin, end - begin) == whole[begin:end]
    assert all(nbytes for _, nbytes in source.reads)
    assert laid_out.parts == (Part("file", 0, 11),)
    assert laid_out.rights == source.rights


def test_layout_whose_sums_are_unknown_is_not_read() -> None:
    entry = TensorEntry("a", "uint8", (1,), 0)
    for piece in (Summed(entry), entry):
        with pytest.raises(FormatError, match=r"^file: a record without a checksum"):
            LaidOut(Memory(b"a"), [piece])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("omegaconf.dictconfig.DictConfig", True),
        ("argparse.Namespace", True),
        ("builtins.dict", True),
        ("builtins.frozenset", True),
        ("uuid.UUID", True),
        ("collections.deque", False),
        ("collections.defaultdict", False),
        ("lightning.fabric.utilities.data.AttributeDict", False),
        ("os.System", False),
        ("package.function", False),
        ("package.sub.Class-1", False),
        ("package.Class", True),
    ],
)
def test_global_that_torch_may_be_told_to_accept(name: str, told: bool) -> None:
    line = f"torch.serialization.add_safe_globals([{name.removeprefix('builtins.')}])"
    assert safe_globals([name]) == (line if told else None)


def test_foreign_globals_keep_their_order_and_places() -> None:
    named = {"os.system": 7, "torch.FloatStorage": 3, "argparse.Namespace": 12}
    assert [(it.name, it.offset, it.runs_code) for it in foreign_among(named)] == [
        *(("os.system", 7, True), ("argparse.Namespace", 12, False)),
    ]
