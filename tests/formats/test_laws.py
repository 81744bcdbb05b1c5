"""Laws that hold for whatever torch.save and safetensors write, and for every byte changed."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from ckpt.errors import CkptError, FormatError
from ckpt.formats import format_for
from ckpt.formats.checkpoint import Checkpoint
from ckpt.tensors import Span
from tests.effort import examples
from tests.formats import hostile
from tests.formats.support import (
    Contents,
    contents,
    expected,
    loaded,
    opened,
    renamed,
    saved,
    torch_file,
    written,
)

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2),
    *(torch.complex64, torch.int64, torch.int32, torch.int8, torch.uint8, torch.uint32),
    torch.bool,
]
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of any bytes, contiguous or a view."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = torch.empty(shape).numel() + 3
    data = bytearray(
        draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    )
    if dtype == torch.bool:
        data = bytearray(byte & 1 for byte in data)
    flat = torch.frombuffer(data, dtype=dtype).clone()
    whole = flat[3:].reshape(shape)  # with an offset in its storage
    match draw(
        st.sampled_from(["whole", "transposed", "sliced", "expanded", "strided", "parameter"])
    ):
        case "transposed":
            return whole.permute(tuple(reversed(range(whole.ndim))))
        case "sliced" if whole.ndim:
            return whole[::2]
        case "expanded":
            return whole.expand(2, *shape)
        case "strided":
            return flat.as_strided((2, 2), (1, 1))
        case "parameter" if dtype.is_floating_point:
            return torch.nn.Parameter(whole)
    return whole


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """A state_dict, some of whose tensors are tied."""
    state: dict[str, torch.Tensor] = {}
    for key in draw(st.lists(KEYS, min_size=1, max_size=5, unique=True)):
        tied = draw(st.booleans()) and state
        state[key] = draw(st.sampled_from(list(state.values()))) if tied else draw(tensors())
    return state


def as_safetensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What save_file takes: contiguous tensors that share nothing."""
    return {
        key: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        for key, tensor in state.items()
        if key != "__metadata__"
    }


@given(state_dicts(), st.integers(2, 5))
@settings(max_examples=examples(150))
def test_what_torch_saves_is_read_bit_for_bit(
    state: dict[str, torch.Tensor], protocol: int
) -> None:
    data = saved(state, pickle_protocol=protocol)
    assert contents(opened(data)) == expected(state)
    assert renamed(data, {}) == data


OLD = {"_use_new_zipfile_serialization": False}
PLAIN = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans())
ANY_KEYS = st.one_of(KEYS, st.integers(-3, 300), st.booleans(), st.none(), st.binary(max_size=3))
NESTED = st.recursive(
    st.one_of(state_dicts(), PLAIN, tensors()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(ANY_KEYS, inner, max_size=3),
        st.dictionaries(KEYS.filter(lambda key: "." not in key), inner, max_size=3),
    ),
)


