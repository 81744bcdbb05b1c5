"""A renamed .pt: the keys change and nothing else, and torch opens it."""

import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.serialization import config

from ckpt.errors import AmbiguousStateError, FormatError, KeyCollisionError
from ckpt.formats.zip.reader import read_members
from ckpt.formats.zip.writer import NewMember, lay_out_archive
from ckpt.tensors import Span
from tests.formats import hostile
from tests.formats.support import (
    contents,
    expected,
    loaded,
    opened,
    renamed,
    saved,
    torch_file,
)

STATE = OrderedDict(
    {
        "conv.weight": torch.arange(6.0).reshape(2, 3),
        "conv.bias": torch.ones(2),
        "fc": torch.ones(1),
    }
)
EMBED = {"conv.weight": "embed.weight", "conv.bias": "embed.bias"}


def renamed_dict(state: dict[str, Any], new_keys: dict[str, str]) -> dict[str, Any]:
    return {new_keys.get(key, key): value for key, value in state.items()}


def records(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("alignment", [64, 4096, 1])
def test_rename_of_nothing_is_the_same_file(protocol: int, alignment: int) -> None:
    before = config.save.storage_alignment
    config.save.storage_alignment = alignment
    try:
        data = saved({"model": STATE, "empty": torch.zeros(0)}, pickle_protocol=protocol)
    finally:
        config.save.storage_alignment = before
    assert renamed(data, {}, "model") == data


def test_rename_changes_the_pickle_alone() -> None:
    data = saved(STATE)
    new = renamed(data, EMBED)
    before, after = records(data), records(new)
    assert list(before) == list(after)
    assert [name for name in before if before[name] != after[name]] == ["archive/data.pkl"]
    assert list(loaded(new)) == ["embed.weight", "embed.bias", "fc"]
    assert contents(opened(new)) == expected(renamed_dict(STATE, EMBED)) == expected(loaded(new))


def test_renamed_file_can_be_mapped_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(renamed(saved(STATE), {"conv.weight": "a.much.longer.name.than.it.had"}))
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert expected(mapped) == contents(opened(path.read_bytes()))
    assert all(entry.offset % 64 == 0 for entry in opened(path.read_bytes()).entries)


def test_offsets_are_where_torch_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_SERIALIZATION_DEBUG", "1")  # torch compares them with what is there
    new = renamed(saved(STATE), EMBED)
    assert expected(loaded(new)) == expected(renamed_dict(STATE, EMBED))


@pytest.mark.parametrize("protocol", [2, 4])
def test_swap_and_chain(protocol: int) -> None:
    state = {"a": torch.zeros(1), "b": torch.ones(1), "c": torch.full((1,), 2.0)}
    new_keys = {"a": "b", "b": "c", "c": "a"}
    new = renamed(saved(state, pickle_protocol=protocol), new_keys)
    assert contents(opened(new)) == expected(renamed_dict(state, new_keys))


def test_same_text_elsewhere_is_kept() -> None:
    key = "storage"  # what torch's own references to storages begin with
    value = {"before": key, "model": {key: torch.ones(2), "cpu": torch.zeros(1)}, "names": [key]}
    new = loaded(renamed(saved(value), {key: "x", "cpu": "storage"}))
    assert new["before"] == key
    assert new["names"] == [key]
    assert {key: tensor.tolist() for key, tensor in new["model"].items()} == {
        "x": [1, 1],
        "storage": [0],
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_other_state_dicts_with_the_same_keys_are_kept(protocol: int) -> None:
    ema = {key: tensor + 1 for key, tensor in STATE.items()}
    data = saved({"ema": ema, "model": STATE, "names": list(STATE)}, pickle_protocol=protocol)
    for inside, other in (("model", "ema"), ("ema", "model")):
        new = renamed(data, EMBED, inside)
        assert [entry.key for entry in opened(new, inside).entries] == [*EMBED.values(), "fc"]
        assert contents(opened(new, other)) == contents(opened(data, other))
        assert opened(new, inside).rest["names"] == list(STATE)


def test_pickle_of_several_frames_is_renamed() -> None:
    """Protocol 4 begins a frame every 64 KiB; a new pickle has none."""
    state = {f"layer.{number}.weight": torch.full((1,), float(number)) for number in range(3000)}
    data = saved(state, pickle_protocol=4)
    new_keys = {key: key.replace("layer", "block") for key in state}
    new = torch.load(BytesIO(renamed(data, new_keys)), weights_only=False)
    assert {key: it.item() for key, it in new.items()} == {
        new_keys[key]: it.item() for key, it in state.items()
    }


def test_first_state_dict_of_which_all_others_are_copies_is_chosen() -> None:
    """`AveragedModel` of torch adds a prefix and a counter."""
    average = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 1)).state_dict()
    model = torch.nn.Linear(2, 1).state_dict()
    checkpoint = opened(saved({"ema": average, "model": model}), "*")
    assert [entry.key for entry in checkpoint.entries] == [*model]
    other = {"c.weight": torch.ones(2)}
    with pytest.raises(AmbiguousStateError):
        opened(saved({"ema": average, "model": model, "other": other}), "*")


