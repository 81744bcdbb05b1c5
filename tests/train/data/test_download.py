"""Downloads, from a real server on this machine that serves well and badly."""

import gzip
import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ckpt.train.data.dataset import AbsentError, load_dataset
from ckpt.train.data.download import DownloadError, PublishedFile, fetch
from ckpt.train.data.published import PUBLISHED
from ckpt.train.watch.events import Event, Loading, Note
from tests.train.data.test_dataset import FILES, layout, load
from tests.train.server import Server, serving

PACKED = gzip.compress(random.Random(0).randbytes(200_000), mtime=0)
ABSENT = "http://127.0.0.1:9/"  # the discard port, where nobody answers


def archive(name: str = "a.gz", content: bytes = PACKED) -> PublishedFile:
    digest = hashlib.sha256(content).hexdigest()
    unpacked = len(gzip.decompress(content))
    return PublishedFile(name=name, nbytes=len(content), sha256=digest, unpacked=unpacked)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as told:
        told.files["/a.gz"] = PACKED
        yield told


class Fetching:
    """`fetch` into a folder of the test's, and its events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []

    def __call__(self, *mirrors: str, archives: tuple[PublishedFile, ...] = (archive(),)) -> None:
        fetch(archives, mirrors, self.folder, callback=self.events.append)

    @property
    def content(self) -> bytes:
        return (self.folder / "raw" / "a.gz").read_bytes()

    @property
    def left(self) -> list[str]:
        """What stands beside the folder, but for the lock."""
        paths = self.folder.parent.rglob("*")
        return sorted(path.name for path in paths if path.is_file() and path.suffix != ".lock")


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path / "fetched" / "Data")


def test_what_is_fetched_is_what_is_published(server: Server, fetching: Fetching) -> None:
    fetching(server.url)
    assert fetching.content == PACKED
    assert fetching.left == ["a.gz"]
    assert fetching.events[-1] == Loading("a.gz", len(PACKED), len(PACKED), "B")
    fetching(server.url)
    assert server.asked == [("/a.gz", None)]


def test_fault_44_nothing_is_fetched_without_a_digest() -> None:
    for digest in ("", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "A" * 64):
        with pytest.raises(ValueError, match=r"a.gz: not a SHA-256: "):
            PublishedFile(name="a.gz", nbytes=1, sha256=digest, unpacked=1)
    assert len({each.sha256 for one in PUBLISHED.values() for each in one.archives.values()}) == 12


def test_body_that_breaks_off_is_gone_on_with(server: Server, fetching: Fetching) -> None:
    server.cut = [100, 50]
    fetching(server.url)
    assert fetching.content == PACKED
    assert server.asked == [("/a.gz", None), ("/a.gz", "bytes=100-"), ("/a.gz", "bytes=150-")]


@pytest.mark.parametrize("cut", [0, 1, len(PACKED) - 1])
def test_interrupted_download_is_gone_on_with_by_the_next(
    server: Server, fetching: Fetching, cut: int
) -> None:
    server.cut = [cut] + [0] * 9
    with pytest.raises(DownloadError, match=f"breaks off after {cut:,} of {len(PACKED):,} bytes"):
        fetching(server.url)
    assert fetching.left == ["a.gz.part"]
    server.cut.clear()
    fetching(server.url)
    assert fetching.content == PACKED
    assert server.asked[-1] == ("/a.gz", f"bytes={cut}-" if cut else None)


def test_ctrl_c_leaves_what_came(server: Server, fetching: Fetching) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([archive()], [server.url], fetching.folder, callback=stop)
    assert fetching.left == ["a.gz.part"]
    assert not fetching.folder.exists()
    fetching(server.url)
    assert fetching.content == PACKED


def test_server_without_ranges_sends_all_again(server: Server, fetching: Fetching) -> None:
    server.cut, server.ranges = [100], False
    fetching(server.url)
    assert fetching.content == PACKED
    assert server.asked[-1] == ("/a.gz", "bytes=100-")


def test_other_range_than_asked_is_not_taken(server: Server, fetching: Fetching) -> None:
    server.cut, server.shift = [100], 7
    with pytest.raises(DownloadError, match=r"sends 'bytes 107-.*, expected byte 100"):
        fetching(server.url)


def test_fault_44_wrong_bytes_are_thrown_away(server: Server, fetching: Fetching) -> None:
    server.files["/a.gz"] = bytes(len(PACKED))
    with pytest.raises(DownloadError, match=r"tried 127.0.0.1: sends another file"):
        fetching(server.url)
    assert fetching.left == []
    assert len(server.asked) == 1


def test_wrong_beginning_of_another_mirror_is_fetched_again(
    server: Server, fetching: Fetching
) -> None:
    server.files["/bad/a.gz"] = bytes(len(PACKED))
    server.cut = [100, 0]
    fetching(f"{server.url}bad/", server.url)
    assert fetching.content == PACKED
    assert [asked for _, asked in server.asked] == [None, "bytes=100-", "bytes=100-", None]


@pytest.mark.parametrize("lengths", [True, False])
def test_never_more_is_read_than_is_published(
    server: Server, fetching: Fetching, lengths: bool
) -> None:
    server.files["/a.gz"] = b"no" + PACKED + bytes(1 << 20)
    server.lengths = lengths
    message = "sends [0-9]+ bytes, expected" if lengths else "sends another file"
    with pytest.raises(DownloadError, match=message):
        fetching(server.url)
    assert max((event.done for event in fetching.events), default=0) <= len(PACKED)
    assert fetching.left == []


def test_mirrors_are_tried_in_order(server: Server, fetching: Fetching) -> None:
    fetching(ABSENT, f"{server.url}nothing/", server.url, "http://nobody.example/")
    assert fetching.content == PACKED
    assert [path for path, _ in server.asked] == ["/nothing/a.gz", "/a.gz"]


def test_each_mirror_says_why_not(server: Server, fetching: Fetching) -> None:
    with pytest.raises(DownloadError) as refused:
        fetching(ABSENT, f"{server.url}nothing/", "http://nobody.example/", "nonsense")
    assert str(refused.value).startswith("tried 127.0.0.1: Connection refused, 127.0.0.1: HTTP ")
    assert "404" in str(refused.value)
    assert "nobody.example: Name or service not known" in str(refused.value)
    assert fetching.left == []
    assert list(fetching.folder.parent.glob(".*.part")) == []


def test_redirects_are_followed(server: Server, fetching: Fetching) -> None:
    server.moved = {"/old/a.gz": f"{server.url}a.gz", "/round/a.gz": "/round/a.gz"}
    fetching(f"{server.url}round/", f"{server.url}old/")
    assert fetching.content == PACKED


def test_folder_appears_when_it_has_everything(server: Server, fetching: Fetching) -> None:
    both = (archive(), archive("b.gz"))
    with pytest.raises(DownloadError):
        fetching(server.url, archives=both)
    assert not fetching.folder.exists()
    server.files["/b.gz"] = PACKED
    fetching(server.url, archives=both)
    assert fetching.left == ["a.gz", "b.gz"]
    assert [path for path, _ in server.asked] == ["/a.gz", "/b.gz", "/b.gz"]


def test_many_at_once_fetch_it_once(server: Server, fetching: Fetching) -> None:
    threads = [threading.Thread(target=fetching, args=(server.url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetching.content == PACKED
    assert server.asked == [("/a.gz", None)]
    notes = {event for event in fetching.events if isinstance(event, Note)}
    assert notes <= {Note("another process is downloading it; waiting for that")}


@pytest.fixture
def kmnist(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """KMNIST, small, published by the server; gives its digest."""
    raw = layout(tmp_path / "published")
    archives = {}
    for name in FILES:
        packed = gzip.compress((raw / name).read_bytes())
        archives[name] = archive(f"{name}.gz", packed)
        server.files[f"/{name}.gz"] = packed
    published = replace(PUBLISHED["kmnist"], mirrors=(server.url,), archives=archives)
    monkeypatch.setitem(PUBLISHED, "kmnist", published)
    return load("kmnist", tmp_path / "published")[0].digest()


def test_dataset_is_downloaded_into_the_cache(kmnist: str, tmp_path: Path) -> None:
    events: list[Event] = []
    dataset = load_dataset("kmnist", callback=events.append)
    assert (dataset.found, dataset.digest()) == ("download", kmnist)
    assert events[0] == Note(f"KMNIST: downloading to {tmp_path}/cache/ckpt/KMNIST")
    assert [event.name for event in events[1:]] == [f"{name}.gz" for name in FILES]
    again, notes = load("kmnist")
    assert (again.found, again.digest(), notes) == ("cache", kmnist, [])


def test_failed_download_says_what_to_do(kmnist: str, server: Server) -> None:
    del server.files[f"/{FILES[3]}.gz"]
    with pytest.raises(
        AbsentError, match="KMNIST: not found on this machine, and the download"
    ) as refused:
        load("kmnist")
    hint = str(refused.value.hint)
    assert "--data-dir DIR or CKPT_DATA=DIR uses a copy in DIR/KMNIST/raw/" in hint
    assert "tried 127.0.0.1: HTTP Error 404" in hint