def held(value: object) -> Iterator[torch.Tensor]:
    """The tensors in nested dicts and lists, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from held(each)


def mappings(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[Any, Any]]]:
    """The dicts that hold tensors themselves, by dotted path, reached by text keys alone."""
    if isinstance(value, dict):
        if path and any(isinstance(each, torch.Tensor) for each in value.values()):
            yield ".".join(path), value
        for key, each in value.items():
            if isinstance(key, str):
                yield from mappings(each, (*path, key))


def read_or_refused(data: bytes, inside: str | None = None) -> Contents | str:
    """What a file holds, or why it is refused."""
    try:
        return contents(opened(data, inside))
    except FormatError as error:
        return str(error)


def bits(tensors: Iterable[torch.Tensor]) -> list[tuple[str, tuple[int, ...], bytes]]:
    return [expected({"": each})[""] for each in tensors]


@given(st.dictionaries(ANY_KEYS, NESTED, max_size=4), st.sampled_from([{}, OLD]), st.integers(2, 5))
@example({"a.b": {"x": torch.ones(1)}, "a": {"b": {"x": torch.ones(1)}}}, {}, 2)
@settings(max_examples=examples(200))
def test_nested_values_are_read_bit_for_bit(
    value: dict[Any, Any], form: dict[str, Any], protocol: int
) -> None:
    """Each state_dict by its path, and what has none by the paths of its tensors."""
    data = saved(value, pickle_protocol=protocol, **form)
    paths = [path for path, _ in mappings(value)]
    for path, state in mappings(value):
        found = read_or_refused(data, path)
        if paths.count(path) > 1:
            assert "have the name" in found
            continue
        if isinstance(found, str):  # two others have the same name
            assert "have the name" in found
            continue
        wanted = [each for each in state.values() if isinstance(each, torch.Tensor)]
        assert list(found.values()) == bits(wanted)
        texts = [k for k, v in state.items() if isinstance(v, torch.Tensor) and isinstance(k, str)]
        assert [key for key in found if key in texts] == texts
    whole = read_or_refused(data)
    if isinstance(whole, str):
        assert any(says in whole for says in ("state_dicts", "no tensors", "the same path as text"))
        return
    assert renamed(data, {}) == data
    if not paths and not any(isinstance(each, torch.Tensor) for each in value.values()):
        assert list(whole.values()) == bits(held(value)), "no tensor is left out"


@given(st.data(), state_dicts(), st.sampled_from([2, 4]))
@settings(max_examples=examples(400))
def test_changed_byte_of_whatever_torch_saves_is_found_or_means_nothing(
    draw: st.DataObject, state: dict[str, torch.Tensor], protocol: int
) -> None:
    good = saved({"model": state, "epoch": 3}, pickle_protocol=protocol)
    mutant, (place,) = draw.draw(mutants(good))
    before = opened(good)
    stored = [Span(each.span.offset, each.span.nbytes) for each in before.checksums]
    if any(span.offset <= place < span.end for span in stored):
        return  # the records' own sums, or `--deep`, find these
    try:
        found = contents(opened(mutant))
    except CkptError:
        return
    assert found == contents(before)


@pytest.mark.long
@given(st.data(), state_dicts())
@settings(max_examples=examples(300))
def test_changed_byte_of_whatever_safetensors_saves_is_found_or_read_alike(
    draw: st.DataObject, state: dict[str, torch.Tensor]
) -> None:
    mutant, _ = draw.draw(mutants(save(as_safetensors(state)), most=3))
    try:
        found = contents(opened(mutant))
    except CkptError:
        return
    assert with_truth(found) == with_truth(expected(load(mutant)))


def with_truth(held: Contents) -> Contents:
    """A bool that is neither 0 nor 1 is read as true."""
    return {
        key: (dtype, shape, bytes(map(bool, data)) if dtype == "bool" else data)
        for key, (dtype, shape, data) in held.items()
    }


@given(state_dicts(), st.dictionaries(KEYS, KEYS, max_size=3))
@settings(max_examples=examples(100))
def test_what_safetensors_saves_is_read_bit_for_bit(
    state: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    # safetensors 0.8 writes no JSON for no tensors with an empty metadata; None is left out.
    data = save(as_safetensors(state), metadata or None)
    checkpoint = opened(data)
    assert contents(checkpoint) == expected(load(data))
    assert checkpoint.rest == metadata
    assert contents(opened(renamed(data, {}))) == contents(checkpoint)


@given(state_dicts(), st.data(), st.sampled_from(["pt", "pt4", "safetensors"]))
@settings(max_examples=examples(150))
def test_rename_keeps_bytes_order_and_all_else(
    state: dict[str, torch.Tensor], draw: st.DataObject, form: str
) -> None:
    if form == "safetensors":
        data, inside = save(as_safetensors(state)), None
    else:
        value = {"model": state, "ema": state.copy(), "keys": list(state)}
        data, inside = saved(value, pickle_protocol=4 if form == "pt4" else 2), "model"
    checkpoint = opened(data, inside)
    keys = [entry.key for entry in checkpoint.entries]
    names = KEYS.filter(lambda key: key != "__metadata__")
    new = draw.draw(st.lists(st.sampled_from(keys) | names if keys else names,
                             min_size=len(keys), max_size=len(keys), unique=True))  # fmt: skip
    new_keys = dict(zip(keys, new, strict=True))
    after = opened(written(checkpoint.renamed(new_keys), checkpoint), inside)
    before = contents(checkpoint)
    assert list(contents(after).items()) == [(new_keys[key], before[key]) for key in before]
    assert after.rest == checkpoint.rest
    if inside is not None:
        assert contents(opened(after.source.read(0, after.source.size), "ema")) == before


@given(state_dicts(), st.sampled_from([".pt", ".safetensors"]))
@settings(max_examples=examples(150))
def test_new_file_holds_what_the_old_one_held(state: dict[str, torch.Tensor], suffix: str) -> None:
    state.pop("__metadata__", None)
    checkpoint = opened(saved(state))
    data = laid_out(checkpoint, suffix)
    assert contents(opened(data)) == contents(checkpoint)
    theirs = loaded(data) if suffix == ".pt" else load(data)
    assert expected(theirs) == expected(state)


def laid_out(checkpoint: Checkpoint, suffix: str) -> bytes:
    form = format_for(Path(f"x{suffix}"))
    return written(form.lay_out(checkpoint.entries, name="x"), checkpoint)


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "a.bias": torch.ones(2), "b": torch.ones(1)}
GOOD = saved({"model": STATE, "epoch": 3})
GOOD_SAFETENSORS = save(as_safetensors(STATE), {"format": "pt"})
PICKLE = hostile.state_dict(hostile.tensor((2, 2), (1, 2)), hostile.LIST, hostile.text("good"))


@st.composite
def mutants(draw: st.DrawFn, good: bytes, most: int = 1) -> tuple[bytes, list[int]]:
    """Good bytes, some of them changed, and where."""
    data, places = bytearray(good), []
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data) - 1))
        places.append(at)
        data[at] = draw(st.integers(0, 255))
    return bytes(data), places


@given(mutants(GOOD))
@settings(max_examples=examples(1500))
def test_changed_byte_of_a_torch_file_is_found_or_means_nothing(
    mutant: tuple[bytes, list[int]],
) -> None:
    data, (place,) = mutant
    good = opened(GOOD)
    try:
        found = opened(data)
        held = contents(found)
        again = contents(opened(written(found.renamed({}), found)))
    except CkptError:
        return
    assert held == again
    assert found.rest == good.rest
    if not any(span.offset <= place < span.end for span in [*good.spans, *unspanned(good)]):
        assert held == contents(good)


def unspanned(checkpoint: Checkpoint) -> list[Span]:
    """Where tensors lie that are not contiguous."""
    return [Span(entry.offset, entry.nbytes) for entry in checkpoint.entries if entry.stride]


@given(mutants(GOOD_SAFETENSORS, most=3))
@settings(max_examples=examples(1000))
def test_changed_bytes_of_a_safetensors_file_are_found_or_read_as_the_library_reads_them(
    mutant: tuple[bytes, list[int]],
) -> None:
    data, _ = mutant
    try:
        held = contents(opened(data))
    except CkptError:
        return
    assert held == expected(load(data))


@given(mutants(PICKLE, most=4), st.integers(0, len(PICKLE)))
@settings(max_examples=examples(2000))
def test_changed_pickle_is_described_or_refused(mutant: tuple[bytes, list[int]], end: int) -> None:
    for pickle in (mutant[0], mutant[0][:end]):
        data = torch_file(pickle, {"0": bytes(range(16))})
        try:
            checkpoint = opened(data)
            again = opened(written(checkpoint.renamed({}), checkpoint))
        except CkptError:
            continue
        assert contents(again) == contents(checkpoint)
        assert again.rest == checkpoint.rest


@given(st.binary(max_size=300))
@settings(max_examples=examples(300))
@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"\x80\x02", b"\x20\0\0\0\0\0\0\0{"])
def test_any_bytes_are_refused_in_a_line(head: bytes, body: bytes) -> None:
    with pytest.raises(CkptError) as refused:
        opened(head + body)
    assert refused.value.exit_code == 3
    assert "\n" not in str(refused.value)
