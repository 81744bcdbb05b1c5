"""Sharded checkpoints: read, renamed, and refused where index and shards do not agree."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ckpt.errors import CkptError, FormatError, KeyCollisionError, RefError
from ckpt.formats import open_checkpoint, sharded
from ckpt.formats.paths import checkpoint_name, open_path
from ckpt.formats.sharded import shard_names
from tests.formats.support import contents, expected

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")

Weights = dict[str, torch.Tensor]


def weights() -> Weights:
    """Eight layers and a norm."""
    tensors = {f"model.layers.{i}.weight": torch.randn(4, 3) for i in range(8)}
    return {**tensors, "norm.bias": torch.arange(5.0)}


def write(
    folder: Path,
    tensors: Weights,
    *,
    suffix: str = "safetensors",
    index: str = INDEX,
    change: Callable[[dict[str, Any]], Any] = lambda document: document,
    **style: Any,
) -> Path:
    """A sharded checkpoint of two files as transformers writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    items = list(tensors.items())
    weight_map = {}
    for name, shard in zip(SHARDS, (items[:5], items[5:]), strict=True):
        name = name.replace("safetensors", suffix)
        if suffix == "safetensors":
            save_file(dict(shard), folder / name, metadata={"format": "pt"})
        else:
            torch.save(dict(shard), folder / name)
        weight_map |= {key: name for key, _ in shard}
    total = sum(tensor.nbytes for tensor in tensors.values())
    document = change({"metadata": {"total_size": total}, "weight_map": weight_map})
    style = {"indent": 2, "sort_keys": True} | style
    (folder / index).write_text(json.dumps(document, **style) + "\n")
    return folder / index


def read(path: Path) -> Any:
    with open_path(path) as source:
        return contents(open_checkpoint(source))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("by", ["index", "folder"])
def test_shards_are_read_as_one_state_dict(tmp_path: Path, suffix: str, by: str) -> None:
    tensors = weights()
    index = write(tmp_path / "llama", tensors, suffix=suffix, index=f"model.{suffix}.index.json")
    found = read(index if by == "index" else index.parent)
    assert found == expected(tensors)
    assert list(found) == list(tensors), "in the order of the shards, not of the index"
    assert checkpoint_name(index) == checkpoint_name(index.parent) == "llama"


@pytest.mark.parametrize(
    "style",
    [{}, {"sort_keys": False}, {"indent": 4}, {"indent": None, "separators": (",", ":")}],
    ids=str,
)
def test_renamed_to_the_same_keys_is_the_same_files(tmp_path: Path, style: dict[str, Any]) -> None:
    index = write(tmp_path / "a", weights(), **style)
    with open_path(index) as source:
        checkpoint = open_checkpoint(source)
        sizes = {part.name: part.nbytes for part in source.parts}
        assert sizes == {path.name: path.stat().st_size for path in index.parent.iterdir()}
        assert list(sizes) == [INDEX, *SHARDS]
        copied = _files(checkpoint.renamed({}), source)
        keys = {"norm.bias": "model.bias"}
        new = json.loads(_files(checkpoint.renamed(keys), source)[INDEX])
        assert new["weight_map"]["model.bias"] == SHARDS[1]
        assert list(new) == list(json.loads(index.read_text()))
    assert copied == {path.name: path.read_bytes() for path in index.parent.iterdir()}


def _files(layout: Any, source: Any) -> dict[str, bytes]:
    from ckpt.tensors import FileStart, Span

    files: dict[str, bytes] = {}
    name = ""
    for piece in layout:
        if isinstance(piece, FileStart):
            name, files[piece.name] = piece.name, b""
        elif isinstance(piece, Span):
            files[name] += source.read(piece.offset, piece.nbytes)
        else:
            files[name] += piece
    return files


STYLES: list[dict[str, Any]] = [
    {"indent": 2, "sort_keys": True},
    {"indent": 2, "sort_keys": False},
    {"indent": 4, "sort_keys": False},
    {"indent": None, "sort_keys": False},
    {"indent": None, "sort_keys": False, "separators": (",", ":")},
]


@pytest.mark.parametrize("end", ["", "\n"], ids=["no end", "newline"])
@pytest.mark.parametrize("style", STYLES, ids=str)
def test_renamed_index_keeps_its_layout(tmp_path: Path, style: dict[str, Any], end: str) -> None:
    index = write(tmp_path / "a", {"z": torch.ones(1), "b": torch.ones(1)}, **style)
    document = json.loads(index.read_text())
    index.write_text(json.dumps(document, **style) + end)
    with open_path(index) as source:
        new = _files(open_checkpoint(source).renamed({"z": "a"}), source)[INDEX].decode()
    weight_map = {{"z": "a"}.get(key, key): name for key, name in document["weight_map"].items()}
    assert new == json.dumps({**document, "weight_map": weight_map}, **style) + end


