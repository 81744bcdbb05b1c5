"""`ckpt.open` and `ckpt.load`: lazy, without a copy where the bytes lie as they are, exact."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file, save_model
from torch import nn

import ckpt
from ckpt.errors import FormatError, UsageError
from tests.effort import examples
from tests.formats.support import Contents, expected
from tests.formats.test_laws import as_safetensors, state_dicts

Weights = dict[str, torch.Tensor]
OLD = {"_use_new_zipfile_serialization": False}


def tensors() -> Weights:
    whole = torch.randn(300, 40)
    return {
        "whole": whole,
        "turned": whole.t(),
        "rows": whole[3:99:2, 5:7],
        "expanded": torch.ones(1).expand(5, 7),
        "scalar": torch.tensor(3.5),
        "nothing": torch.zeros(0, 3),
        "half": torch.randn(4).bfloat16(),
        "bits": torch.tensor([True, False]),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(tensors(), tmp_path / "a.pt")
    return tmp_path / "a.pt"


def opened(path: Path) -> Contents:
    with ckpt.open(str(path)) as lazy:
        return expected(dict(lazy))


@given(state_dicts(), st.sampled_from(["zip", "legacy", "safetensors"]))
@settings(max_examples=examples(150))
def test_open_gives_what_the_library_gives_bit_for_bit(state: Weights, form: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.pt"
        if form == "safetensors":
            save_file(as_safetensors(state), path)
            theirs = load_file(path)
        elif form == "legacy":
            # torch writes dtypes in this form that it cannot read.
            torch.save(state, path, **OLD)
            theirs = state
        else:
            torch.save(state, path)
            theirs = torch.load(path, weights_only=True)
        assert opened(path) == expected(theirs)


def test_tensors_are_the_file_itself(file: Path) -> None:
    with ckpt.open(str(file)) as lazy:
        assert lazy["whole"].data_ptr() == lazy["whole"].data_ptr(), "nothing is copied"
        assert lazy["turned"].data_ptr() == lazy["whole"].data_ptr(), "views share their memory"
        assert lazy["turned"].stride() == (1, 40)
    assert str(file) in Path("/proc/self/maps").read_text()


@pytest.mark.long
def test_large_tensor_takes_memory_only_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    save_file({"a": torch.zeros(100_000_000 // 4), "b": torch.ones(3)}, path)
    program = (
        "import sys, resource, torch, ckpt\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "with ckpt.open(sys.argv[1]) as lazy:\n"
        "    a, b = lazy['a'], lazy['b']\n"
        "assert a.shape == (25_000_000,) and b.sum() == 3\n"
        "print(peak() - before)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 50_000_000


def test_writing_to_a_tensor_leaves_the_file_alone(file: Path) -> None:
    before = file.read_bytes()
    with ckpt.open(str(file)) as lazy:
        lazy["whole"].zero_()
        assert lazy["turned"].abs().sum() == 0
    assert file.read_bytes() == before
    assert opened(file)["whole"][2] != bytes(48_000)


def test_tensor_outlives_the_block(file: Path) -> None:
    with ckpt.open(str(file)) as lazy:
        whole = lazy["whole"]
    assert expected({"whole": whole})["whole"] == opened(file)["whole"]


def test_elements_that_are_not_aligned_are_copied(tmp_path: Path) -> None:
    """Header and tensors of safetensors may lie anywhere; a float at an odd address is slow."""
    path = tmp_path / "odd.safetensors"
    header = b'{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}'
    header += b" " * (1 - len(header) % 2)
    data = np.array([1.5, -2.5]).tobytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    with ckpt.open(str(path)) as lazy:
        assert (8 + len(header)) % 8, "the test wants an odd address"
        assert lazy["a"].data_ptr() % 8 == 0
        assert lazy["a"].tolist() == [1.5, -2.5]


def test_load_is_independent_of_the_file(file: Path) -> None:
    state = ckpt.load(str(file))
    before = expected(state)
    file.write_bytes(b"\0" * file.stat().st_size)
    assert expected(state) == before
    assert str(file) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "key", ["whole", "turned", "rows", "expanded", "scalar", "nothing", "bits"]
)
def test_numpy_gives_the_same(file: Path, key: str) -> None:
    with ckpt.open(str(file)) as lazy:
        array = lazy.numpy(key)
        np.testing.assert_array_equal(array, lazy[key].numpy())
        assert array.dtype == lazy[key].numpy().dtype


def test_numpy_lacks_some_dtypes(file: Path) -> None:
    with ckpt.open(str(file)) as lazy, pytest.raises(FormatError, match="numpy has no bfloat16"):
        lazy.numpy("half")


def test_numpy_needs_no_torch(file: Path) -> None:
    program = (
        "import sys, ckpt\n"
        "with ckpt.open(sys.argv[1]) as lazy:\n"
        "    assert lazy.numpy('scalar') == 3.5\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)


class Tied(torch.nn.Module):
    """Two names of one tensor, of which `save_model` stores the first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_tied_tensor_of_a_safetensors_file_has_all_its_names(tmp_path: Path) -> None:
    """torch's strict loading wants them all; `best` notes the name of a key, and is none."""
    model, path = Tied(), tmp_path / "tied.safetensors"
    save_model(model, str(path), metadata={"best": "embed.weight"})
    assert len(load_file(path)) == 1
    registry = ckpt.Registry(tmp_path)
    ckpt.register(path, registry=registry)
    for ref in (str(path), "tied:v1"):
        loaded = ckpt.load(ref, registry=registry)
        assert list(loaded) == ["embed.weight", "head.weight"]
        again = Tied()
        again.load_state_dict(loaded, strict=True)
        assert again.head.weight.equal(model.head.weight)
        with ckpt.open(ref, registry=registry) as lazy:
            assert [entry.key for entry in lazy.entries] == list(lazy) == list(loaded)


