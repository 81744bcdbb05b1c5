"""Checkpoints of a web server: what comes over the wire, and what a bad server can do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckpt as package
from ckpt.errors import RemoteError
from ckpt.remote.elsewhere import http, web
from tests.cli.support import Run
from tests.effort import long_but
from tests.remote.elsewhere.web_server import Asked, WebServer

SECRET = "s3cr3t"


def tensors(number: int = 6, columns: int = 512) -> dict[str, torch.Tensor]:
    return {f"layers.{i}.weight": torch.full((64, columns), float(i)) for i in range(number)}


@pytest.fixture(params=long_but(["x.safetensors", "x.pt"], ["x.safetensors", "x.pt", "legacy.pt"]))
def name(request: pytest.FixtureRequest, served: WebServer, folder: Path) -> str:
    """A file that is served, and is in the folder `here`."""
    (folder / "here").mkdir()
    path = folder / "here" / request.param
    if path.suffix == ".pt":
        new = path.name == "x.pt"
        torch.save(tensors(), path, _use_new_zipfile_serialization=new)
    else:
        save_file(tensors(), path)
    served.files[path.name] = path.read_bytes()
    return path.name


@pytest.fixture
def one(served: WebServer, folder: Path) -> str:
    """The URL of a safetensors file of 800 kB, which is at `here.safetensors` too."""
    save_file(tensors(), folder / "here.safetensors")
    served.files["m/x.safetensors"] = (folder / "here.safetensors").read_bytes()
    return f"{served.url}/m/x.safetensors"


@pytest.mark.parametrize(
    ("suffix", "requests", "nbytes"), [("safetensors", 3, 2e5), ("pt", 60, 5e5)]
)
def test_show_reads_little_of_a_large_file(
    ckpt: Run, served: WebServer, folder: Path, suffix: str, requests: int, nbytes: float
) -> None:
    large = tensors(48, 4096)  # 50 MB
    if suffix == "pt":
        torch.save(large, folder / "x.pt")
    else:
        save_file(large, folder / "x.safetensors")
    served.files["x"] = (folder / f"x.{suffix}").read_bytes()
    assert len(served.files["x"]) > 50_000_000
    ran = ckpt("show", f"{served.url}/x", "--json")
    assert (ran.code, ran.err, json.loads(ran.out)["keys"]) == (0, "", 48)
    assert len(served.asked) <= requests
    assert served.sent < nbytes


def test_same_is_shown_as_of_the_file_here(ckpt: Run, served: WebServer, name: str) -> None:
    here = json.loads(ckpt("show", f"here/{name}", "--json").out)
    there = json.loads(ckpt("show", f"{served.url}/{name}", "--json").out)
    source = there.pop("source")
    assert source == {"url": f"{served.url}/{name}", "etags": {name: f'"{name}-1"'}}
    assert there == {**here, "name": f"{served.url}/{name}"}


def test_same_is_written_as_from_the_file_here(ckpt: Run, served: WebServer, name: str) -> None:
    assert ckpt("rename", f"here/{name}", "--rule", "layers->blocks").code == 0
    ran = ckpt("rename", f"{served.url}/{name}", "--rule", "layers->blocks")
    assert (ran.code, ran.err) == (0, "")
    new = Path(name).stem + ".renamed" + Path(name).suffix
    assert f"wrote {new}  " in ran.out
    assert Path(new).read_bytes() == Path("here", new).read_bytes()


def test_values_are_compared(ckpt: Run, served: WebServer, name: str) -> None:
    url = f"{served.url}/{name}"
    ran = ckpt("diff", url, f"here/{name}", "--values", "--exit-code")
    assert (ran.code, ran.err) == (0, "")
    ran = ckpt("diff", url, f"here/{name}")
    assert (ran.code, "--values reads them" in ran.out) == (0, True)


def test_all_is_read_where_that_is_asked_for(ckpt: Run, served: WebServer, name: str) -> None:
    ran = ckpt("show", f"{served.url}/{name}", "--deep")
    assert (ran.code, "no NaN" in ran.out) == (0, True)
    loaded = package.load(f"{served.url}/{name}")
    assert all(torch.equal(loaded[key], value) for key, value in tensors().items())


def test_one_state_dict_of_several(ckpt: Run, served: WebServer, folder: Path) -> None:
    torch.save({"model": tensors(2), "ema": tensors(3)}, folder / "run.pt")
    served.files["run.pt"] = (folder / "run.pt").read_bytes()
    ran = ckpt("show", f"{served.url}/run.pt::ema", "--json")
    shown = json.loads(ran.out)
    assert (shown["keys"], shown["name"]) == (3, f"{served.url}/run.pt::ema")
    assert ckpt("rename", f"{served.url}/run.pt::ema", "--rule", "layers=blocks").code == 0
    assert set(torch.load("run.renamed.pt")["ema"]) == {f"blocks.{i}.weight" for i in range(3)}


def test_file_is_registered_with_where_it_comes_from(
    ckpt: Run, served: WebServer, name: str
) -> None:
    ran = ckpt("register", f"{served.url}/{name}", "--name", "net", "--json")
    assert ran.code == 0
    ran = ckpt("show", "net", "--json")
    shown = json.loads(ran.out)
    assert shown["record"]["source"]["url"] == f"{served.url}/{name}"
    ran = ckpt("register", f"here/{name}", "--name", "net")
    assert ran.out.startswith("already registered as net:v1")
    assert ckpt("export", "net", "-o", f"back{Path(name).suffix}").code == 0
    assert Path(f"back{Path(name).suffix}").read_bytes() == served.files[name]
    assert ckpt("verify").code == 0


def test_sharded_checkpoint(ckpt: Run, served: WebServer, folder: Path) -> None:
    """The index that huggingface_hub writes, and its shards beside it."""
    from huggingface_hub import save_torch_state_dict

    (folder / "here").mkdir()
    save_torch_state_dict(tensors(), folder / "here", max_shard_size=300_000)
    served.files |= {f"m/{p.name}": p.read_bytes() for p in (folder / "here").iterdir()}
    assert len(served.files) > 2
    url = f"{served.url}/m/model.safetensors.index.json"
    shown = json.loads(ckpt("show", url, "--json").out)
    assert (shown["keys"], shown["format"]) == (6, "safetensors-sharded")
    ran = ckpt("rename", url, "--rule", "layers=blocks")
    assert (ran.code, ran.err, "wrote m.renamed/" in ran.out) == (0, "", True)
    assert ckpt("rename", "here", "--rule", "layers=blocks", "-o", "expected").code == 0
    for path in Path("expected").iterdir():
        assert Path("m.renamed", path.name).read_bytes() == path.read_bytes()


# Faults of the server.


def test_fault_40_body_that_breaks_off_goes_on_where_it_was(
    ckpt: Run, served: WebServer, one: str
) -> None:
    served.cut_at = [70_000, 200_000, 200_001, 700_000]
    ran = ckpt("export", one, "-o", "new.safetensors")
    assert (ran.code, served.cut_at) == (0, [])
    assert Path("new.safetensors").read_bytes() == Path("here.safetensors").read_bytes()
    assert served.sent == len(served.files["m/x.safetensors"])  # nothing comes twice


@pytest.mark.parametrize("status", long_but([429, 503], [429, 500, 502, 503, 504]))
def test_fault_40_busy_server_is_asked_again(
    ckpt: Run, served: WebServer, one: str, status: int
) -> None:
    served.failures = [status] * 4
    assert ckpt("show", one).code == 0
    served.failures = [status] * 9
    ran = ckpt("show", one)
    assert (ran.code, ran.out, len(served.failures)) == (7, "", 4)
    assert f"{one}: the server answers {status}, in 5 attempts" in ran.err


def test_fault_40_server_that_breaks_off_for_ever_is_given_up(
    ckpt: Run, served: WebServer, one: str
) -> None:
    served.cut_at = [100_000 + at for at in range(9)]
    ran = ckpt("rename", one, "--rule", "layers=blocks")
    assert (ran.code, "the connection broke" in ran.err) == (7, True)
    assert [path.name for path in Path().iterdir()] == ["here.safetensors"]


@pytest.mark.usefixtures("short_timeout")
def test_fault_40_silent_server_is_given_up(ckpt: Run, served: WebServer, one: str) -> None:
    served.silent = True
    ran = ckpt("show", one)
    assert (ran.code, "nothing came for 0.2 s" in ran.err) == (7, True)


def test_fault_40_body_longer_than_declared_stops_at_the_size(
    ckpt: Run, served: WebServer, one: str
) -> None:
    served.longer = b"x" * 1000
    assert ckpt("export", one, "-o", "new.safetensors").code == 0
    assert Path("new.safetensors").read_bytes() == Path("here.safetensors").read_bytes()


@pytest.mark.parametrize("etag", ['"{}"', 'W/"{}"'], ids=["strong", "weak"])
def test_fault_40_file_that_changes_is_noticed(
    ckpt: Run, served: WebServer, one: str, etag: str
) -> None:
    served.etag = lambda _: etag.format(len(served.asked) > 1)
    ran = ckpt("rename", one, "--rule", "layers=blocks")
    assert (ran.code, f"{one}: changed while it was read" in ran.err) == (7, True)
    assert [path.name for path in Path().iterdir()] == ["here.safetensors"]


def test_fault_40_file_that_grows_is_noticed(ckpt: Run, served: WebServer, one: str) -> None:
    served.etag = lambda _: None
    whole = served.files.pop("m/x.safetensors")
    served.answers["m/x.safetensors"] = lambda _: whole + b"x" * (len(served.asked) > 1)
    ran = ckpt("rename", one, "--rule", "layers=blocks")
    assert (ran.code, "another range than asked for" in ran.err) == (7, True)


def test_fault_40_server_without_ranges(
    ckpt: Run, served: WebServer, one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.ranges = False
    served.cut_at = [500_000]
    assert ckpt("show", one).code == 0
    assert len(served.asked) == 2  # small enough to be taken, whole, twice
    monkeypatch.setattr(http, "SMALL", 1000)
    ran = ckpt("show", one)
    assert ran.code == 7
    assert "the server cannot send parts of a file, and this one is of 786," in ran.err
    assert ckpt("rename", one, "--rule", "layers=blocks").code == 0
    assert set(load_file("x.renamed.safetensors")) == {f"blocks.{i}.weight" for i in range(6)}
    assert ckpt("register", one, "--name", "net").code == 0
    served.length = False
    ran = ckpt("rename", one, "--rule", "layers=blocks", "-o", "new.safetensors")
    assert (ran.code, "this one is of unknown size" in ran.err) == (7, True)


def test_packed_body_is_refused(ckpt: Run, served: WebServer, one: str) -> None:
    served.extra = {"Content-Encoding": "gzip"}
    ran = ckpt("show", one)
    assert (ran.code, "the server packs it (gzip)" in ran.err) == (7, True)


def test_range_that_was_not_asked_for_is_refused(ckpt: Run, served: WebServer, one: str) -> None:
    served.extra = {"Content-Range": "bytes 5-9/10"}
    # A second header of this name goes before the first.
    served.ranges = False
    served.answers["m/x.safetensors"] = lambda _: b"x" * 10
    ran = ckpt("show", one)
    assert (ran.code, ran.out) == (3, "")  # an answer 200 is the whole file, whatever it says


@pytest.mark.parametrize(
    ("path", "said"), [("m/nothing.pt", "no such file (404)"), ("m/", "the URL of a folder")]
)
def test_what_is_not_there(ckpt: Run, served: WebServer, one: str, path: str, said: str) -> None:
    ran = ckpt("show", f"{served.url}/{path}")
    assert (ran.code, said in ran.err, len(ran.err.splitlines()) <= 2) == (2, True, True)


NO_URLS = (
    *("http://", "http://host", "http://host:port/x.pt", "http://host/a b.pt", "http://[/x.pt"),
    *("http://[#net", "s3://[x/y.pt", "s3://[x#net", "ftp://host/x.pt", "x://y", "file://h/x.pt"),
)


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url_is_refused(ckpt: Run, url: str) -> None:
    ran = ckpt("show", url)
    assert (ran.code, ran.out, "Traceback" in ran.err) == (2, "", False)


def test_file_elsewhere_is_not_replaced_in_place(ckpt: Run, one: str) -> None:
    ran = ckpt("rename", one, "--rule", "layers=blocks", "--in-place")
    assert (ran.code, "is elsewhere" in ran.err) == (2, True)


def test_result_here_is_not_replaced(ckpt: Run, one: str) -> None:
    Path("x.renamed.safetensors").write_bytes(b"mine")
    ran = ckpt("rename", one, "--rule", "layers=blocks")
    assert (ran.code, Path("x.renamed.safetensors").read_bytes()) == (2, b"mine")


@pytest.mark.parametrize("last", ["..%2F..%2Fevil.safetensors.index.json", "%2E%2E", "a%00b.pt"])
def test_fault_41_name_in_a_url_leads_nowhere_else(
    ckpt: Run, served: WebServer, folder: Path, last: str
) -> None:
    """Files here would get it."""
    from urllib.parse import unquote

    served.files[f"m/{unquote(last)}"] = b"{}"
    ran = ckpt("rename", f"{served.url}/m/{last}", "--rule", "layers=blocks")
    assert (ran.code, "is not the name of a file" in ran.err) == (2, True)
    assert list(folder.iterdir()) == []


# Redirects and credentials.


def with_password(url: str) -> str:
    return url.replace("http://", f"http://ann:{SECRET}@")


def is_authorized(asked: Asked) -> bool:
    return asked.headers.get("authorization", "").startswith("Basic ")


def test_fault_41_credentials_stay_with_their_host(
    ckpt: Run, served: WebServer, other: WebServer, one: str
) -> None:
    other.files["x"] = served.files.pop("m/x.safetensors")
    served.redirects["m/x.safetensors"] = f"{other.url}/x"
    served.allowed = is_authorized
    assert ckpt("export", with_password(one), "-o", "new.safetensors").code == 0
    assert all(map(is_authorized, served.asked))
    assert other.asked
    assert not any(map(is_authorized, other.asked))
    assert len(served.asked) == 1  # the address that it leads to is used again
    ran = ckpt("show", one)
    assert (ran.code, "refuses it (401)" in ran.err) == (7, True)


def test_fault_41_credentials_are_never_printed(
    ckpt: Run, served: WebServer, one: str, folder: Path
) -> None:
    url = with_password(one) + f"?token={SECRET}"
    for words in (
        ("show", url),
        ("show", url, "--json"),
        ("diff", url, url, "--json"),
        ("rename", url, "--rule", "layers=blocks"),
        ("rename", url, "--rule", "nothing=blocks"),
        ("register", url, "--name", "net"),
        ("show", "net", "--json"),
        ("show", url + "x"),
        ("show", with_password(served.url) + "/none.pt"),
        ("show", with_password("http://127.0.0.1:9/x.pt")),
        ("show", with_password("http://host:port/x.pt")),
        ("show", f"http://ann:{SECRET}/more@host/x.pt"),
        *((word, url) for word in ("log", "rm", "du", "repair", "alias prod", "verify")),
        ("show", f"s3://ann:{SECRET}@host/x.pt"),
        ("show", f"s3://ann:{SECRET}@host/x#net"),
        ("show", f"hf://ann:{SECRET}@host/x"),
        ("show", f"ftp://ann:{SECRET}@host/x.pt"),
    ):
        ran = ckpt(*" ".join(words).split())
        assert SECRET not in ran.out + ran.err, words
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_redirects_are_followed_but_not_for_ever(ckpt: Run, served: WebServer, one: str) -> None:
    for at in range(5):
        served.redirects[f"r{at}"] = f"/r{at + 1}" if at < 4 else one
    assert ckpt("show", f"{served.url}/r0").code == 0
    served.redirects["r5"] = "/r0"
    ran = ckpt("show", f"{served.url}/r5")
    assert (ran.code, "more than 5 redirects" in ran.err) == (7, True)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/x", "http://[", "//"])
def test_redirect_to_what_is_no_web_server_is_refused(
    ckpt: Run, served: WebServer, target: str
) -> None:
    served.redirects["x.pt"] = target
    ran = ckpt("show", f"{served.url}/x.pt")
    assert (ran.code, "redirect" in ran.err) == (7, True)


def test_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(RemoteError, match="a redirect from https to http://host/y, not followed"):
        web.redirected("https://host/x", "http://host/y", "x")
    assert web.redirected("http://host/x", "https://host/y", "x") == "https://host/y"


def test_address_that_expires_is_asked_for_again(
    ckpt: Run, served: WebServer, other: WebServer, one: str
) -> None:
    other.files["x"] = other.files["y"] = served.files.pop("m/x.safetensors")
    other.etag = lambda _: '"same"'
    served.redirects["m/x.safetensors"] = f"{other.url}/x"
    other.allowed = lambda asked: asked.path == "/y" or len(other.asked) < 2

    def moved(asked: Asked) -> bool:
        if len(served.asked) > 1:
            served.redirects["m/x.safetensors"] = f"{other.url}/y"
        return True

    served.allowed = moved
    assert ckpt("export", one, "-o", "new.safetensors").code == 0
    assert Path("new.safetensors").read_bytes() == other.files["y"]


def test_text_of_the_server_is_escaped(ckpt: Run, served: WebServer, one: str) -> None:
    served.etag = lambda _: '"\x1b[31mred"'
    ran = ckpt("show", one)
    assert (ran.code, "\x1b" in ran.out + ran.err) == (0, False)
    served.redirects["m/x.safetensors"] = "gopher://\x1b[31mred"
    ran = ckpt("show", one)
    assert (ran.code, "\x1b" in ran.out + ran.err) == (7, False)


def test_connection_is_kept(served: WebServer, one: str) -> None:
    """One connection serves all requests for one file."""
    made: list[object] = []
    client = web.Web()
    opened: Callable[..., object] = client._connection

    def counted(*words: object) -> object:
        made.append(words)
        return opened(*words)

    client._connection = counted  # type: ignore[method-assign, assignment]
    for _ in range(3):
        with client.get(one, {"Range": "bytes=0-99"}, name="x") as answer:
            assert len(b"".join(answer.chunks(100))) == 100
    assert len(made) == 1
    client.close()