def test_index_of_another_layout_gets_the_usual_one(tmp_path: Path) -> None:
    index = write(tmp_path / "a", weights(), indent=3)
    with open_path(index) as source:
        checkpoint = open_checkpoint(source)
        assert _files(checkpoint.renamed({}), source)[INDEX] == index.read_bytes()
        new = _files(checkpoint.renamed({"norm.bias": "norm.c"}), source)[INDEX].decode()
    assert new == json.dumps(json.loads(new), indent=2, sort_keys=True) + "\n"


def test_shards_are_at_most_ten_thousand() -> None:
    def index(count: int) -> bytes:
        return json.dumps({"weight_map": {str(i): f"{i}.bin" for i in range(count)}}).encode()

    assert len(shard_names("i.json", index(10_000), name="i")) == 10_000
    with pytest.raises(FormatError, match="i: 10,001 shards, the limit is 10,000"):
        shard_names("i.json", index(10_001), name="i")


def test_index_is_at_most_256_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write(tmp_path / "a", weights())
    monkeypatch.setattr(sharded, "INDEX_LIMIT", index.stat().st_size)
    assert read(index) == read(index.parent)
    monkeypatch.undo()
    os.truncate(index, (1 << 28) + 1)
    with pytest.raises(FormatError, match="of 268,435,457 bytes, the limit is 268,435,456"):
        read(index)


@pytest.mark.parametrize(
    ("index", "names", "says"),
    [
        (
            INDEX,
            ["a.bin", "b.safetensors"],
            "suffixes .bin and .safetensors, expected .safetensors",
        ),
        (INDEX, ["a.bin"], "suffixes .bin, expected .safetensors"),
        ("weights.json", ["a.bin", "b.pt"], "suffixes .bin and .pt"),
        ("weights.json", ["a.bin"], None),
    ],
)
def test_shards_have_the_suffix_of_their_index(
    index: str, names: list[str], says: str | None
) -> None:
    data = json.dumps({"weight_map": {name: name for name in names}}).encode()
    if says is None:
        assert shard_names(index, data, name="it") == tuple(names)
        return
    with pytest.raises(FormatError) as refused:
        shard_names(index, data, name="it")
    assert str(refused.value) == f"it: lists shards with {says}"


def test_globals_and_checksums_are_of_all_shards(tmp_path: Path) -> None:
    """The highest protocol, and ranges that have the bytes of their sums."""
    tensors = {**weights(), "norm.bias": torch.nn.Parameter(torch.ones(3))}
    index = write(tmp_path / "a", tensors, suffix="bin", index="pytorch_model.bin.index.json")
    first = index.parent / SHARDS[0].replace("safetensors", "bin")
    torch.save(torch.load(first), first, pickle_protocol=4)
    with open_path(index) as source:
        checkpoint = open_checkpoint(source)
        assert checkpoint.pickled is not None
        assert checkpoint.pickled.protocol == 4
        assert "torch._utils._rebuild_parameter" in checkpoint.pickled.globals
        assert "collections.OrderedDict" in checkpoint.pickled.globals
        for sum_ in checkpoint.checksums:
            assert zlib.crc32(source.read(sum_.span.offset, sum_.span.nbytes)) == sum_.crc32
        assert {sum_.what.partition(": ")[0] for sum_ in checkpoint.checksums} == {
            name.replace("safetensors", "bin") for name in SHARDS
        }
        assert checkpoint.written_by == "torch.save of torch 2.1 or newer"
    with open_path(write(tmp_path / "b", weights())) as source:
        checkpoint = open_checkpoint(source)
        assert (checkpoint.pickled, checkpoint.written_by) == (None, "a PyTorch writer")


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ('{"a": 1}\n{"a": 2}\n', "JSON lines, not a checkpoint", "name a checkpoint"),
        ('{"a": 1}\n[2]\n', "damaged", "fetch it again"),
        ('{"a": 1}\n{"a"', "damaged", "fetch it again"),
        ('{"a": 1', "damaged", "fetch it again"),
    ],
)
def test_other_json_is_called_what_it_is(tmp_path: Path, text: str, says: str, hint: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FormatError, match=says) as refused:
        read(tmp_path / "x.json")
    assert refused.value.hint == hint


