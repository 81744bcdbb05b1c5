"""Objects of an S3 bucket: moto's server over HTTP, with a relay that counts before it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from ckpt.remote.elsewhere import writing
from tests.cli.support import Run
from tests.effort import by_effort, long_but
from tests.remote.elsewhere.conftest import Bucket
from tests.remote.elsewhere.counted import Relay
from tests.remote.elsewhere.test_http import tensors


def large(folder: Path, number: int = 6) -> bytes:
    """A file of `number` times 2 MB, with its name in the folder as `old.safetensors`."""
    save_file({f"layers.{i}.w": torch.full((500, 1000), float(i)) for i in range(number)},
              folder / "old.safetensors")  # fmt: skip
    return (folder / "old.safetensors").read_bytes()


@pytest.mark.parametrize("suffix", long_but(["pt"], ["pt", "safetensors"]))
def test_object_is_read_like_a_file_here(
    ckpt: Run, bucket: Bucket, relay: Relay, folder: Path, suffix: str
) -> None:
    path = folder / f"x.{suffix}"
    many = tensors(20, 1024)
    torch.save(many, path) if suffix == "pt" else save_file(many, path)
    url = bucket.put(f"models/{path.name}", path.read_bytes())
    relay.received = 0
    shown = json.loads(ckpt("show", url, "--json").out)
    assert relay.received < (500_000 if suffix == "pt" else 200_000)
    source = shown.pop("source")
    etag = hashlib.md5(path.read_bytes()).hexdigest()
    assert source == {"url": url, "etags": {path.name: f'"{etag}"'}}
    assert shown == {**json.loads(ckpt("show", path.name, "--json").out), "name": url}
    assert ckpt("rename", url, "--rule", "layers=blocks").code == 0
    assert ckpt("rename", path.name, "--rule", "layers=blocks", "-o", f"here.{suffix}").code == 0
    assert Path(f"x.renamed.{suffix}").stat().st_size == Path(f"here.{suffix}").stat().st_size
    assert ckpt("diff", f"x.renamed.{suffix}", f"here.{suffix}", "--exit-code").code == 0
    assert ckpt("register", url, "--name", "net").code == 0
    assert ckpt("export", "net", "-o", f"back.{suffix}").code == 0
    assert Path(f"back.{suffix}").read_bytes() == path.read_bytes()


def test_folder_of_shards(ckpt: Run, bucket: Bucket, folder: Path) -> None:
    (folder / "here").mkdir()
    save_torch_state_dict(tensors(), folder / "here", max_shard_size=300_000)
    (folder / "here" / "config.json").write_text("{}")
    for path in (folder / "here").iterdir():
        bucket.put(f"net/{path.name}", path.read_bytes())
    shown = json.loads(ckpt("show", f"{bucket.url}/net/", "--json").out)
    assert (shown["keys"], [it["name"] for it in shown["side_files"]]) == (6, ["config.json"])
    assert ckpt("rename", f"{bucket.url}/net", "--rule", "layers=blocks").code == 0
    assert ckpt("rename", "here", "--rule", "layers=blocks", "-o", "expected").code == 0
    ran = ckpt("rename", f"{bucket.url}/net", "--rule", "layers=blocks", "-o", f"{bucket.url}/new")
    assert (ran.code, ran.err) == (0, "")
    for path in Path("expected").iterdir():
        assert Path("net.renamed", path.name).read_bytes() == path.read_bytes()
        assert bucket.get(f"new/{path.name}") == path.read_bytes()
    ran = ckpt("rename", f"{bucket.url}/net", "--rule", "layers=blocks", "-o", f"{bucket.url}/new/")
    assert (ran.code, "already exists" in ran.err) == (2, True)


def test_rename_in_the_bucket_moves_few_bytes(
    ckpt: Run, bucket: Bucket, relay: Relay, folder: Path
) -> None:
    number = by_effort(10, 50, 50)
    data = large(folder, number)  # 2 MB each
    old = bucket.put("old.safetensors", data)
    relay.sent = relay.received = 0
    new = f"{bucket.url}/sub/new.safetensors"
    ran = ckpt("rename", old, "--rule", "layers=blocks", "-o", new)
    assert (ran.code, ran.err) == (0, "")
    assert f"wrote {new}  {2 * number}.0 MB, 5.2 MB of them sent; the rest was in" in ran.out
    assert relay.sent + relay.received < 11_000_000  # 5.2 MB came here, and went back
    assert (
        ckpt("rename", "old.safetensors", "--rule", "layers=blocks", "-o", "x.safetensors").code
        == 0
    )
    assert bucket.get("sub/new.safetensors") == Path("x.safetensors").read_bytes()
    assert bucket.unfinished() == []


def test_object_is_never_replaced(ckpt: Run, bucket: Bucket, folder: Path) -> None:
    old = bucket.put("old.safetensors", large(folder))
    there = bucket.put("there.safetensors", b"mine")
    for words in ((), ("--force",)):
        ran = ckpt("rename", old, "--rule", "layers=blocks", "-o", there, *words)
        assert (ran.code, ran.out) == (2, "")
    assert (bucket.get("there.safetensors"), bucket.unfinished()) == (b"mine", [])


def test_fault_40_another_writer_is_first(
    ckpt: Run, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one writes between the look and the end: the condition of S3 decides."""
    old = bucket.put("old.safetensors", large(folder))
    complete = writing._complete

    def late(*words: Any) -> None:
        bucket.put("new.safetensors", b"theirs")
        complete(*words)

    monkeypatch.setattr(writing, "_complete", late)
    ran = ckpt("rename", old, "--rule", "layers=blocks", "-o", f"{bucket.url}/new.safetensors")
    assert (ran.code, "already exists" in ran.err) == (2, True)
    assert (bucket.get("new.safetensors"), bucket.unfinished()) == (b"theirs", [])


