"""A version of a registry elsewhere: read like one here, and never believed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ckpt as package
from tests.cli.support import Run
from tests.effort import long_but
from tests.remote.elsewhere.test_http import tensors
from tests.remote.elsewhere.web_server import WebServer


@pytest.fixture
def here(ckpt: Run, folder: Path) -> Path:
    """`net` v1, with `prod`, and v2, its rename, in a registry that commands here do not find."""
    torch.save({"model": tensors(), "ema": tensors(2)}, folder / "net.pt")
    (folder / "team").mkdir()
    for words in (
        ("register", "net.pt::model", "--alias", "prod", "-m", "first"),
        ("rename", "net:v1", "--rule", "layers=blocks"),
    ):
        assert ckpt(*words, "--registry", "team").code == 0
    return folder / "team"


@pytest.fixture(params=long_but(["as on disk"], ["as on disk", "as in a bucket", "file"]))
def url(request: pytest.FixtureRequest, here: Path, served: WebServer) -> Iterator[str]:
    if request.param == "file":
        yield here.as_uri()
        return
    top = "team/" if request.param == "as on disk" else "team/.ckpt/"
    for path in here.rglob("*"):
        if path.is_file() and path.name not in ("lock", "writing"):
            name = f"team/{path.relative_to(here).as_posix()}"
            served.files[name.replace(top, "team/", 1)] = path.read_bytes()
    yield f"{served.url}/team"


def test_same_is_shown_and_written_as_of_the_registry_here(
    ckpt: Run, here: Path, url: str, folder: Path
) -> None:
    for ref in ("net", "net@prod", "net:v1", "net:v1::ema"):
        shown = json.loads(ckpt("show", f"{url}#{ref}", "--json").out)
        expected = json.loads(ckpt("show", ref, "--json", "--registry", "team").out)
        assert shown.pop("name") == f"{url}#{expected.pop('name')}"
        assert shown == expected
    assert ckpt("export", f"{url}#net@prod", "-o", "back.pt").code == 0
    assert Path("back.pt").read_bytes() == Path("net.pt").read_bytes()
    assert not (folder / "registry.json").exists()
    loaded = package.load(f"{url}#net:v2")
    assert {key: float(value[0, 0]) for key, value in loaded.items()} == {
        f"blocks.{i}.weight": float(i) for i in range(6)
    }
    assert ckpt("show", f"{url}#net", "--deep").code == 0


def test_diff_reads_manifests_only(ckpt: Run, here: Path, served: WebServer, url: str) -> None:
    expected = ckpt("diff", "net:v1", "net:v2", "--registry", "team").out
    ran = ckpt("diff", f"{url}#net:v1", f"{url}#net:v2")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.replace(f"{url}#", "") == expected
    assert not any("objects/" in each.path for each in served.asked)
    ran = ckpt("diff", f"{url}#net:v1", "net.pt::model", "--exit-code")
    assert (ran.code, "6 keys" in ran.out) == (0, True)


def test_rename_of_a_version_elsewhere_writes_a_file_here(ckpt: Run, url: str) -> None:
    ran = ckpt("rename", f"{url}#net:v1", "--rule", "layers=blocks")
    assert (ran.code, ran.out, "in a registry elsewhere" in ran.err) == (2, "", True)
    assert ckpt("rename", f"{url}#net:v1", "--rule", "layers=blocks", "-o", "x.pt").code == 0
    assert set(torch.load("x.pt")["model"]) == {f"blocks.{i}.weight" for i in range(6)}


def test_version_elsewhere_is_no_file_to_register(ckpt: Run, url: str) -> None:
    ran = ckpt("register", f"{url}#net:v1", "--name", "net")
    assert (ran.code, "ckpt export" in ran.err, Path("registry.json").exists()) == (2, True, False)


@pytest.mark.parametrize("ref", ["net:v9", "none", "net@none", "old.pt", "net.py:Net"])
def test_ref_that_names_no_version_there(ckpt: Run, url: str, ref: str) -> None:
    ran = ckpt("show", f"{url}#{ref}")
    assert (ran.code, ran.out) == (2, "")


def at(served: WebServer, here: Path) -> str:
    for path in here.rglob("*"):
        if path.is_file():
            served.files[f"team/{path.relative_to(here).as_posix()}"] = path.read_bytes()
    return f"{served.url}/team"


def largest(served: WebServer, kind: str) -> str:
    found = [name for name in served.files if f"/{kind}/" in name]
    return max(found, key=lambda name: len(served.files[name]))


@pytest.mark.parametrize("kind", ["objects", "manifests"])
def test_fault_40_wrong_bytes_are_refused(
    ckpt: Run, served: WebServer, here: Path, kind: str
) -> None:
    url = at(served, here)
    name = largest(served, kind)
    good = served.files[name]
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good + b"x", good[:-1]):
        served.files[name] = bad
        ran = ckpt("export", f"{url}#net", "-o", "x.pt")
        assert (ran.code, ran.out, Path("x.pt").exists()) == (4, "", False)
    del served.files[name]
    ran = ckpt("export", f"{url}#net", "-o", "x.pt")
    assert (ran.code, "is missing" in ran.err, Path("x.pt").exists()) == (4, True, False)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"schema": 99}',
        b'{"schema": 1, "models": {"../x": 3}}',
        b"[" * 90_000,
    ],
    ids=["empty", "list", "bytes", "newer", "names", "deep"],
)
def test_fault_41_bad_index_is_refused(
    ckpt: Run, served: WebServer, here: Path, index: bytes
) -> None:
    url = at(served, here)
    served.files["team/registry.json"] = index
    ran = ckpt("show", f"{url}#net")
    assert (ran.code in (3, 4), ran.out, "Traceback" in ran.err) == (True, "", False)


def test_fault_41_names_and_words_of_the_index_are_escaped(
    ckpt: Run, served: WebServer, here: Path
) -> None:
    url = at(served, here)
    index = served.files["team/registry.json"]
    served.files["team/registry.json"] = index.replace(b'"first"', b'"\\u001b[31mfirst"')
    ran = ckpt("show", f"{url}#net:v1")
    assert (ran.code, "\x1b" in ran.out + ran.err, "first" in ran.out) == (0, False, True)


def test_no_registry_there(ckpt: Run, served: WebServer) -> None:
    ran = ckpt("show", f"{served.url}/nothing#net")
    assert (ran.code, "registry.json: no such file" in ran.err) == (2, True)