def test_renamed_shards_keep_the_index_true(tmp_path: Path) -> None:
    tensors = weights()
    index = write(tmp_path / "a", tensors)
    with open_path(index) as source:
        keys = {key: key.replace("layers", "blocks") for key in tensors}
        files = _files(open_checkpoint(source).renamed(keys), source)
    (tmp_path / "b").mkdir()
    for name, data in files.items():
        (tmp_path / "b" / name).write_bytes(data)
    assert read(tmp_path / "b") == expected({keys[key]: each for key, each in tensors.items()})


def test_collision_across_shards_is_refused(tmp_path: Path) -> None:
    with (
        open_path(write(tmp_path / "a", weights())) as source,
        pytest.raises(KeyCollisionError, match=r"model\.layers\.0\.weight"),
    ):
        list(open_checkpoint(source).renamed({"norm.bias": "model.layers.0.weight"}))


def _maps_to(name: Any) -> Callable[[dict[str, Any]], Any]:
    def change(document: dict[str, Any]) -> dict[str, Any]:
        document["weight_map"]["norm.bias"] = name
        return document

    return change


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    def change(document: dict[str, Any]) -> dict[str, Any]:
        del document["weight_map"][key]
        return document

    return change


def _total(value: object) -> Callable[[dict[str, Any]], Any]:
    return lambda document: {**document, "metadata": {"total_size": value}}


NAMES = {
    "the folder above": "../model-00002-of-00002.safetensors",
    "an absolute path": "/etc/passwd",
    "a path inside out": "a/../model-00002-of-00002.safetensors",
    "a drive": "C:\\x.safetensors",
    "a share": "\\\\host\\x.safetensors",
    "NUL": "x\0y.safetensors",
    "newline": "x\ny.safetensors",
    "dot": ".",
    "dots": "..",
    "empty": "",
    "long": "x" * 300 + ".safetensors",
    "long in bytes": "é" * 200 + ".safetensors",
    "itself": INDEX,
    "absent": "model-00003-of-00002.safetensors",
    "number": 7,
    "null": None,
    "list": ["model-00002-of-00002.safetensors"],
    "a pickle": "pytorch_model.bin",
}
DOCUMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no weight_map": lambda document: {"metadata": {}},
    "an empty weight_map": lambda document: {"weight_map": {}},
    "a list as weight_map": lambda document: {"weight_map": []},
    "a key that no shard has": lambda d: {"weight_map": {**d["weight_map"], "x": SHARDS[0]}},
    "a key in another shard": _maps_to(SHARDS[0]),
    "a tensor without a key": _without("norm.bias"),
    "total_size too large": _total(10**9),
    "total_size too small": _total(1),
    "total_size of another type": _total("many"),
}


@pytest.mark.parametrize("name", NAMES)
def test_fault_22_names_that_are_no_file_beside_the_index(tmp_path: Path, name: str) -> None:
    index = write(tmp_path / "a", weights(), change=_maps_to(NAMES[name]))
    with pytest.raises(FormatError, match=r"model\.safetensors\.index\.json"):
        read(index)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_fault_22_index_that_does_not_agree(tmp_path: Path, name: str) -> None:
    index = write(tmp_path / "a", weights(), change=DOCUMENTS[name])
    with pytest.raises(FormatError) as refused:
        read(index)
    assert "index.json" in str(refused.value)


def test_fault_22_key_in_two_shards(tmp_path: Path) -> None:
    index = write(tmp_path / "a", weights())
    save_file(
        {**dict(list(weights().items())[:5]), "norm.bias": torch.ones(1)}, index.parent / SHARDS[0]
    )
    with pytest.raises(FormatError, match=r"norm\.bias is in .* and in"):
        read(index)


def test_fault_22_shard_of_another_container(tmp_path: Path) -> None:
    tensors = weights()
    index = write(tmp_path / "a", tensors)
    torch.save(dict(list(tensors.items())[5:]), index.parent / SHARDS[1])
    with pytest.raises(FormatError, match="its shards have several formats"):
        read(index)


def test_fault_22_same_key_twice_in_the_index(tmp_path: Path) -> None:
    index = write(tmp_path / "a", weights())
    text = index.read_text().replace('"weight_map": {', '"weight_map": {"norm.bias": "x",')
    index.write_text(text)
    with pytest.raises(FormatError, match="appears twice"):
        read(index)


