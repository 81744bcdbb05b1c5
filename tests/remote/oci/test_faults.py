"""Faults 40 and 41 of OCI registries: networks that fail, and servers and artifacts that lie."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import ckpt as package
from ckpt.errors import FormatError
from ckpt.remote.oci.client import Client
from ckpt.remote.oci.modelpack import artifact_of
from ckpt.remote.oci.reference import parse
from ckpt.remote.oci.unpacking import fetch_files
from tests.cli.support import Ran, Run, tree
from tests.effort import by_effort
from tests.remote.elsewhere.web_server import Asked, WebServer
from tests.remote.oci.conftest import NAME, PASSWORD
from tests.remote.oci.made import MODEL, Made, archive, sha256
from tests.remote.proxy import Fault, Proxy, Request

BASE = "v2/team/net"


@pytest.fixture
def weights(folder: Path) -> bytes:
    save_file({"a": torch.arange(100_000.0)}, folder / "net.safetensors")
    return (folder / "net.safetensors").read_bytes()


@pytest.fixture
def made(weights: bytes, docker_settings: Path) -> Made:
    return Made().add("weight.v1.raw", "net.safetensors", weights)


@pytest.fixture
def net(ckpt: Run, weights: bytes, folder: Path) -> Run:
    assert ckpt("register", "net.safetensors").code == 0
    (folder / "there").mkdir()
    return ckpt


def refused(ran: Ran, code: int, *said: str) -> None:
    """One line, and perhaps a hint; and no registry."""
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") <= 1 + ran.err.count("hint: ")
    assert all(each in ran.err for each in said), ran.err
    assert not Path("registry.json").exists()


# What is sent.


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "GET"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_fault_40_busy_server_is_asked_again(
    net: Run, proxied: tuple[str, Proxy], method: str, status: int
) -> None:
    repository, proxy = proxied
    proxy.rule = lambda r: (
        Fault(status, happens=False) if (r.method, r.number) == (method, 1) else None
    )
    assert net("export", "v1", "-o", f"{repository}:v1").code == 0
    assert len(proxy.faults) == 1
    assert_same(net, repository)


def assert_same(net: Run, repository: str) -> None:
    ran = net("import", f"{repository}:v1", "--registry", "there")
    assert ran.code == 0, ran.err
    assert net("pin", "net:v1", "--registry", "there").out == net("pin", "v1").out


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("happens", [True, False], ids=["answer lost", "never arrived"])
def test_fault_40_lost_write_is_repeated_or_recognised(
    net: Run, proxied: tuple[str, Proxy], method: str, number: int, happens: bool
) -> None:
    """Four blobs and the manifest; after the last, nothing is sent a second time."""
    repository, proxy = proxied
    fault = Fault(happens=happens, drops=True)
    proxy.rule = lambda r: fault if (r.method, r.number) == (method, number) else None
    assert net("export", "v1", "-o", f"{repository}:v1").code == 0
    if (method, number) != ("POST", 5):
        assert len(proxy.faults) == 1
    puts = [each for each in proxy.seen if each.method == "PUT"]
    assert len(puts) == 5 + (method == "PUT" and not happens)
    assert_same(net, repository)


def test_fault_40_export_that_fails_leaves_the_tag(net: Run, proxied: tuple[str, Proxy]) -> None:
    repository, proxy = proxied
    first = net("export", "v1", "-o", f"{repository}:prod", "--json").data["digest"]
    assert net("rename", "v1", "--rule", "a=b").code == 0
    for at in range(1, 6):  # each attempt leaves some blobs there; the last one, the tag alone
        writes = len([each for each in proxy.seen if each.method in ("POST", "PUT")])

        def rule(request: Request, last: int = writes + at) -> Fault | None:
            seen = [each for each in proxy.seen if each.method in ("POST", "PUT")]
            return Fault(503, happens=False) if len(seen) >= last else None

        proxy.rule = rule
        ran = net("export", "v2", "-o", f"{repository}:prod", "--force")
        assert (ran.code, ran.out) == (7, "")
        assert "the server answers 503, in 5 attempts" in ran.err
        proxy.rule = lambda request: None
        again = net("export", "v1", "-o", f"{repository}:prod", "--json").data
        assert (again["was_there"], again["digest"]) == (True, first)
    assert net("export", "v2", "-o", f"{repository}:prod", "--force").code == 0


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, 7, "the server refuses it (401)"),
        (403, 7, "the server refuses it (403)"),
        (404, 2, "no such repository (404)"),
        (405, 7, "the server answers 405"),
        (413, 7, "the server answers 413"),
    ],
)
def test_fault_40_refusal_is_one_line(
    net: Run, proxied: tuple[str, Proxy], status: int, code: int, said: str
) -> None:
    repository, proxy = proxied
    proxy.rule = lambda r: Fault(status, happens=False) if r.method == "POST" else None
    ran = net("export", "v1", "-o", f"{repository}:v1")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.splitlines()[0] == f"error: {repository}: {said}"


def test_fault_40_tag_that_another_process_moves_is_noticed(
    net: Run, proxied: tuple[str, Proxy], repository: str
) -> None:
    address, proxy = proxied
    other = Made().add("weight.v1.raw", "x.pt", b"something else")

    def rule(request: Request) -> Fault | None:
        written = any(each.method == "PUT" for each in proxy.seen)
        if written and (request.method, request.path.rpartition("/")[2]) == ("GET", "v1"):
            other.send(repository, "v1")
        return None

    proxy.rule = rule
    ran = net("export", "v1", "-o", f"{address}:v1")
    assert (ran.code, ran.out) == (6, "")
    assert f"names {sha256(other.manifest)} now: another process moved it" in ran.err


def test_fault_40_damaged_version_is_not_sent(net: Run, repository: str, folder: Path) -> None:
    (damaged,) = (each for each in (folder / ".ckpt" / "objects").rglob("*") if each.is_file())
    data = bytearray(damaged.read_bytes())
    data[1000] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(data)
    assert net("export", "v1", "-o", f"{repository}:v1").code == 4
    assert net("import", f"{repository}:v1").code == 2


# What is fetched.


@pytest.mark.parametrize("cuts", [(0,), (1,), (200_000,), (200_000, 300_000, 399_999)])
@pytest.mark.parametrize("ranges", [True, False])
def test_fault_40_body_that_breaks_off_goes_on(
    ckpt: Run,
    made: Made,
    served: WebServer,
    weights: bytes,
    cuts: tuple[int, ...],
    ranges: bool,
) -> None:
    address, left = made.serve(served), [*cuts]

    def content(asked: Asked) -> bytes:
        if left:
            served.cut_at.append(left.pop(0))
        return weights

    served.answers[f"{BASE}/blobs/{sha256(weights)}"] = content
    served.etag = lambda path: None
    served.ranges = ranges
    assert ckpt("import", address).code == 0
    assert (left, served.cut_at) == ([], [])
    assert ckpt("export", "net:v1", "-o", "back.safetensors").code == 0
    assert Path("back.safetensors").read_bytes() == weights
    asked = [each for each in served.asked if each.path.endswith(sha256(weights))]
    assert len(asked) == len(cuts) + 1
    if ranges:
        assert sum(each.sent for each in asked) == len(weights)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_fault_40_refusal_of_what_is_fetched(
    ckpt: Run, made: Made, served: WebServer, weights: bytes, status: int, kind: str
) -> None:
    address = made.serve(served)
    path = f"{BASE}/manifests/v1" if kind == "manifest" else f"{BASE}/blobs/{sha256(weights)}"
    refuse(served, path, status)
    code, said = {
        401: (7, "the server refuses it (401)"),
        403: (7, "the server refuses it (403)"),
        404: (2, "no such artifact" if kind == "manifest" else "the server has no such blob"),
        500: (7, "the server answers 500, in 5 attempts"),
    }[status]
    refused(ckpt("import", address), code, said)


def refuse(served: WebServer, path: str, status: int) -> None:
    """Answer requests for a path with a status."""

    def allowed(asked: Asked) -> bool:
        if asked.path.removeprefix("/") == path:
            served.failures.append(status)
        return True

    served.allowed = allowed


@pytest.mark.parametrize("change", ["other bytes", "shorter", "longer"])
@pytest.mark.parametrize("which", ["weights", "config"])
def test_fault_40_wrong_bytes_are_refused(
    ckpt: Run, made: Made, served: WebServer, weights: bytes, change: str, which: str
) -> None:
    address = made.serve(served)
    config = json.loads(made.manifest)["config"]["digest"]
    path = f"{BASE}/blobs/{sha256(weights) if which == 'weights' else config}"
    data = served.files[path]
    served.files[path] = {
        "other bytes": data[:-1] + b"?",
        "shorter": data[:-1],
        "longer": data + b"?",
    }[change]
    said = "its bytes have the digest" if change == "other bytes" else "expected"
    refused(ckpt("import", address), 4, said)


def test_fault_40_body_longer_than_declared_is_not_read(
    ckpt: Run, made: Made, served: WebServer
) -> None:
    address = made.serve(served)
    served.length = False
    served.longer = b"x" * 5_000_000
    refused(ckpt("import", address), 7, "a manifest of more than 4,194,304 bytes")


def test_fault_40_manifest_of_another_digest_is_refused(
    ckpt: Run, made: Made, served: WebServer
) -> None:
    made.serve(served)
    asked = f"sha256:{'0' * 64}"
    served.files[f"{BASE}/manifests/{asked}"] = made.manifest
    address = f"{served.url.replace('http', 'oci')}/team/net@{asked}"
    refused(ckpt("import", address), 4, "the server sends")


def test_fault_40_tag_that_moves_meanwhile_does_not_matter(
    ckpt: Run, made: Made, served: WebServer, weights: bytes
) -> None:
    """The tag is asked for once; everything else by digest."""
    address = made.serve(served)
    assert ckpt("import", address).code == 0
    tags = [each.path for each in served.asked if "/manifests/" in each.path]
    assert tags == [f"/{BASE}/manifests/v1"]


def test_fault_40_silent_server_is_given_up(
    ckpt: Run, made: Made, served: WebServer, short_timeout: None
) -> None:
    address = made.serve(served)
    served.silent = True
    refused(ckpt("import", address), 7, "nothing came for 0.2 s, in 5 attempts")


@pytest.mark.parametrize("password", [True, False])
def test_fault_41_credentials_do_not_follow_a_redirect(
    ckpt: Run,
    made: Made,
    served: WebServer,
    other: WebServer,
    weights: bytes,
    docker_settings: Path,
    password: bool,
) -> None:
    from oras.auth.utils import get_basic_auth

    address = made.serve(served)
    host = served.url.removeprefix("http://")
    basic = get_basic_auth(NAME, PASSWORD)
    if password:
        (docker_settings / "config.json").write_text(json.dumps({"auths": {host: {"auth": basic}}}))
    served.extra = {"WWW-Authenticate": f'Bearer realm="{served.url}/token",service="x"'}
    served.files["token"] = b'{"token": "t0ken"}'
    served.allowed = lambda asked: (
        asked.path.startswith("/token") or asked.headers.get("authorization") == "Bearer t0ken"
    )
    path = f"{BASE}/blobs/{sha256(weights)}"
    other.files["there"] = served.files.pop(path)
    served.redirects[path] = f"{other.url}/there"
    ran = ckpt("import", address)
    assert ran.code == 0, ran.err
    (token,) = (each for each in served.asked if each.path.startswith("/token"))
    assert token.path == "/token?service=x"
    assert token.headers.get("authorization") == (f"Basic {basic}" if password else None)
    (there,) = other.asked
    assert "authorization" not in there.headers
    for secret in (PASSWORD, basic, "t0ken"):
        assert secret not in ran.out + ran.err
        assert not any(secret.encode() in data for data in tree(Path(".ckpt")).values())


@pytest.mark.parametrize(
    "realm", ["http://elsewhere.example/token", "file:///etc/passwd", "https://a:b@c/", "//", "x"]
)
def test_fault_41_token_server_without_encryption_gets_no_password(
    ckpt: Run, made: Made, served: WebServer, realm: str
) -> None:
    address = made.serve(served)
    served.extra = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    served.allowed = lambda asked: False
    refused(ckpt("import", address), 7, "which is not https")


# What an artifact says.


def changed(**fields: Any) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        made.changes |= fields

    return change


def layered(**fields: Any) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        made.layers[0] |= fields

    return change


def named(path: str) -> Callable[[Made], None]:
    return layered(annotations={"org.cncf.model.filepath": path})


def link(kind: bytes) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        info = tarfile.TarInfo("more.json")
        info.type, info.linkname = kind, "/etc/passwd"
        made.add("weight.config.v1.tar", "more", archive({}, info))

    return change


def packed(name: str) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        made.add("weight.config.v1.tar", "more", archive({name: b"{}"}))

    return change


def cut(made: Made) -> None:
    whole = archive({"more.json": b"x" * 5000})
    made.add("weight.config.v1.tar", "more", whole[:2048])


OTHER = {"mediaType": "application/vnd.oci.image.config.v1+json"}
IMAGE = {**OTHER, "digest": f"sha256:{'0' * 64}", "size": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(layers=None, config=None, manifests=[]), "an index of several manifests"),
        (changed(mediaType="application/vnd.docker.distribution.manifest.v2+json"), "not a model"),
        (changed(artifactType=None, config=IMAGE), "not a model: an artifact of type"),
        (changed(artifactType="application/x", config=IMAGE), "not a model: an artifact of type"),
        (changed(layers="x"), "layers: expected a list"),
        (changed(layers=[]), "no file of a model in it"),
        (changed(config=None), "config: missing"),
        (changed(schemaVersion="2"), "schemaVersion: expected an integer"),
        (layered(size=-1), "layers[0].size"),
        (layered(size=1 << 70), "layers[0].size"),
        (layered(size="12"), "layers[0].size"),
        (layered(size=True), "layers[0].size"),
        (layered(digest="sha256:12"), "layers[0].digest"),
        (layered(digest="sha512:12"), "layers[0].digest"),
        (layered(digest="../../../etc/passwd"), "layers[0].digest"),
        (layered(mediaType="\x1b[31m"), "layers[0].mediaType"),
        (layered(annotations={"a": 1}), "layers[0].annotations"),
        (layered(annotations=None), "'' is not a name for a file in a folder"),
        (layered(mediaType=f"{MODEL}.weight.v1.tar+gzip"), "packed weights"),
        (layered(mediaType=f"{MODEL}.weight.v1.tar+zstd"), "packed weights"),
        (layered(mediaType=f"{MODEL}.weight.v1.tar"), "not a tar archive"),
        (layered(mediaType=f"{MODEL}.dataset.v1.raw"), "no file of a model in it"),
        (named("../net.safetensors"), "is not a name for a file in a folder"),
        (named("/tmp/net.safetensors"), "is not a name for a file in a folder"),
        (named("a/../../net.safetensors"), "is not a name for a file in a folder"),
        (named("a\\..\\net.safetensors"), "is not a name for a file in a folder"),
        (named("a\x00b.safetensors"), "is not a name for a file in a folder"),
        (named("C:net.safetensors"), "is not a name for a file in a folder"),
        (named(f"{'a/' * 40}net.safetensors"), "is not a name for a file in a folder"),
        (lambda made: made.add("doc.v1.raw", "NET.safetensors", b"x"), "one file on some systems"),
        (lambda made: made.add("doc.v1.raw", "net.safetensors/x", b"x"), "and the folder of"),
        (packed("../more.json"), "is not a name for a file in a folder"),
        (packed("/etc/more.json"), "is not a name for a file in a folder"),
        (packed("net.safetensors"), "one file on some systems"),
        (link(tarfile.SYMTYPE), "is not a plain file"),
        (link(tarfile.LNKTYPE), "is not a plain file"),
        (link(tarfile.FIFOTYPE), "is not a plain file"),
        (link(tarfile.CHRTYPE), "is not a plain file"),
        (cut, "not a tar archive"),
        (lambda made: made.config.update(descriptor=None), "descriptor: expected an object"),
        (lambda made: made.config["descriptor"].update(createdAt="now"), "createdAt"),
        (lambda made: made.config["descriptor"].update(authors="x"), "authors"),
    ],
)
def test_fault_41_hostile_artifact_is_refused(
    ckpt: Run,
    made: Made,
    served: WebServer,
    folder: Path,
    change: Callable[[Made], None],
    said: str,
) -> None:
    change(made)
    before = {*folder.parent.rglob("*")}
    refused(ckpt("import", made.serve(served)), 3, said)
    assert {*folder.parent.rglob("*")} == before


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_fault_41_manifest_that_is_none(
    ckpt: Run, made: Made, served: WebServer, data: bytes
) -> None:
    refused(ckpt("import", made.serve(served, manifest=data)), 3)


def test_fault_41_artifact_larger_than_the_disk(ckpt: Run, made: Made, served: WebServer) -> None:
    made.layers[0]["size"] = 1 << 60
    refused(ckpt("import", made.serve(served)), 5, "bytes are needed")


def test_fault_41_thousands_of_layers(ckpt: Run, made: Made, served: WebServer) -> None:
    made.layers *= 3000
    refused(ckpt("import", made.serve(served)), 3, "3,000 layers, the limit is 2,000")


def test_fault_41_texts_of_an_artifact_do_not_reach_the_terminal(
    ckpt: Run, made: Made, served: WebServer
) -> None:
    made.config["descriptor"]["description"] = "a\x1b[31mred\nerror: b"
    made.add("dataset.v1.raw", "\x1b]0;x\x07", b"x")
    ran = ckpt("import", made.serve(served))
    assert ran.code == 0
    assert "\x1b" not in ran.out + ran.err + ckpt("show", "net:v1").out


def test_fault_41_pickle_that_runs_code_is_refused(
    ckpt: Run, served: WebServer, folder: Path, docker_settings: Path
) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, ("/tmp/never", "w"))

    torch.save({"w": torch.ones(3), "x": Hostile()}, folder / "x.pt")
    made = Made().add("weight.v1.raw", "x.pt", (folder / "x.pt").read_bytes())
    ran = ckpt("import", made.serve(served))
    assert ran.code == 3
    assert "io.open" in ran.err or "builtins.open" in ran.err or "_io.open" in ran.err
    assert ckpt("import", made.serve(served), "--drop-opaque").code == 0


# What an artifact of ckpt says about its version.


@pytest.fixture
def ours(net: Run, repository: str, served: WebServer, docker_host: str) -> Made:
    """An artifact that ckpt wrote, as one that a test can change; its layers are files, manifest
    and words."""
    import urllib.request

    net("export", "v1", "-o", f"{repository}:v1")
    base = repository.replace("oci://", "http://").replace(docker_host, f"{docker_host}/v2")
    made = Made()
    request = urllib.request.Request(
        f"{base}/manifests/v1", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}
    )
    with urllib.request.urlopen(request) as answer:
        made.layers = json.load(answer)["layers"]
    for layer in made.layers:
        with urllib.request.urlopen(f"{base}/blobs/{layer['digest']}") as answer:
            made.blobs[layer["digest"]] = answer.read()
    return made


def test_artifact_of_ckpt_that_a_test_has_copied_is_good(
    net: Run, ours: Made, served: WebServer
) -> None:
    assert net("import", ours.serve(served), "--registry", "there").code == 0
    assert net("pin", "net:v1", "--registry", "there").out == net("pin", "v1").out


def replaced(made: Made, at: int, data: bytes) -> None:
    made.blobs[sha256(data)] = data
    made.layers[at] |= {"digest": sha256(data), "size": len(data)}


def other_weights(made: Made) -> None:
    data = bytearray(made.blobs[made.layers[0]["digest"]])
    data[-1] ^= 1
    replaced(made, 0, bytes(data))


def other_manifest(**fields: Any) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        document = json.loads(made.blobs[made.layers[1]["digest"]])
        for name, value in fields.items():
            if isinstance(value, dict):
                document[name] |= value
            else:
                document[name] = value
        replaced(made, 1, json.dumps(document, sort_keys=True, separators=(",", ":")).encode())

    return change


def other_words(**fields: Any) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        document = json.loads(made.blobs[made.layers[2]["digest"]])
        replaced(made, 2, json.dumps({**document, **fields}).encode())

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, "its files are not those of its manifest"),
        (other_manifest(entries=[["b", "float32", [100_000], "sha256:" + "0" * 64]]), "is"),
        (other_manifest(file={"name": "../net.safetensors", "digest": None}), "of a file"),
        (other_manifest(file={"name": "x.safetensors", "digest": None}), "is missing"),
        (other_manifest(side_files=[["x", 1, "sha256:" + "0" * 64]]), "is missing"),
        (other_manifest(schema=9), "manifest of schema 9"),
        (other_manifest(record={"definition": {"digest": "sha256:" + "0" * 64, "nbytes": 9}}),
         "of definition is missing"),
        (other_manifest(record={"made_by": ""}), "has no 'made_by'"),
        (other_manifest(record={"metrics": {"a": "x"}}), "not a manifest"),
        (other_words(schema=2), "what ckpt wrote into it is damaged"),
        (other_words(origin={}), "what ckpt wrote into it is damaged"),
        (other_words(history=[{"did": "note"}]), "what ckpt wrote into it is damaged"),
        (lambda made: replaced(made, 1, b"x"), "not a manifest"),
        (lambda made: replaced(made, 2, b"x"), "what ckpt wrote into it is damaged"),
    ],
)  # fmt: skip
def test_fault_41_words_of_ckpt_that_lie_are_refused(
    net: Run, ours: Made, served: WebServer, change: Callable[[Made], None], said: str
) -> None:
    change(ours)
    ran = net("import", ours.serve(served), "--registry", "there")
    assert (ran.code, ran.out) == (4, ""), ran.err
    assert said in ran.err
    assert not Path("there/registry.json").exists()


def test_fault_42_events_of_other_versions_and_kinds_are_left_out(
    net: Run, ours: Made, served: WebServer
) -> None:
    """An artifact adds notes and metrics of its version; it moves no alias and signs nothing."""
    (manifest,) = {ours.layers[1]["digest"]}
    by = {"author": "Eve", "host": "x"}
    at = "2026-11-24T10:00:00.000000+00:00"
    events = [
        {"at": at, "did": "note", "by": by, "manifest": manifest, "text": "hers"},
        {"at": at, "did": "note", "by": by, "manifest": "sha256:" + "0" * 64, "text": "other"},
        {"at": at, "did": "alias", "by": by, "manifest": manifest, "name": "prod", "version": "v1"},
        {"at": at, "did": "sign", "by": by, "manifest": manifest, "bundle": {}},
    ]
    other_words(history=events)(ours)
    assert net("import", ours.serve(served), "--registry", "there").code == 0
    history = package.Registry("there").index().models["net"].log
    assert [(event.did, event.text) for event in history][:1] == [("note", "hers")]
    assert [event.did for event in history] == ["note", "copy"]


def long_header(made: Made) -> None:
    info = tarfile.TarInfo("more.json")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    made.add("weight.config.v1.tar", "more", out.getvalue())


def many_folders(made: Made) -> None:
    folders = [tarfile.TarInfo(f"f{number}") for number in range(10_001)]
    for each in folders:
        each.type = tarfile.DIRTYPE
    made.add("weight.config.v1.tar", "more", archive({}, *folders))


def nested(made: Made) -> None:
    """Headers for headers for headers."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 0
    made.add("weight.config.v1.tar", "more", info.tobuf(tarfile.GNU_FORMAT) * 5000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (long_header, "a header of 2,"),
        (many_folders, "more than 10,000 files and folders"),
        (nested, "not a tar archive"),
    ],
)
def test_fault_41_archive_that_costs_more_than_it_is_worth(
    ckpt: Run, made: Made, served: WebServer, change: Callable[[Made], None], said: str
) -> None:
    change(made)
    refused(ckpt("import", made.serve(served)), 3, said)


