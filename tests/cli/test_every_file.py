"""Every command on one file of every kind (`tests/zoo.py`)."""

import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import ckpt as package
from tests.cli.support import Run, tree
from tests.formats.support import expected
from tests.zoo import KINDS, Specimen

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
NOT_IN_SAFETENSORS = {"dtypes": "complex128"}


@pytest.fixture(params=KINDS)
def specimen(request: pytest.FixtureRequest, folder: Path) -> Specimen:
    (folder / "in").mkdir()
    return KINDS[request.param](Path("in"))


def files(path: Path) -> dict[str, bytes]:
    return tree(path) if path.is_dir() else {"": path.read_bytes()}


def test_export_gives_the_registered_file_byte_for_byte(
    ckpt: Run, folder: Path, specimen: Specimen
) -> None:
    before = files(specimen.path)
    assert ckpt("register", specimen.ref, "--name", "m").code == 0
    out = f"back{specimen.path.suffix}"
    ran = ckpt("export", "m:v1", "-o", out)
    assert ran.code == 0, ran.err
    assert files(folder / out) == before
    assert files(specimen.path) == before
    assert ckpt("verify").code == 0


def test_show_reads_it_whole_and_in_full(ckpt: Run, specimen: Specimen) -> None:
    shown = ckpt("show", specimen.ref, "--deep", "--json")
    assert shown.code == 0, shown.err
    keys = [each["key"] for each in shown.data["tensors"]]
    # The library's writer sorts the tensors by their dtypes.
    order = set if specimen.path.suffix == ".safetensors" else list
    assert order(keys) == order(specimen.tensors)
    assert ckpt("show", specimen.ref).code == 0
    assert ckpt("show", specimen.ref, "--tree").code == 0


def test_open_gives_what_was_saved(ckpt: Run, specimen: Specimen) -> None:
    with package.open(specimen.ref) as lazy:
        assert expected(dict(lazy)) == expected(specimen.tensors)
    ckpt("register", specimen.ref, "--name", "m")
    assert expected(package.load("m:v1")) == expected(specimen.tensors)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_other_container_holds_the_same(
    ckpt: Run, folder: Path, specimen: Specimen, suffix: str
) -> None:
    out = folder / f"other{suffix}"
    ran = ckpt("export", specimen.ref, "-o", str(out))
    if suffix == ".safetensors" and "complex128" in specimen.tensors:
        assert ran.code == 3
        assert "safetensors cannot hold complex128" in ran.err
        return
    assert ran.code == 0, ran.err
    theirs = _by_all_names(out) if suffix == ".safetensors" else _loaded(out)
    # Of the same container without `::` the file itself is copied, whatever its keys are.
    if specimen.inside is not None or suffix != specimen.path.suffix:
        assert expected(theirs) == expected(specimen.tensors)


def _by_all_names(path: Path) -> dict[str, torch.Tensor]:
    """Its tensors, also by the names of tied ones that it notes."""
    with safe_open(path, "pt") as file:
        noted = file.metadata() or {}
    stored = load_file(path)
    return stored | {name: stored[key] for name, key in noted.items() if key in stored}


def _loaded(path: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(torch.load(path, weights_only=False))


def test_diff_finds_nothing_between_a_file_and_its_version(ckpt: Run, specimen: Specimen) -> None:
    ckpt("register", specimen.ref, "--name", "m")
    ran = ckpt("diff", specimen.ref, "m:v1", "--values", "--exit-code")
    assert ran.code == 0, ran.out + ran.err


def test_rename_moves_every_key_and_nothing_else(
    ckpt: Run, folder: Path, specimen: Specimen, request: pytest.FixtureRequest
) -> None:
    before = files(specimen.path)
    ran = ckpt("rename", specimen.ref, "--rule", "^(?=.)->x.", "-o", f"new{specimen.path.suffix}")
    assert files(specimen.path) == before
    if any(kind in request.node.name for kind in ("typed keys", "optimizer")):
        assert ran.code == 3, "these keys are no text"
        assert list(Path(folder).glob("new*")) == []
        return
    assert ran.code == 0, ran.err
    new = f"new{specimen.path.suffix}"
    ref = f"./{new}::{specimen.inside}" if specimen.inside else f"./{new}"
    with package.open(ref) as lazy:
        wanted = {f"x.{key}": each for key, each in specimen.tensors.items()}
        assert expected(dict(lazy)) == expected(wanted)
