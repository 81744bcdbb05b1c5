"""A remote on a machine that SSH reaches: a real sshd, and what is special to it."""

import socket
import struct
import threading
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

from ckpt.errors import RemoteError
from ckpt.remote.address import open_bucket
from ckpt.remote.probe import ignored_conditions
from ckpt.remote.sftp import _client_class, _sync
from tests.cli.support import Run, tree
from tests.remote.servers import ssh_server


def folder_of(url: str) -> Path:
    return Path(unquote(url.removeprefix("ssh://lab")))


def test_probe_finds_that_writers_are_kept_apart(sftp: str) -> None:
    assert ignored_conditions(open_bucket(sftp)) == ()


def test_last_content_is_the_end_of_the_chain(sftp: str) -> None:
    """A client was killed between its link and the file, or was late with the file."""
    bucket = open_bucket(sftp)
    assert bucket.put_new("registry.json", [b"one"], 3)
    for data in (b"two", b"three"):
        found = bucket.get("registry.json", most=10)
        assert found is not None
        assert bucket.replace("registry.json", data, found[1])
    for late in (b"one", b"two", b"three"):
        (folder_of(sftp) / "registry.json").write_bytes(late)
        found = bucket.get("registry.json", most=10)
        assert found is not None
        assert found[0] == b"three"
    assert not bucket.replace("registry.json", b"four", "sha256:" + "0" * 64)


def test_what_a_client_wrote_is_whole_or_not_there(sftp: str) -> None:
    def broken():
        yield b"some"
        raise KeyboardInterrupt

    bucket = open_bucket(sftp)
    with pytest.raises(KeyboardInterrupt):
        bucket.put_new("objects/ab/cd", broken(), 10)
    assert tree(folder_of(sftp)) == {}


def test_file_that_the_server_could_not_write_whole_is_not_there(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writes fail, as on a full disk; paramiko would lose the last hundred answers."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with ssh_server(tmp_path_factory.mktemp("full"), blocks="1000") as home:
        monkeypatch.setenv("HOME", str(home))
        bucket = open_bucket(f"ssh://lab{tmp_path}/r")
        assert bucket.put_new("objects/ab/small", [bytes(400_000)], 400_000)
        for write in (bucket.put_new, bucket.overwrite):
            with pytest.raises(RemoteError, match="Failure") as caught:
                write("objects/ab/large", [bytes(1_000_000)], 1_000_000)
            assert caught.value.hint is None, "the connection works"
    assert [*tree(tmp_path / "r")] == ["objects/ab/small"]


@pytest.mark.parametrize(
    ("code", "errors"),
    [(0, []), (8, []), (4, ["no disk"]), (3, ["no disk"])],
    ids=["ok", "unsupported", "failure", "denied"],
)
def test_sync_is_done_or_not_known_to_the_server(code: int, errors: list[str]) -> None:
    """Codes of draft-ietf-secsh-filexfer-02, section 7; OpenSSH knows fsync and never fails."""
    found = []
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=answer, args=(theirs, code))
    server.start()
    with Named(fileno=ours.detach()) as sock, theirs:
        try:
            _sync(_client_class()(sock), SimpleNamespace(handle=b"h"))
        except OSError as error:
            found.append(error.strerror or str(error))
        server.join()
    assert found == errors


class Named(socket.socket):
    """A socket with a name for paramiko's log, which its own channels have."""

    def get_name(self) -> str:
        return "test"


def answer(sock: socket.socket, code: int) -> None:
    """Answer a client's greeting, and its one request with a status."""
    for number in (2, 101):  # SSH_FXP_VERSION, SSH_FXP_STATUS
        (length,) = struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))
        asked = sock.recv(length, socket.MSG_WAITALL)
        body = struct.pack(">I", 3)
        if number == 101:
            body = asked[1:5] + struct.pack(">II7sI", code, 7, b"no disk", 0)
        sock.sendall(struct.pack(">IB", len(body) + 1, number) + body)


def test_host_that_is_not_known_is_refused(sftp: str, ssh_home: Path) -> None:
    known = ssh_home / ".ssh" / "known_hosts"
    text = known.read_text()
    known.write_text("")
    try:
        with pytest.raises(RemoteError, match="not found in known_hosts") as caught:
            open_bucket(sftp).head("a")
    finally:
        known.write_text(text)
    assert "ssh HOST" in str(caught.value.hint)


def test_machine_that_is_not_there_is_one_line(ckpt: Run, old: Path) -> None:
    assert ckpt("register", "old.pt").code == 0
    ran = ckpt("remote", "add", "origin", "ssh://127.0.0.1:9/registry")
    assert (ran.code, ran.out) == (7, "")
    assert ran.err.startswith("error: ssh://127.0.0.1:9/registry/")
    assert "Unable to connect to port 9" in ran.err


def test_team_shares_by_a_machine_of_its_own(
    sftp: str, ckpt: Run, old: Path, tmp_path: Path
) -> None:
    assert ckpt("register", "old.pt", "--name", "net").code == 0
    assert ckpt("remote", "add", "origin", sftp).code == 0
    assert ckpt("push").code == 0
    assert ckpt("clone", sftp, str(tmp_path / "ben")).code == 0
    at = ("--registry", str(tmp_path / "ben"))
    assert ckpt("export", "net:v1", "-o", "again.pt", *at).code == 0
    assert Path("again.pt").read_bytes() == old.read_bytes()
    assert ckpt("verify", *at).code == 0
