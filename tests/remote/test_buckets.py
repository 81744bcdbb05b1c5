"""What every bucket must do, whoever keeps it."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ckpt.errors import IntegrityError, RemoteError, UsageError
from ckpt.io import mounts
from ckpt.remote.address import checked_url, open_bucket, redacted
from ckpt.remote.bucket import HELD, Bucket
from ckpt.remote.probe import REPLACES, ignored_conditions
from tests.remote.servers import Memory

KINDS = ["memory", "folder_url", "s3", "azure", "sftp"]


@pytest.fixture(params=KINDS)
def bucket(request: pytest.FixtureRequest) -> Bucket:
    if request.param == "memory":
        return Memory()
    return open_bucket(request.getfixturevalue(request.param))


def content(bucket: Bucket, path: str) -> bytes:
    found = bucket.get(path, most=1 << 30)
    assert found is not None
    return found[0]


def test_bucket_gives_what_was_put(bucket: Bucket) -> None:
    assert bucket.get("a/b", most=10) is None
    assert bucket.head("a/b") is None
    assert bucket.stream("a/b", 0, 10) is None
    assert bucket.put_new("a/b", [b"one ", b"two"], 7)
    assert content(bucket, "a/b") == b"one two"
    stat = bucket.head("a/b")
    assert stat is not None
    assert (stat.path, stat.nbytes) == ("a/b", 7)
    chunks = bucket.stream("a/b", 2, 3)
    assert chunks is not None
    assert b"".join(chunks) == b"e t"


def test_bucket_creates_once(bucket: Bucket) -> None:
    assert bucket.put_new("a", [b"one"], 3)
    assert not bucket.put_new("a", [b"two"], 3)
    assert content(bucket, "a") == b"one"


def test_bucket_lets_one_of_many_create(bucket: Bucket) -> None:
    texts = [f"number {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda text: bucket.put_new("a", [text], len(text)), texts))
    assert sum(won) == 1
    assert content(bucket, "a") == texts[won.index(True)]


def test_bucket_replaces_only_what_the_tag_says(bucket: Bucket) -> None:
    assert not bucket.replace("a", b"none", "tag")
    assert bucket.put_new("a", [b"one"], 3)
    found = bucket.get("a", most=10)
    assert found is not None
    assert bucket.replace("a", b"two", found[1])
    assert not bucket.replace("a", b"three", found[1])
    assert content(bucket, "a") == b"two"


def test_bucket_lets_one_of_many_replace(bucket: Bucket) -> None:
    assert bucket.put_new("a", [b"0"], 1)
    _, tag = bucket.get("a", most=10) or (b"", "")
    texts = [f"number {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda text: bucket.replace("a", text, tag), texts))
    assert sum(won) == 1
    assert content(bucket, "a") == texts[won.index(True)]


def test_bucket_lists_below_a_folder(bucket: Bucket) -> None:
    for path in ("objects/ab/1", "objects/cd/2", "objectsx/3", "manifests/ab/4"):
        assert bucket.put_new(path, [path.encode()], len(path))
    assert {each.path: each.nbytes for each in bucket.list("objects")} == {
        "objects/ab/1": 12,
        "objects/cd/2": 12,
    }
    bucket.delete("objects/ab/1")
    bucket.delete("objects/ab/1")
    assert [each.path for each in bucket.list("objects")] == ["objects/cd/2"]


def test_bucket_holds_large_objects(bucket: Bucket) -> None:
    data = os.urandom(1 << 20) * ((HELD >> 20) + 3)
    view = memoryview(data)
    chunks = [bytes(view[begin : begin + 300_000]) for begin in range(0, len(data), 300_000)]
    assert bucket.put_new("big", chunks, len(data))
    assert not bucket.put_new("big", chunks, len(data))
    stream = bucket.stream("big", 0, len(data))
    assert stream is not None
    digest = hashlib.sha256()
    for chunk in stream:
        digest.update(chunk)
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("nbytes", [10, HELD + 10], ids=["small", "large"])
def test_bucket_creates_nothing_of_a_stream_that_fails(bucket: Bucket, nbytes: int) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(0, nbytes, 1 << 20):
            yield bytes(min(nbytes, 1 << 20))
        raise IntegrityError("damaged")

    with pytest.raises(IntegrityError, match="damaged"):
        bucket.put_new("a", chunks(), nbytes)
    assert bucket.head("a") is None
    assert [*bucket.list("a")] == []


def test_bucket_reads_no_more_than_is_allowed(bucket: Bucket) -> None:
    if isinstance(bucket, Memory):
        return  # it has no error of its own
    assert bucket.put_new("a", [b"12345"], 5)
    assert bucket.get("a", most=5) is not None
    with pytest.raises(RemoteError, match=r"a: 5 bytes, the limit is 4"):
        bucket.get("a", most=4)


def test_bucket_that_cannot_be_reached_is_one_line(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CKPT_REMOTE_SECONDS", "0.3")
    with pytest.raises(RemoteError) as caught:
        open_bucket(s3).head("a")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{s3}/a: ")
    assert "s3cr3t" not in str(caught.value)


def test_folder_follows_no_links(folder_url: str, tmp_path: Path) -> None:
    bucket = open_bucket(folder_url)
    (tmp_path / "a remote").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "a remote" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(IntegrityError, match="symbolic link"):
        bucket.get("a", most=10)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3://key:secret@team/x",
        "s3://secret@team/x",
        "ssh://ann:secret@host/x",
        "ftp://team/x",
        "s3:///x",
        "s3://team/x?secret",
        "s3://team/../x",
        "file://host/x",
        "s3://team/\x1b[31m",
        "s3://[secret",
    ],
)
def test_url_of_no_remote_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_url(url)
    assert "secret" not in f"{caught.value} {caught.value.hint}" or "[secret" in url
    assert "secret" not in redacted(url) or "[secret" in url


def test_url_of_a_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_url("a remote") == (tmp_path / "a remote").as_uri()
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    assert checked_url("here/../team") == (tmp_path / "team").as_uri()
    assert checked_url("link/../team") == (tmp_path / "elsewhere" / "team").as_uri()
    assert checked_url("link") == (tmp_path / "link").as_uri()
    assert checked_url("s3://team/models/") == "s3://team/models"


def test_folder_whose_locks_reach_no_other_machine_is_doubted(
    folder_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount table as of a machine with sshfs."""
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 0:52 / {tmp_path!s} rw - fuse.sshfs host:/x rw\n")
    assert ignored_conditions(open_bucket(folder_url)) == ()
    monkeypatch.setattr(mounts, "MOUNTS", table)
    (said,) = ignored_conditions(open_bucket(folder_url))
    assert said == f"{REPLACES}, on fuse.sshfs: locks may hold on this machine only"
    assert [*open_bucket(folder_url).list("ckpt/probe")] == []
