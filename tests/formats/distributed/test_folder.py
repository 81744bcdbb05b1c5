"""torch.distributed.checkpoint folders, as torch writes them in one process."""

import dataclasses
import fractions
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.tensor._shards_wrapper import LocalShardsWrapper

from ckpt.errors import CkptError, FormatError, KeyCollisionError, RefusedGlobalError
from ckpt.formats import open_checkpoint
from ckpt.formats.checkpoint import Checkpoint
from ckpt.formats.distributed import metadata as metadata_module
from ckpt.formats.distributed.metadata import Metadata, StoredItem, parts_of, read_metadata
from ckpt.formats.opaque import expect_harmless
from ckpt.formats.paths import open_path
from ckpt.io.composed import JoinedSource
from ckpt.io.sources import Part
from ckpt.tensors import FileStart, Span
from tests.effort import by_effort
from tests.formats.support import Memory, contents, expected

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

State = dict[str, Any]


def state() -> State:
    """What a training script saves: a model, its optimizer, and plain values."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optim": optimizer.state_dict(),
        "turned": torch.randn(3, 5).t(),
        "slice": torch.randn(100)[3:7],
        "scalar": torch.tensor(2.5),
        "nothing": torch.zeros(0, 3),
        "epoch": 3,
        "note": "hi",
    }


def save(value: State, folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that nothing is distributed here
        dcp.save(value, storage_writer=dcp.FileSystemWriter(folder, **options))
    return folder


def flat(value: object, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a nested state_dict by their dotted paths, as torch flattens it."""
    if isinstance(value, torch.Tensor):
        return {prefix[:-1]: value}
    found: dict[str, torch.Tensor] = {}
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, each in items:
        found |= flat(each, f"{prefix}{key}.")
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `state`, which no test changes."""
    return save(state(), tmp_path_factory.mktemp("saved") / "step1")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "step1")


def read(folder: Path, inside: str | None = None) -> Any:
    with open_path(folder) as source:
        return contents(open_checkpoint(source, inside=inside))


def renamed(folder: Path, new_keys: dict[str, str], out: Path, inside: str | None = None) -> Path:
    with open_path(folder) as source:
        assert isinstance(source, JoinedSource)
        write(open_checkpoint(source, inside=inside), new_keys, out)
    return out


def write(checkpoint: Checkpoint, new_keys: dict[str, str], out: Path) -> None:
    out.mkdir()
    file = None
    for piece in checkpoint.renamed(new_keys):
        if isinstance(piece, FileStart):
            file = out / piece.name
            file.touch()
            continue
        assert file is not None
        data = piece
        if isinstance(piece, Span):
            data = checkpoint.source.read(piece.offset, piece.nbytes)
        assert isinstance(data, bytes)
        with file.open("ab") as appended:
            appended.write(data)


def test_tensors_of_one_process(folder: Path) -> None:
    assert read(folder) == expected(flat(state()))
    assert read(folder / ".metadata") == read(folder)


def test_values_are_the_rest(folder: Path) -> None:
    with open_path(folder) as source:
        checkpoint = open_checkpoint(source)
    assert checkpoint.rest["epoch"] == 3
    assert checkpoint.rest["note"] == "hi"
    assert checkpoint.rest["optim.param_groups.0.lr"] == 0.001
    version = pickled(folder).version
    assert checkpoint.written_by == f"torch.distributed.checkpoint, metadata {version}"


def test_metadata_may_lack_a_version(folder: Path) -> None:
    metadata = pickled(folder)
    del metadata.version
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with open_path(folder) as source:
        assert open_checkpoint(source).written_by == "torch.distributed.checkpoint"


def joined(folder: Path, names: dict[str, str]) -> Memory:
    """The files as a source that did not look into them, some under other names."""
    source, parts = Memory(b""), []
    for path in (folder / ".metadata", *sorted(folder.glob("*.distcp"))):
        parts.append(Part(names.get(path.name, path.name), len(source.data), path.stat().st_size))
        source.data += path.read_bytes()
    source.parts, source.size = tuple(parts), len(source.data)
    return source


def test_files_of_a_version_put_together_are_read(cut: Path) -> None:
    assert contents(open_checkpoint(joined(cut, {}))) == read(cut)


@pytest.mark.parametrize("name", ["__0_00.distcp", "__0_4.distcp"])
def test_files_that_the_metadata_does_not_list_are_refused(cut: Path, name: str) -> None:
    with pytest.raises(FormatError, match=r"file: \.metadata lists other files than those beside"):
        open_checkpoint(joined(cut, {"__0_1.distcp": name}))


def test_value_that_is_not_plain_is_named(tmp_path: Path) -> None:
    folder = save({"a": torch.ones(1), "half": fractions.Fraction(1, 2)}, tmp_path / "a")
    with pytest.raises(RefusedGlobalError) as refused:
        read(folder)
    assert str(refused.value.hint).startswith("the value half is neither a tensor nor a plain")


def test_part_of_the_state_has_its_own_keys(folder: Path) -> None:
    assert read(folder, "model") == expected(state()["model"])
    with pytest.raises(FormatError, match="no state_dict 'ema'") as refused:
        read(folder, "ema")
    assert "::model" in str(refused.value.hint)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three files, with tensors in chunks, from torch's own writer."""
    turned = WHOLE["turned"].contiguous()
    chunked = {
        "turned": LocalShardsWrapper([turned[:, :2], turned[:, 2:]], [(0, 0), (0, 2)]),
        "long": LocalShardsWrapper([WHOLE["long"][:5], WHOLE["long"][5:]], [(0,), (5,)]),
        "small": WHOLE["small"],
    }
    path = tmp_path_factory.mktemp("cut") / "step1"
    return save({"model": chunked, "epoch": 3}, path, thread_count=3)


