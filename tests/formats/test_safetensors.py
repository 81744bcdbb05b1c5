"""safetensors: as strict as the library, and stricter where it loses something in silence."""

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from ckpt.errors import FormatError, KeyCollisionError
from ckpt.formats.safetensors import is_start, recognises
from tests.formats.support import contents, expected, opened, renamed

F32 = '{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}'
A, B = F32 % (0, 8), F32 % (8, 16)


def made(header: str | bytes, body: int = 0, length: int | None = None) -> bytes:
    """A file of this header, whatever it says, and `body` zeros."""
    data = header if isinstance(header, bytes) else header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data) if length is None else length) + data + bytes(body)


def one(shape: str = "[2]", offsets: str = "[0,8]", dtype: str = '"F32"') -> str:
    return f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'


REFUSED_BY_BOTH = {
    "seven bytes": b"\2\0\0\0\0\0\0",
    "length alone": struct.pack("<Q", 2),
    "length over the limit": made("{}", length=100_000_001),
    "length of 2^64-1": made("{}", length=2**64 - 1),
    "length past the file": made("{}", length=3),
    "length of zero": made("{}", length=0),
    "length one short": made("{}", length=1),
    "not utf-8": made(b'{"\xff":1}'),
    "latin-1": made('{"é":1}'.encode("latin-1")),
    "array": made("[]"),
    "null": made("null"),
    "number": made("1"),
    "text": made('"{}"'),
    "byte order mark": made(b"\xef\xbb\xbf{}"),
    "nan": made(one("[NaN]"), 8),
    "infinity": made(one("[Infinity]"), 8),
    "comment": made("{}/* */"),
    "comment before": made("/**/{}"),
    "trailing object": made("{}{}"),
    "trailing nul": made(b"{}\0\0"),
    "trailing comma": made('{"a":' + A + ",}", 8),
    "single quotes": made("{'a':1}"),
    "unclosed": made('{"a":' + A, 8),
    "control character in a string": made(b'{"a\n":' + A.encode() + b"}", 8),
    "overlap": made(f'{{"a":{A},"b":{F32 % (4, 12)}}}', 12),
    "same range twice": made(f'{{"a":{A},"b":{A}}}', 8),
    "hole": made(f'{{"a":{A},"b":{F32 % (12, 20)}}}', 20),
    "hole at the start": made(one(offsets="[8,16]"), 16),
    "trailing byte": made(one(), 9),
    "missing byte": made(one(), 7),
    "no body": made(one()),
    "body without tensors": made("{}", 8),
    "reversed offsets": made(one(offsets="[8,0]"), 8),
    "size mismatch": made(one(shape="[3]"), 8),
    "negative offset": made(one(offsets="[-8,0]"), 8),
    "negative size": made(one(shape="[-2]"), 8),
    "huge offset": made(one(offsets="[0,18446744073709551616]"), 8),
    "huge shape": made(one(shape="[4611686018427387904,4]"), 8),
    "shape that overflows to fit": made(one(shape="[4611686018427387904,4,2]"), 8),
    "digits without end": made(one(shape=f"[{'9' * 5000}]"), 8),
    "float shape": made(one(shape="[2.0]"), 8),
    "exponent": made(one(shape="[2e0]"), 8),
    "true as a size": made(one(shape="[true,2]"), 8),
    "text as a size": made(one(shape='["2"]'), 8),
    "shape is a number": made(one(shape="2"), 8),
    "shape is null": made(one(shape="null"), 8),
    "three offsets": made(one(offsets="[0,4,8]"), 8),
    "one offset": made(one(offsets="[8]"), 8),
    "offsets are null": made(one(offsets="null"), 8),
    "unknown dtype": made(one(dtype='"F33"'), 8),
    "lower-case dtype": made(one(dtype='"f32"'), 8),
    "dtype is a number": made(one(dtype="32"), 8),
    "no dtype": made('{"a":{"shape":[2],"data_offsets":[0,8]}}', 8),
    "no shape": made('{"a":{"dtype":"F32","data_offsets":[0,8]}}', 8),
    "no offsets": made('{"a":{"dtype":"F32","shape":[2]}}', 8),
    "entry is a list": made('{"a":["F32",[2]]}', 8),
    "entry is null": made('{"a":null}'),
    "metadata of numbers": made('{"__metadata__":{"epoch":1}}'),
    "metadata of null": made('{"__metadata__":{"epoch":null}}'),
    "nested metadata": made('{"__metadata__":{"a":{"b":"c"}}}'),
    "metadata is a list": made('{"__metadata__":["a"]}'),
    "deep nesting": made('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "deep nesting of objects": made('{"a":' * 100_000 + "1" + "}" * 100_000),
}

REFUSED_BY_US = {
    "duplicate tensor": made(f'{{"a":{A},"a":{B}}}', 16),
    "duplicate tensor, the same": made(f'{{"a":{A},"a":{A}}}', 8),
    "duplicate through an escape": made(f'{{"a":{A},"\\u0061":{A}}}', 8),
    "duplicate metadata key": made('{"__metadata__":{"a":"1","a":"2"}}'),
    "duplicate field": made('{"a":{"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
    "metadata twice": made('{"__metadata__":{},"__metadata__":{}}'),
    "unknown field": made('{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":1}}'),
    "empty name": made(f'{{"":{A}}}', 8),
    "blank before": made("  {}"),
    "half a surrogate pair": made(f'{{"\\ud800":{A}}}', 8),
    "thousands of dimensions": made(one(shape=str([1] * 2000 + [2])), 8),
}


@pytest.mark.parametrize("name", REFUSED_BY_BOTH)
def test_fault_18_refused_as_the_library_does(name: str) -> None:
    data = REFUSED_BY_BOTH[name]
    with pytest.raises(SafetensorError):
        load(data)
    with pytest.raises(FormatError) as refused:
        opened(data)
    assert str(refused.value).startswith("file: ")
    assert len(str(refused.value)) < 300
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("[[1],[2]]", "a: a list of 1 is not a size"),
        ('[{"b":1}]', "a: an object of 1 is not a size"),
        (f"[0,{2**62},2]", "a: 2"),
        (f"[0,{2**62},1]", None),
    ],
)
def test_shape_that_torch_cannot_have_is_named(shape: str, says: str | None) -> None:
    data = made(one(shape=shape, offsets="[0,0]"))
    if says is None:
        assert opened(data).entries[0].numel == 0
        return
    with pytest.raises(FormatError, match=says):
        opened(data)


@pytest.mark.parametrize(
    ("length", "theirs", "ours"),
    [
        (100_000_000, "invalid header length", "truncated"),
        (100_000_001, "header too large", "the limit is 100,000,000"),
    ],
)
def test_header_may_have_as_many_bytes_as_in_the_library(
    length: int, theirs: str, ours: str
) -> None:
    data = length.to_bytes(8, "little") + b"{}"
    with pytest.raises(SafetensorError, match=theirs):
        load(data)
    with pytest.raises(FormatError) as refused:
        opened(data)
    assert ours in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize(
    ("begin", "says"), [(4, "b: overlaps another, at byte"), (12, "b: leaves a hole before it, at")]
)
def test_place_that_does_not_follow_the_one_before_is_named(begin: int, says: str) -> None:
    other = f'{{"dtype":"F32","shape":[2],"data_offsets":[{begin},{begin + 8}]}}'
    with pytest.raises(FormatError, match=says):
        opened(made(f'{{"a":{A},"b":{other}}}', begin + 8))


@pytest.mark.parametrize("name", REFUSED_BY_US)
def test_fault_18_refused_where_the_library_is_silent(name: str) -> None:
    with pytest.raises(FormatError) as refused:
        opened(REFUSED_BY_US[name])
    assert len(str(refused.value)) < 300


def test_fault_18_cases_are_many() -> None:
    assert len(REFUSED_BY_BOTH) + len(REFUSED_BY_US) >= 50


@pytest.mark.parametrize(
    ("data", "keys", "rest"),
    [
        (made("{}"), [], {}),
        (made('{"__metadata__":null}'), [], {}),
        (made('{"__metadata__":{}}'), [], {}),
        (made('{"__metadata__":{"é":"\\u001b"}}'), [], {"é": "\x1b"}),
        (made(one() + "   ", 8), ["a"], {}),
        (made(f'{{"b":{B},"a":{A}}}', 16), ["b", "a"], {}),
        (made(f'{{"\\u001b[2J\\u202e\\u0000":{A}}}', 8), ["\x1b[2J\u202e\0"], {}),
        (made(one(shape="[]", offsets="[0,4]"), 4), ["a"], {}),
        (made(one(shape="[3,0,2]", offsets="[0,0]")), ["a"], {}),
    ],
    ids=[
        "nothing", "null metadata", "empty metadata", "control characters in metadata",
        "spaces after", "order of the header", "control characters in a name", "scalar", "no bytes",
    ],
)  # fmt: skip
def test_fault_18_legal_oddities_are_read(
    data: bytes, keys: list[str], rest: dict[str, str]
) -> None:
    checkpoint = opened(data)
    assert [entry.key for entry in checkpoint.entries] == keys
    assert checkpoint.rest == rest
    assert sorted(load(data)) == sorted(keys)


STATE = {
    "conv.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "conv.bias": torch.tensor([True, False, True]),
    "scale": torch.tensor(2.5, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
}


def test_fault_19_truncated_at_every_byte() -> None:
    data = save(STATE, {"format": "pt"})
    for end in range(len(data)):
        with pytest.raises(FormatError):
            opened(data[:end])


def test_fault_19_every_header_byte_flipped_is_refused_or_read_like_the_library() -> None:
    data = save(STATE, {"format": "pt"})
    header = 8 + int.from_bytes(data[:8], "little")
    read = 0
    for index in range(header):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            mutant = data[:index] + bytes([data[index] ^ mask]) + data[index + 1 :]
            try:
                found = contents(opened(mutant))
            except FormatError:
                continue
            assert found == expected(load(mutant))
            read += 1
    assert read  # a letter of a name changes the name and nothing else


@pytest.mark.long
def test_fault_20_header_of_many_names() -> None:
    entries = ",".join(f'"layer.{i}.weight":{F32 % (8 * i, 8 * i + 8)}' for i in range(50_000))
    checkpoint = opened(made(f"{{{entries}}}", 8 * 50_000))
    assert len(checkpoint.entries) == 50_000
    assert checkpoint.entries[-1].key == "layer.49999.weight"


@pytest.mark.parametrize(
    "flood",
    [b'"a":{},', b'"a":[],', b"1,"],
    ids=["objects", "lists", "numbers"],
)
def test_fault_20_flood_is_refused_before_it_is_parsed(flood: bytes) -> None:
    data = made(b'{"a":[' + flood * 5_000_000 + b"1]}")
    begun = time.process_time()
    with pytest.raises(FormatError, match="more than 250,000 tensors"):
        opened(data)
    assert time.process_time() - begun < 3


@pytest.mark.parametrize(
    ("mark", "most"), [("{", 250_002), ("[", 500_000), (",", 4_000_000)], ids=str
)
def test_fault_20_marks_of_as_many_tensors_as_the_limit_are_parsed(mark: str, most: int) -> None:
    """Two braces are of the whole and its metadata; the JSON is wrong otherwise."""
    before = "" if mark == "{" else "{"
    with pytest.raises(FormatError, match="not valid JSON"):
        opened(made(before + mark * most))
    with pytest.raises(FormatError, match="a header of more than 250,000 tensors"):
        opened(made(before + mark * (most + 1)))


def test_shape_may_have_a_thousand_dimensions() -> None:
    assert opened(made(one(shape=str([1] * 999 + [2])), 8)).entries[0].numel == 2
    with pytest.raises(FormatError, match="a: 1,001 dimensions"):
        opened(made(one(shape=str([1] * 1000 + [2])), 8))


def test_size_is_below_two_to_the_63() -> None:
    largest = 2**63 - 1
    found = opened(made(one(shape=f"[0,{largest}]", offsets="[0,0]"))).entries[0]
    assert found.shape == (0, largest)
    with pytest.raises(FormatError, match="a: 9223372036854775808 is not a size or offset"):
        opened(made(one(shape=f"[0,{largest + 1}]", offsets="[0,0]")))


def test_tied_names_stay_apart() -> None:
    """`save_model` notes a tied tensor in the metadata, under the key that it kept."""
    data = save({"a": torch.ones(2)}, {"b": "a", "c": "a"})
    assert opened(data).aliases == {"b": "a", "c": "a"}
    assert opened(renamed(data, {"b": "x", "a": "y"})).aliases == {"x": "y", "c": "y"}
    with pytest.raises(KeyCollisionError, match="two names of __metadata__ would be equal"):
        renamed(data, {"b": "c"})


def test_start_is_the_whole_header_of_a_file_of_its_size() -> None:
    data = save({"a": torch.ones(2)})
    start = data[:-8]
    assert is_start(start, len(data))
    for wrong, size in ((start[:-1], len(data)), (data, len(data)), (start, len(data) + 1)):
        assert not is_start(wrong, size)


def test_format_is_known_by_a_short_length_and_a_brace() -> None:
    assert recognises(b"\2\0\0\0\0\0\0\0{}")
    assert not recognises(b"\2\0\0\0\1\0\0\0{}")
    assert not recognises(b"\2\0\0\0\0\0\0\0}{")


def test_metadata_tells_the_writer_and_names_keys() -> None:
    file = opened(save({"a": torch.ones(2)}, {"format": "pt", "b": "a"}))
    assert file.written_by == "a PyTorch writer"
    assert file.also_named({"a"}) == file.also_named({"b"}) == ("__metadata__",)
    assert file.also_named({"format"}) == ()


def test_what_is_untouched_is_what_names_no_renamed_key() -> None:
    """Whether its new name sorts before the old one or after."""
    data = save({"f": torch.ones(2), "m": torch.ones(2)}, {"b": "f", "c": "m", "note": "kept"})
    new_keys = {"f": "z", "m": "a"}
    assert opened(data).untouched(new_keys) == {"__metadata__": [{"note": "kept"}, []]}
    assert opened(data).untouched({}) == {
        "__metadata__": [{"b": "f", "c": "m", "note": "kept"}, []]
    }


def test_offsets_of_a_body_larger_than_its_header_are_kept() -> None:
    state = {"a": torch.zeros(99), "b": torch.ones(99)}
    assert expected(load(renamed(save(state), {"a": "c"}))) == expected(
        {"c": state["a"], "b": state["b"]}
    )


@pytest.mark.parametrize("more", range(12))
def test_new_header_takes_the_place_of_the_old_one_if_it_fits(more: int) -> None:
    data = save({"w": torch.ones(2), "conv": torch.ones(3)})
    room = 8 + int.from_bytes(data[:8], "little")
    key = "conv" + "x" * more
    start = opened(data).start_renamed({"conv": key})  # type: ignore[attr-defined]
    fits = len(data[8:room].rstrip(b" ")) + more <= room - 8
    assert (start is not None) == fits
    if start is not None:
        assert set(load(start + data[room:])) == {"w", key}


def test_rename_keeps_order_metadata_and_body() -> None:
    data = save(STATE, {"format": "pt", "license": "mit"})
    new = renamed(data, {"conv.weight": "embed.weight", "conv.bias": "embed.bias"})
    length = int.from_bytes(new[:8], "little")
    assert length % 8 == 0
    header = json.loads(new[8 : 8 + length])
    old_header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header) == [key.replace("conv.", "embed.") for key in old_header]
    assert header["__metadata__"] == {"format": "pt", "license": "mit"}
    assert list(header.values()) == list(old_header.values())
    assert new[8 + length :] == data[8 + int.from_bytes(data[:8], "little") :]
    assert contents(opened(new)) == expected(load(new))


def test_rename_of_nothing_is_the_same_file() -> None:
    data = save(STATE, {"format": "pt"})
    assert renamed(data, {}) == data


@pytest.mark.parametrize(
    ("new_keys", "error"),
    [
        ({"scale": "empty"}, KeyCollisionError),
        ({"scale": ""}, FormatError),
        ({"scale": "__metadata__"}, FormatError),
        ({"scale": "\ud800"}, FormatError),
    ],
)
def test_rename_that_would_lose_something_is_refused(
    new_keys: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        renamed(save(STATE), new_keys)


def test_swapped_keys(tmp_path: Path) -> None:
    data = save({"a": torch.zeros(2), "b": torch.ones(2)})
    (tmp_path / "x.safetensors").write_bytes(renamed(data, {"a": "b", "b": "a"}))
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.get_tensor("a").tolist() == [1, 1]
        assert file.get_tensor("b").tolist() == [0, 0]


def test_inside_of_a_safetensors_file_is_refused() -> None:
    with pytest.raises(FormatError, match="file::model: a safetensors file holds one state_dict"):
        opened(save(STATE), "model")


def test_message_says_found_against_expected() -> None:
    with pytest.raises(FormatError) as refused:
        opened(save(STATE)[:-1])
    assert str(refused.value) == (
        "file: the header promises 53 bytes of tensors, the file holds 52"
    )
    assert refused.value.hint == "the file is truncated; fetch it again"