def test_one_state_dict_under_two_names_has_its_new_keys_under_both() -> None:
    new = loaded(renamed(saved({"best": STATE, "last": STATE}), EMBED, "last"))
    assert new["best"] is new["last"]
    assert list(new["best"]) == [*EMBED.values(), "fc"]


def test_training_checkpoint_keeps_all_else() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    value = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    new_keys = {key: key.replace("0.", "fc.") for key in value["model"] if key[0] == "0"}
    new = loaded(renamed(saved(value), new_keys))
    assert expected(new["model"]) == expected(renamed_dict(value["model"], new_keys))
    assert new["epoch"] == 3
    assert new["optimizer"]["param_groups"] == value["optimizer"]["param_groups"]
    for index, state in value["optimizer"]["state"].items():
        assert expected(new["optimizer"]["state"][index]) == expected(state)


def modules(state: Any, new_keys: dict[str, str]) -> dict[str, int]:
    """The versions in `_metadata` after a rename."""
    new = loaded(renamed(saved(state), new_keys))
    assert list(new) == [new_keys.get(key, key) for key in state]
    return {name: about["version"] for name, about in new._metadata.items()}


def network() -> torch.nn.Module:
    block = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    return torch.nn.ModuleDict({"block": block, "head": torch.nn.Linear(2, 1)})


def prefixed(old: str, new: str, state: Any) -> dict[str, str]:
    return {key: new + key.removeprefix(old) for key in state if key.startswith(old)}


OLD = {"": 1, "block": 1, "block.0": 1, "block.1": 2, "head": 1}


@pytest.mark.parametrize(
    ("old", "new", "versions"),
    [
        ("block.1.", "norm.", {"": 1, "block": 1, "block.0": 1, "norm": 2, "head": 1}),
        ("block.", "trunk.", {"": 1, "trunk": 1, "trunk.0": 1, "trunk.1": 2, "head": 1}),
        ("block.", "a.b.", {"": 1, "a.b": 1, "a.b.0": 1, "a.b.1": 2, "head": 1}),
        ("", "module.", {"module": 1, **{f"module.{n}": v for n, v in OLD.items() if n}}),
        ("block.1.weight", "block.1.gamma", OLD),
        ("block.", "", {"": 1, "block": 1, "0": 1, "1": 2, "head": 1}),
    ],
    ids=["one module", "several", "deeper", "prefix", "parameter", "prefix dropped"],
)
def test_module_versions_follow_their_tensors(old: str, new: str, versions: dict[str, int]) -> None:
    state = network().state_dict()
    assert modules(state, prefixed(old, new, state)) == versions


def test_module_version_follows_though_all_its_parameters_get_other_names() -> None:
    state = torch.nn.ModuleDict({"bn": torch.nn.BatchNorm1d(2)}).state_dict()
    new_keys = {key: f"norm.my_{key.removeprefix('bn.')}" for key in state}
    assert modules(state, new_keys) == {"": 1, "norm": 2}


def test_modules_around_follow_too() -> None:
    state = network().state_dict()
    new_keys = {key: f"t{key.removeprefix('block')}_" for key in state if key.startswith("block")}
    assert modules(state, new_keys) == {"": 1, "t": 1, "t.0": 1, "t.1": 2, "head": 1}


def test_module_that_is_torn_apart_keeps_its_version_where_it_was() -> None:
    state = network().state_dict()
    new_keys = {"head.weight": "a.weight", "head.bias": "b.bias"}
    assert modules(state, new_keys) == OLD


def test_modules_that_become_one_do_not_lose_the_others() -> None:
    state = network().state_dict()
    new_keys = {"head.weight": "x.weight2", "head.bias": "x.bias2"}
    new_keys |= prefixed("block.0.", "x.", state) | prefixed("block.1.", "norm.", state)
    versions = modules(state, new_keys)
    assert versions["norm"] == 2
    assert versions["x"] == 1
    assert len(versions) == len(OLD)