WHOLE = {
    "turned": torch.arange(12.0).reshape(3, 4).t(),
    "long": torch.arange(8),
    "small": torch.tensor(2.5),
}


def test_tensors_in_chunks_are_whole_again(cut: Path) -> None:
    assert len(list(cut.glob("*.distcp"))) == 3
    assert read(cut, "model") == expected(WHOLE)


def test_torch_loads_renamed_chunks(cut: Path, tmp_path: Path) -> None:
    out = renamed(cut, {"turned": "body.turned", "long": "b"}, tmp_path / "out", inside="model")
    new = {"body.turned": WHOLE["turned"], "b": WHOLE["long"], "small": WHOLE["small"]}
    into = {"model": {key: torch.zeros_like(it) for key, it in new.items()}, "epoch": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(into, checkpoint_id=out)
    assert expected(into["model"]) == expected(new)
    assert into["epoch"] == 3


def test_part_is_renamed_below_its_prefix(folder: Path, tmp_path: Path) -> None:
    out = renamed(folder, {"0.weight": "fc.weight"}, tmp_path / "out", inside="model")
    found = read(out)
    assert "model.fc.weight" in found
    assert "model.0.weight" not in found
    assert set(found) - {"model.fc.weight"} == set(read(folder)) - {"model.0.weight"}


def test_collisions_are_refused(folder: Path, tmp_path: Path) -> None:
    for number, new in enumerate(("model.0.bias", "epoch", "optim.state.0.step")):
        with pytest.raises(KeyCollisionError, match=new):
            renamed(folder, {"model.0.weight": new}, tmp_path / str(number))


def test_key_that_would_leave_a_list_is_refused(tmp_path: Path) -> None:
    folder = save({"parts": [torch.ones(2), torch.zeros(2)]}, tmp_path / "a")
    for old, new in (("parts.0", "parts.7"), ("parts.1", "parts.00")):
        with pytest.raises(FormatError, match="elsewhere in the nested state_dict"):
            renamed(folder, {old: new}, tmp_path / new)
    assert list(read(renamed(folder, {"parts.0": "bits.0"}, tmp_path / "c"))) == [
        "bits.0",
        "parts.1",
    ]


def pickled(folder: Path) -> Any:
    with (folder / ".metadata").open("rb") as file:
        return pickle.load(file)  # noqa: S301 - of torch, written a moment ago


def _escape(metadata: Any) -> None:
    info = next(iter(metadata.storage_data.values()))
    info.relative_path = "../step2/__0_0.distcp"


def _beyond(metadata: Any) -> None:
    next(iter(metadata.storage_data.values())).length = 10**9


def _compressed(metadata: Any) -> None:
    next(iter(metadata.storage_data.values())).transform_descriptors = ["zstd"]


def _lost(metadata: Any) -> None:
    key = next(each for each in metadata.storage_data if each.fqn == "model.0.weight")
    del metadata.storage_data[key]


def _reshaped(metadata: Any) -> None:
    metadata.state_dict_metadata["model.0.weight"].size = torch.Size([2, 6])


def _larger(metadata: Any) -> None:
    metadata.state_dict_metadata["model.0.weight"].size = torch.Size([3, 5])


def _retyped(metadata: Any) -> None:
    metadata.state_dict_metadata["model.0.weight"].properties.dtype = torch.float64


def _retyped_to_less(metadata: Any) -> None:
    metadata.state_dict_metadata["model.0.weight"].properties.dtype = torch.bfloat16


def _displaced(metadata: Any) -> None:
    index = next(each for each in metadata.storage_data if each.fqn == "model.0.weight")
    info = metadata.storage_data.pop(index)
    metadata.storage_data[dataclasses.replace(index, offset=torch.Size([1, 0]))] = info


def _without_chunks(metadata: Any) -> None:
    _lost(metadata)
    metadata.state_dict_metadata["model.0.weight"].chunks = []


def _chunks_in_a_tuple(metadata: Any) -> None:
    of = metadata.state_dict_metadata["model.0.weight"]
    of.chunks = tuple(of.chunks)


def _doubled_chunk(metadata: Any) -> None:
    metadata.state_dict_metadata["model.0.weight"].chunks *= 2


def _dtype_as_text(metadata: Any) -> None:
    metadata.state_dict_metadata["model.0.weight"].properties.dtype = "float32"


def _lost_value(metadata: Any) -> None:
    del metadata.storage_data[next(each for each in metadata.storage_data if each.fqn == "epoch")]


def _doubled_value(metadata: Any) -> None:
    index = next(each for each in metadata.storage_data if each.fqn == "epoch")
    metadata.storage_data[MetadataIndex("epoch", offset=torch.Size([1]))] = metadata.storage_data[
        index
    ]


def _swapped(metadata: Any) -> None:
    keys = {each.fqn: each for each in metadata.storage_data}
    data = metadata.storage_data
    a, b = keys["model.0.weight"], keys["model.0.bias"]
    data[a], data[b] = data[b], data[a]


def _absent_file(metadata: Any) -> None:
    next(iter(metadata.storage_data.values())).relative_path = "__9_0.distcp"


def _itself(metadata: Any) -> None:
    next(iter(metadata.storage_data.values())).relative_path = ".metadata"


LIES = [
    *(_escape, _beyond, _compressed, _lost, _reshaped, _larger, _retyped, _retyped_to_less),
    *(
        _chunks_in_a_tuple,
        _doubled_chunk,
        _dtype_as_text,
        _displaced,
        _without_chunks,
        _lost_value,
        _doubled_value,
        _swapped,
        _absent_file,
        _itself,
    ),
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__.strip("_"))
def test_metadata_that_lies_is_refused(folder: Path, lie: Any) -> None:
    metadata = pickled(folder)
    lie(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(FormatError):
        read(folder)


@pytest.mark.parametrize(("one", "two"), [("t1", "t2"), ("v1", "v2")], ids=["tensors", "values"])
def test_key_that_appears_twice_is_refused(one: str, two: str, tmp_path: Path) -> None:
    state = {"t1": torch.ones(1), "t2": torch.ones(1), "v1": 1, "v2": 2}
    path = save(state, tmp_path / "a") / ".metadata"
    path.write_bytes(path.read_bytes().replace(two.encode(), one.encode()))
    with pytest.raises(FormatError, match=f"'{one}' appears twice"):
        read(path.parent)


AT, SIZE = 5000, 3000  # of an item that becomes 7 bytes longer


@pytest.mark.parametrize(
    ("file", "offset", "place"),
    [
        ("f", AT - SIZE, None),
        ("f", AT + SIZE, Span(AT + SIZE + 7, SIZE)),
        ("g", AT + SIZE, None),
    ],
    ids=["before", "after", "in another file"],
)
def test_items_after_a_longer_one_move(
    cut: Path, file: str, offset: int, place: Span | None
) -> None:
    one, other = StoredItem((), "f", Span(AT, SIZE)), StoredItem((), file, Span(offset, SIZE))
    metadata = dataclasses.replace(read_metadata_of(cut), items={"a": [other], "b": [one]})
    moved = {one: Span(AT, SIZE + 7)} | ({} if place is None else {other: place})
    assert metadata.moved({one: SIZE + 7}) == moved
    assert metadata.moved({one: SIZE}) == metadata.moved({}) == {}


@pytest.mark.parametrize("offset", [AT - SIZE + 1, AT + SIZE - 1, AT + 1])
def test_item_that_overlaps_a_longer_one_cannot_move(cut: Path, offset: int) -> None:
    one, other = StoredItem((), "f", Span(AT, SIZE)), StoredItem((), "f", Span(offset, SIZE))
    metadata = dataclasses.replace(read_metadata_of(cut), items={"a": [other], "b": [one]})
    with pytest.raises(FormatError, match="f: two items have the same place"):
        metadata.moved({one: SIZE + 7})


def read_metadata_of(folder: Path) -> Metadata:
    return read_metadata((folder / ".metadata").read_bytes(), name="it")


def test_elements_of_a_path_keep_their_number_of_parts() -> None:
    new = parts_of(["model", "a.b", "c", "w"], "net.x.y.z.last.one")
    assert new == ["net", "x.y", "z", "last.one"]


@pytest.mark.parametrize("name", ["../step1/__0_0.distcp", "/etc/passwd", ".metadata"])
def test_file_elsewhere_is_named(folder: Path, name: str) -> None:
    metadata = pickled(folder)
    for info in metadata.storage_data.values():
        info.relative_path = name
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(FormatError, match=f"lists '{name}', which is not a file beside it"):
        read(folder)


def test_file_may_have_a_name_that_sorts_before_the_metadata(folder: Path) -> None:
    before, metadata = read(folder), pickled(folder)
    for info in metadata.storage_data.values():
        info.relative_path = "(1).distcp"
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    (folder / "__0_0.distcp").rename(folder / "(1).distcp")
    assert read(folder) == before


def test_files_are_limited(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_module, "FILE_LIMIT", 3)
    assert read(cut, "model") == expected(WHOLE)
    monkeypatch.setattr(metadata_module, "FILE_LIMIT", 2)
    with pytest.raises(FormatError, match="3 files, the limit is 2"):
        read(cut)


class _Harmless:
    def __reduce__(self) -> Any:
        return fractions.Fraction, (1, 2)


def test_fault_01_globals_of_the_metadata_are_refused(folder: Path) -> None:
    metadata = pickled(folder)
    metadata.planner_data = _Harmless()
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(RefusedGlobalError, match=r"fractions\.Fraction at offset"):
        read(folder)


def test_globals_of_the_metadata_are_refused_elsewhere(tmp_path: Path) -> None:
    """The allow-list of `.metadata` is not that of other files."""
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    torch.save({"a": torch.ones(1), "b": BytesStorageMetadata()}, tmp_path / "a.pt")
    with (
        pytest.raises(RefusedGlobalError, match="BytesStorageMetadata"),
        open_path(tmp_path / "a.pt") as source,
    ):
        expect_harmless(open_checkpoint(source), None)


def test_metadata_cut_or_flipped_anywhere_gives_an_error_or_the_same(folder: Path) -> None:
    data = (folder / ".metadata").read_bytes()
    before = read(folder)
    for position in range(0, len(data), by_effort(211, 53, 53)):
        for mutant in (
            data[:position],
            data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :],
        ):
            (folder / ".metadata").write_bytes(mutant)
            try:
                found = read(folder)
            except CkptError:
                continue
            same = {key: value for key, value in found.items() if before.get(key) == value}
            assert len(same) >= len(before) - 1, "one key, at most, has another name"


def test_file_of_a_folder_is_refused_with_what_to_name(folder: Path) -> None:
    with pytest.raises(FormatError) as refused:
        read(next(folder.glob("*.distcp")))
    assert str(folder) in str(refused.value.hint)