@pytest.mark.parametrize("by", ["index", "folder"])
def test_fault_22_links_and_pipes_are_refused(tmp_path: Path, by: str) -> None:
    tensors = weights()
    outside = write(tmp_path / "outside", tensors)
    for kind in ("link", "link to a folder", "loop", "pipe"):
        index = write(tmp_path / kind, tensors)
        shard = index.parent / SHARDS[1]
        shard.unlink()
        if kind == "link":
            shard.symlink_to(outside.parent / SHARDS[1])
        elif kind == "link to a folder":
            shard.symlink_to(outside.parent)
        elif kind == "loop":
            shard.symlink_to(shard)
        else:
            os.mkfifo(shard)
        with pytest.raises(FormatError):
            read(index if by == "index" else index.parent)


def test_index_that_is_a_link_elsewhere_is_refused_in_a_folder(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", weights())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / INDEX).symlink_to(outside)
    with pytest.raises(FormatError, match="outside the folder"):
        read(tmp_path / "a")


def test_cache_of_hugging_face_is_read(tmp_path: Path) -> None:
    """`snapshots/REVISION/name` is a link to `../../blobs/DIGEST` there."""
    tensors = weights()
    index = write(tmp_path / "plain", tensors)
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(index.parent.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert read(snapshot) == read(snapshot / INDEX) == expected(tensors)


def test_folder_without_one_index_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="without a checkpoint"):
        read(tmp_path)
    for name in ("model.safetensors", "model.fp16.safetensors"):
        save_file(weights(), tmp_path / name)
    with pytest.raises(FormatError, match="2 checkpoints") as refused:
        read(tmp_path)
    assert "model.safetensors" in str(refused.value.hint)
    write(tmp_path, weights())
    write(tmp_path, weights(), suffix="bin", index="pytorch_model.bin.index.json")
    with pytest.raises(FormatError, match="2 indexes") as refused:
        read(tmp_path)
    assert INDEX in str(refused.value.hint)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(RefError):
        read(tmp_path / "absent")


def test_tied_tensors_count_once_or_for_each_key(tmp_path: Path) -> None:
    tied = torch.randn(6)
    tensors = {**weights(), "a": tied, "b": tied}
    once = sum(each.nbytes for each in tensors.values()) - tied.nbytes
    name = "pytorch_model.bin.index.json"
    for total in (once, once + tied.nbytes):
        index = write(tmp_path, tensors, suffix="bin", index=name, change=_total(total))
        assert read(index) == expected(tensors)


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    index = write(tmp_path / "a", weights())
    shard = index.parent / SHARDS[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(FormatError, match=SHARDS[1]):
        read(index)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_fault_22_no_path_outside_the_folder_is_opened(tmp_path: Path) -> None:
    """Even where the index asks for it."""
    secret = tmp_path / "secret"
    write(secret, weights())
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from ckpt.errors import CkptError\nfrom ckpt.formats.paths import open_path\n"
        "from ckpt.formats import open_checkpoint, safetensors, torch_zip\n"
        "for each in sys.argv[1:]:\n"
        "    try:\n"
        "        with open_path(Path(each)) as source:\n"
        "            open_checkpoint(source)\n"
        "    except CkptError:\n"
        "        print('refused')\n"
    )
    paths = []
    for number, name in enumerate(("../secret/" + SHARDS[1], str(secret / SHARDS[1]), "link")):
        index = write(tmp_path / f"in{number}", weights(), change=_maps_to(name))
        (index.parent / "link").symlink_to(secret / SHARDS[1])
        paths.append(str(index))
    log = tmp_path / "log"
    command = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", str(log)]
    ran = subprocess.run(
        [*command, sys.executable, "-c", program, *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["refused"] * 3, ran.stderr
    opened = log.read_text()
    assert f"{tmp_path}/in0" in opened
    assert str(secret) not in opened
    assert "passwd" not in opened


def test_errors_are_of_ckpt_for_every_cut(tmp_path: Path) -> None:
    index = write(tmp_path / "a", weights())
    data = index.read_bytes()
    for length in range(0, len(data) - 1, 7):
        index.write_bytes(data[:length])
        with pytest.raises(CkptError):
            read(index)


def test_rest_is_what_the_index_says_beside_its_map(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> Any:
        document["metadata"] |= {"note": "kept", "writer": "it"}
        return {"a": 1, **document, "z": [2]}

    with open_path(write(tmp_path, weights(), change=change)) as source:
        checkpoint = open_checkpoint(source)
        assert checkpoint.rest == {"a": 1, "z": [2], "note": "kept", "writer": "it"}
        total = {"total_size": sum(tensor.nbytes for tensor in weights().values())}
        metadata = {**total, "note": "kept", "writer": "it"}
        own, *of_shards = checkpoint.untouched({}).values()
        assert own == {"a": 1, "metadata": metadata, "z": [2]}
        assert of_shards == [shard.untouched({}) for shard in checkpoint.shards]  # type: ignore[attr-defined]