def test_fault_40_lost_reply_is_recognised(
    ckpt: Run, bucket: Bucket, relay: Relay, folder: Path
) -> None:
    """The object was completed, the reply lost; the next attempt is refused by the condition."""
    old = bucket.put("old.safetensors", large(folder))
    lost: list[bytes] = []

    def completes(request: bytes) -> bool:
        if b"CompleteMultipartUpload" in request and not lost:
            lost.append(request)
            return True
        return False

    relay.lose = completes
    ran = ckpt("rename", old, "--rule", "layers=blocks", "-o", f"{bucket.url}/new.safetensors")
    assert (ran.code, len(lost)) == (0, 1)
    assert bucket.keys() == ["new.safetensors", "old.safetensors"]


def test_fault_40_source_that_changes_is_noticed(
    ckpt: Run, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = large(folder)
    old = bucket.put("old.safetensors", data)
    part = writing._part

    def slow(*words: Any) -> Any:
        bucket.put("old.safetensors", data[:-1] + b"x")
        return part(*words)

    monkeypatch.setattr(writing, "_part", slow)
    ran = ckpt("rename", old, "--rule", "layers=blocks", "-o", f"{bucket.url}/new.safetensors")
    assert (ran.code, f"{old}: changed while it was read" in ran.err) == (7, True)
    assert (bucket.keys(), bucket.unfinished()) == (["old.safetensors"], [])


def test_bytes_are_streamed_without_botocore(
    ckpt: Run, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = bucket.put("old.safetensors", large(folder))
    monkeypatch.setattr(writing, "find_spec", lambda name: None)
    monkeypatch.setattr(writing, "_AT_ONCE", 6 << 20)  # so it is sent in parts
    ran = ckpt("rename", old, "--rule", "layers=blocks", "-o", f"{bucket.url}/new.safetensors")
    assert ran.code == 0
    why = "all of them sent (to let S3 copy what it has:  pip install 'ckpt-registry[s3]'"
    assert why in " ".join(ran.out.split("\n"))
    (folder / "new.safetensors").write_bytes(bucket.get("new.safetensors"))
    assert {key: float(value[0, 0]) for key, value in load_file("new.safetensors").items()} == {
        f"blocks.{i}.w": float(i) for i in range(6)
    }


def test_file_here_goes_into_the_bucket(ckpt: Run, bucket: Bucket, folder: Path) -> None:
    torch.save({"model": tensors()}, folder / "run.pt")
    url = f"{bucket.url}/sub/"
    ran = ckpt("rename", "run.pt::model", "--rule", "layers=blocks", "-o", url)
    assert (ran.code, f"wrote {url}run.pt" in ran.out) == (0, True)
    (folder / "back.pt").write_bytes(bucket.get("sub/run.pt"))
    assert set(torch.load("back.pt")["model"]) == {f"blocks.{i}.weight" for i in range(6)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rule", "layers=blocks", "-o", "{}/x.pt"), "of another suffix"),
        (("--drop", "layers.0", "-o", "{}/x.safetensors"), "whose keys alone change"),
    ],
)
def test_what_is_not_only_a_rename_is_refused(
    ckpt: Run, bucket: Bucket, folder: Path, words: tuple[str, ...], said: str
) -> None:
    large(folder, 2)
    ran = ckpt("rename", "old.safetensors", *(word.format(bucket.url) for word in words))
    assert (ran.code, said in ran.err, bucket.keys()) == (2, True, [])


def test_what_is_not_there(ckpt: Run, bucket: Bucket) -> None:
    for url in (f"{bucket.url}/none.pt", f"{bucket.url}/none/"):
        assert ckpt("show", url).code in (2, 3)
    ran = ckpt("show", "s3://no-such-bucket/x.pt")
    assert (ran.code, "NoSuchBucket" in ran.err or "404" in ran.err) == (7, True)
    for url in ("s3://", "s3://key:s3cr3t@team/x.pt", "s3://team/../x.pt"):
        ran = ckpt("show", url)
        assert (ran.code, "s3cr3t" in ran.out + ran.err) == (2, False)


def test_fault_40_body_that_breaks_off_goes_on(
    ckpt: Run, bucket: Bucket, relay: Relay, folder: Path
) -> None:
    old = bucket.put("old.safetensors", large(folder, 3))
    cut: list[int] = []

    def after_a_part(request: bytes) -> bool:
        if b"GET /" in request and len(cut) < 2:
            cut.append(1)
            return True
        return False

    relay.lose = after_a_part
    assert ckpt("export", old, "-o", "new.safetensors").code == 0
    assert (len(cut), Path("new.safetensors").read_bytes()) == (
        2,
        Path("old.safetensors").read_bytes(),
    )


@pytest.mark.parametrize("has_botocore", [True, False])
def test_fault_40_upload_that_breaks_off_leaves_nothing(
    ckpt: Run,
    bucket: Bucket,
    relay: Relay,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_botocore: bool,
) -> None:
    old = bucket.put("old.safetensors", large(folder))
    monkeypatch.setattr(writing, "_ATTEMPTS", 2)
    if not has_botocore:
        monkeypatch.setattr(writing, "find_spec", lambda name: None)
    relay.lose = lambda request: b"PUT /" in request
    if not has_botocore:  # a reply that is lost would leave the object
        relay.lose = lambda request: b"POST /" in request
        monkeypatch.setattr(writing, "_AT_ONCE", 6 << 20)
    ran = ckpt("rename", old, "--rule", "layers=blocks", "-o", f"{bucket.url}/new.safetensors")
    assert (ran.code, ran.out) == (7, ""), ran.err
    assert bucket.keys() == ["old.safetensors"]
    if has_botocore:
        assert bucket.unfinished() == []


def test_version_goes_into_the_bucket(ckpt: Run, bucket: Bucket, folder: Path) -> None:
    torch.save(tensors(), folder / "net.pt")
    assert ckpt("register", "net.pt").code == 0
    ran = ckpt("rename", "net:v1", "--rule", "layers=blocks", "-o", f"{bucket.url}/new.pt")
    assert (ran.code, ran.err) == (0, "")
    (folder / "back.pt").write_bytes(bucket.get("new.pt"))
    assert set(torch.load("back.pt")) == {f"blocks.{i}.weight" for i in range(6)}
    assert len(json.loads(ckpt("ls", "--json").out)) == 1


def test_registry_in_a_bucket(ckpt: Run, bucket: Bucket, folder: Path) -> None:
    torch.save(tensors(), folder / "net.pt")
    (folder / "team").mkdir()
    assert ckpt("register", "net.pt", "--registry", "team", "--alias", "prod").code == 0
    for path in (folder / "team").rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix().replace("/.ckpt/", "/")
            bucket.client.upload_file(str(path), bucket.name, name)
    ref = f"{bucket.url}/team#net@prod"
    assert ckpt("export", ref, "-o", "back.pt").code == 0
    assert Path("back.pt").read_bytes() == Path("net.pt").read_bytes()
    assert json.loads(ckpt("show", ref, "--json").out)["name"] == f"{bucket.url}/team#net:v1"
    ran = ckpt("show", f"{bucket.url}/none#net")
    assert (ran.code, "registry.json: no such object" in ran.err) == (2, True)