def test_batch_norm_without_its_counter_is_still_refused_by_torch() -> None:
    """What `_metadata` is for: version 2 makes a missing num_batches_tracked an error."""
    state = torch.nn.ModuleDict({"old": torch.nn.BatchNorm1d(2)}).state_dict()
    del state["old.num_batches_tracked"]
    new = loaded(renamed(saved(state), prefixed("old.", "new.", state)))
    with pytest.raises(RuntimeError, match=r"new\.num_batches_tracked"):
        torch.nn.ModuleDict({"new": torch.nn.BatchNorm1d(2)}).load_state_dict(new)


@pytest.mark.parametrize(
    ("new_keys", "error", "says"),
    [
        ({"conv.weight": "fc"}, KeyCollisionError, "two keys would become 'fc'"),
        ({"conv.weight": "epoch"}, KeyCollisionError, "two keys would become 'epoch'"),
        ({"fc": ""}, FormatError, "a key would become empty"),
        ({"fc": "\udc80"}, FormatError, "not valid Unicode"),
    ],
)
def test_rename_that_would_lose_something_is_refused(
    new_keys: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        renamed(saved({**STATE, "epoch": 3}), new_keys)


def test_fault_08_checksums_of_records_are_copied_as_they_are() -> None:
    data = bytearray(saved(STATE))
    data[opened(bytes(data)).entries[0].offset] ^= 1  # a damaged tensor stays known as damaged
    with zipfile.ZipFile(BytesIO(renamed(bytes(data), EMBED))) as archive:
        assert archive.testzip() == "archive/data/0"
    torch.serialization.set_crc32_options(False)
    try:
        unchecked = saved(STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(BytesIO(renamed(unchecked, EMBED))) as archive:
        assert {each.CRC for each in archive.infolist() if "/data/" in each.filename} == {0}


def test_record_that_only_ends_like_the_pickle_is_kept() -> None:
    data = torch_file(hostile.state_dict(), {"0": bytes(16), "x/data.pkl": b"other"})
    assert records(renamed(data, {"good": "new"}))["archive/data/x/data.pkl"] == b"other"


def test_memo_slot_that_is_used_again_for_other_text() -> None:
    """The slot of a key is fetched, overwritten, and fetched again."""
    pickle = (
        hostile.PROTO2 + hostile.DICT + hostile.MARK
        + hostile.text("a") + hostile.put(0) + hostile.tensor()
        + hostile.text("first") + hostile.get(0)
        + hostile.text("b") + hostile.put(0) + hostile.tensor()
        + hostile.text("second") + hostile.get(0)
        + hostile.SETITEMS + hostile.STOP
    )  # fmt: skip
    new = loaded(renamed(torch_file(pickle, {"0": bytes(16)}), {"a": "x", "b": "a"}))
    assert list(new) == ["x", "first", "a", "second"]
    assert (new["first"], new["second"]) == ("a", "b")


def test_large_files_get_64_bit_fields() -> None:
    """Laid out by numbers alone: nothing of this size is written."""
    big = 5 << 30
    members = [
        NewMember("a/data.pkl", 1, 7, b"."),
        NewMember("a/data/0", big, 0, Span(0, big)),
        NewMember("a/data/1", 8, 0, Span(0, 8)),
    ]
    pieces = list(lay_out_archive(members))
    positions, position = [], 0
    for piece in pieces:
        positions.append(position)
        position += len(piece) if isinstance(piece, bytes) else piece.nbytes
    data_at = [at for at, piece in zip(positions, pieces, strict=True) if isinstance(piece, Span)]
    assert all(at % 64 == 0 for at in data_at)

    first = data_at[0]  # of the large member

    class Sparse:
        """A source of which only the bytes around the members exist."""

        name, size = "big", position

        def read(self, offset: int, nbytes: int) -> bytes:
            for at, piece in zip(positions, pieces, strict=True):
                if isinstance(piece, bytes) and at <= offset and offset + nbytes <= at + len(piece):
                    return piece[offset - at : offset - at + nbytes]
            parts = [
                piece if isinstance(piece, bytes) else bytes(piece.nbytes)
                for at, piece in zip(positions, pieces, strict=True)
                if offset <= at < offset + nbytes and not (isinstance(piece, Span) and at == first)
            ]
            assert sum(map(len, parts)) == nbytes
            return b"".join(parts)

        def stream(self, offset: int, nbytes: int) -> Any:
            raise AssertionError("nothing streams here")

        def prefetch(self, ranges: Any) -> None:
            pass

    found = read_members(Sparse())
    assert [(each.name, each.nbytes) for each in found] == [
        ("a/data.pkl", 1), ("a/data/0", big), ("a/data/1", 8)
    ]  # fmt: skip
    assert [each.offset for each in found[1:]] == data_at