def test_version_is_read_verified(tmp_path: Path, file: Path) -> None:
    registry = ckpt.Registry(tmp_path)
    ckpt.register(str(file), registry=registry)
    with ckpt.open("v1", registry=registry) as lazy:
        assert expected(dict(lazy)) == opened(file)
        np.testing.assert_array_equal(lazy.numpy("turned"), lazy["turned"].numpy())


def test_path_is_a_file_whatever_it_is_called(tmp_path: Path, file: Path) -> None:
    (tmp_path / "v1").write_bytes(file.read_bytes())
    (tmp_path / "x::y.pt").write_bytes(file.read_bytes())
    for path in (file, tmp_path / "v1", tmp_path / "x::y.pt"):
        with ckpt.open(path) as lazy:
            assert len(lazy) == 8
    assert ckpt.load(file).keys() == opened(file).keys()
    assert not ckpt.diff(file, tmp_path / "v1").differs
    written = ckpt.export(file, str(tmp_path / "o.safetensors"))
    assert written.path == tmp_path / "o.safetensors"
    assert len(ckpt.rename(file, "half->h", out=str(tmp_path / "o.pt")).plan.renamed) == 1
    assert ckpt.register(file, registry=ckpt.Registry(tmp_path)).new


def test_looking_for_a_key_reads_nothing(file: Path) -> None:
    with ckpt.open(file) as lazy:
        file.write_bytes(b"")
        assert "whole" in lazy
        assert "absent" not in lazy


@pytest.mark.parametrize(
    "use",
    [
        lambda lazy: lazy["whole"],
        lambda lazy: ckpt.diff(lazy, lazy),
        ckpt.show,
        lambda lazy: ckpt.export(lazy, "out.pt"),
        lambda lazy: ckpt.rename(lazy, ["whole->w"]),
        lambda lazy: ckpt.register(lazy, name="net"),
    ],
)
def test_closed_one_says_so(use: Callable[[Any], Any], file: Path, tmp_path: Path) -> None:
    """Another file may have its descriptor, which would be read in its place."""
    with ckpt.open(file) as lazy:
        pass
    (tmp_path / "other.pt").write_bytes(b"")
    with (tmp_path / "other.pt").open("rb"), pytest.raises(UsageError, match="already closed"):
        use(lazy)
    assert str(lazy) == f"{file}: closed"


def test_open_one_has_its_module_versions_and_ties(tmp_path: Path) -> None:
    one, path = nn.BatchNorm1d(2), tmp_path / "net.pt"
    torch.save(nn.ModuleDict({"a": one, "b": one}).state_dict(), path)
    with ckpt.open(path) as lazy:
        renamed = ckpt.rename(lazy, ["a->c"])
        assert renamed._metadata["c"] == {"version": 2}
        assert nn.ModuleDict({"a": one, "b": one}).load_state_dict(lazy, strict=True)
        added = ckpt.register(lazy, registry=tmp_path)
    assert added.version.ref == "net:v1"
    assert not ckpt.register(path, registry=tmp_path).new, "the very file"
    with (
        ckpt.open("net:v1", registry=tmp_path) as version,
        pytest.raises(UsageError, match="expected a path"),
    ):
        ckpt.register(version, registry=tmp_path)


def test_expanded_view_at_an_odd_place_stays_one(tmp_path: Path) -> None:
    """A zip archive written by others aligns nothing."""
    torch.save({"wide": torch.tensor([2.5]).expand(1 << 40)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "odd.pt", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name.replace("a/", "odd/", 1), old.read(name))
    with ckpt.open(tmp_path / "odd.pt") as lazy:
        assert lazy["wide"].shape == (1 << 40,)
        assert float(lazy["wide"][7]) == 2.5


def test_some_keys_are_loaded_in_the_order_of_the_file(file: Path) -> None:
    whole = ckpt.load(file)
    assert list(ckpt.load(file, keys=["half", "whole"])) == ["whole", "half"]
    assert list(ckpt.load(file, keys="^(rows|bits)$")) == ["rows", "bits"]
    assert expected(ckpt.load(file, keys={"half"})) == expected({"half": whole["half"]})


def test_keys_that_are_not_there_are_an_error(file: Path) -> None:
    with pytest.raises(KeyError, match="has no hal") as missing:
        ckpt.load(file, keys=["hal"])
    assert "half" in str(missing.value.hint)  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="matches none of its 8 keys"):
        ckpt.load(file, keys="^x")
    with pytest.raises(UsageError, match="to= takes a whole state_dict"):
        ckpt.load(file, keys="half", to=torch.nn.Linear)


def test_tensors_go_to_a_device(file: Path) -> None:
    found = ckpt.load(file, device="meta")
    assert {tensor.device.type for tensor in found.values()} == {"meta"}
    assert [tuple(it.shape) for it in found.values()] == [
        tuple(it.shape) for it in tensors().values()
    ]


def test_what_is_in_memory_is_copied() -> None:
    state = tensors()
    found = ckpt.load(state)
    assert expected(found) == expected(state)
    found["half"].zero_()
    assert state["half"].any()