def test_fault_41_archive_with_any_byte_changed_is_refused_or_read(
    made: Made, served: WebServer, tmp_path: Path
) -> None:
    """Every byte of the headers, with the sum of its header made right again."""
    info = tarfile.TarInfo("a.json")
    info.size, info.pax_headers = 3, {"path": "b.json", "mtime": "1.5"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"abc"))
    whole, outcomes = out.getvalue(), set[str]()
    for at in range(0, 3 * 512, by_effort(7, 1, 1)):
        data = bytearray(whole)
        data[at] ^= 0xFF if at % 2 else 0x31
        if at // 512 != 1:
            summed(data, at // 512 * 512)
        outcomes.add(outcome_of(bytes(data), tmp_path / str(at), served))
    assert {"read", "refused"} <= outcomes


def summed(data: bytearray, begin: int) -> None:
    header = data[begin : begin + 512]
    header[148:156] = b" " * 8
    data[begin + 148 : begin + 156] = b"%06o\0 " % sum(header)


def outcome_of(data: bytes, folder: Path, served: WebServer) -> str:
    made = Made().add("weight.config.v1.tar", "more", data)
    folder.mkdir()
    with Client(parse(made.serve(served))) as client:
        try:
            fetch_files(client, artifact_of(made.manifest, "it"), folder)
        except FormatError:
            return "refused"
    names = [each.relative_to(folder) for each in folder.rglob("*")]
    return "read" if names else "nothing"


def test_archive_of_sparse_files_is_refused(ckpt: Run, made: Made, served: WebServer) -> None:
    """A small archive must not become a large file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("more.json")
        info.size = 512
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": "100000000000",
        }
        tar.addfile(info, io.BytesIO(b"x" * 512))
    made.add("weight.config.v1.tar", "more", out.getvalue())
    refused(ckpt("import", made.serve(served)), 3, "is not a plain file")
