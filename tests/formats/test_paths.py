"""From a path to its bytes: which file or folder is opened, and what is too large."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt.errors import FormatError, IntegrityError
from ckpt.formats import open_checkpoint
from ckpt.formats.distributed import metadata
from ckpt.formats.paths import open_path, shards_of
from ckpt.io.journal import overwrite_start
from tests.formats.support import Memory, contents, expected

STATE = {"a": torch.arange(3.0)}


def test_only_metadata_stands_for_its_folder(tmp_path: Path) -> None:
    """Not a name that sorts before it, as of a second download."""
    for name in ("(2) net.safetensors", ".metadat", ".metadata2"):
        save_file(STATE, tmp_path / name)
        with open_path(tmp_path / name) as source:
            assert contents(open_checkpoint(source)) == expected(STATE), name


def test_source_has_the_name_that_was_given(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "net.safetensors")
    index = tmp_path / "net.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "net.safetensors"}}')
    for path in (tmp_path, index, tmp_path / "net.safetensors"):
        with open_path(path) as source:
            assert source.name == str(path)


def test_metadata_is_at_most_256_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".metadata"
    path.write_bytes(b"\x80\x02}.")
    os.truncate(path, (1 << 28) + 1)
    with pytest.raises(FormatError, match="268,435,457 bytes, the limit is 268,435,456"):
        open_path(tmp_path)
    os.truncate(path, 4)
    monkeypatch.setattr(metadata, "LIMIT", 4)
    with pytest.raises(FormatError, match="not a checkpoint as torch describes it"):
        open_path(tmp_path)


@pytest.mark.parametrize(("blanks", "is_index"), [(510, True), (511, False)])
def test_index_is_known_by_its_first_512_bytes(blanks: int, is_index: bool) -> None:
    text = b" " * blanks + b'{"weight_map": {"a": "a.bin"}}'
    assert shards_of(Memory(text), "x.json") == (("a.bin",) if is_index else None)


def test_file_that_is_alone_in_its_folder_was_not_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(STATE, path)
    old = path.read_bytes()[:40]

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        overwrite_start(path, old, old.swapcase(), check=stop)
    with path.open("r+b") as file:
        file.write(old[:20])
    with pytest.raises(IntegrityError, match="an in-place rename was interrupted"):
        open_path(tmp_path)
