"""Servers for the tests of remotes: a real S3 protocol over HTTP, sshd, a bucket in memory."""

import getpass
import hashlib
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ckpt.remote.bucket import Stat

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t",
    "AWS_REGION": "us-east-1",
}


class Memory:
    """A bucket in memory, to compare others with."""

    doubt = None

    def __init__(self, url: str = "memory://") -> None:
        self.url, self.objects = url, dict[str, tuple[bytes, float]]()
        self._lock = threading.Lock()

    def get(self, path: str, *, most: int) -> tuple[bytes, str] | None:
        found = self.objects.get(path)
        return None if found is None else (found[0], hashlib.md5(found[0]).hexdigest())

    def stream(self, path: str, offset: int, nbytes: int) -> Iterator[bytes] | None:
        found = self.objects.get(path)
        return None if found is None else iter([found[0][offset : offset + nbytes]])

    def head(self, path: str) -> Stat | None:
        found = self.objects.get(path)
        return None if found is None else Stat(path, len(found[0]), found[1])

    def put_new(self, path: str, chunks: Iterable[bytes], nbytes: int) -> bool:
        data = b"".join(chunks)
        with self._lock:
            return self.objects.setdefault(path, entry := (data, time.time())) is entry

    def replace(self, path: str, data: bytes, tag: str) -> bool:
        with self._lock:
            found = self.get(path, most=1 << 40)
            if found is None or found[1] != tag:
                return False
            self.objects[path] = data, time.time()
            return True

    def overwrite(self, path: str, chunks: Iterable[bytes], nbytes: int) -> None:
        self.objects[path] = b"".join(chunks), time.time()

    def list(self, prefix: str) -> Iterator[Stat]:
        for path in [each for each in self.objects if each.startswith(f"{prefix}/")]:
            yield Stat(path, len(self.objects[path][0]), self.objects[path][1])

    def delete(self, path: str) -> None:
        self.objects.pop(path, None)


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of moto's server, one request at a time.

    moto checks the condition of a write and writes in two steps, between which another thread may
    write, too; S3 does it in one.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def in_turn(environ: Any, start_response: Any) -> list[bytes]:
        with turn:
            return [b"".join(app(environ, start_response))]

    server = make_server("127.0.0.1", 0, in_turn, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def new_bucket(endpoint: str) -> str:
    """The name of a new bucket, made by the SDK of the protocol's owner."""
    import boto3

    name = f"team-{uuid.uuid4().hex[:12]}"
    keys = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "s3cr3t"}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(
        Bucket=name
    )
    return name


@contextmanager
def ssh_server(folder: Path, *, blocks: str = "unlimited") -> Iterator[Path]:
    """A home from which `ssh lab` reaches OpenSSH's server, which runs as long as the block.

    Args:
        folder: For its files.
        blocks: The most that it can write to one file, in units of 512 bytes.
    """
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("sshd is not installed")
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    folder.chmod(0o755)
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPasswordAuthentication no\n"
        "Subsystem sftp internal-sftp\n"
    )
    (home / ".ssh" / "config").write_text(
        f"Host lab\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user\n"
        f"  User {getpass.getuser()}\n"
    )
    public = (folder / "host.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # its separated processes live there
    command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    command = ["sh", "-c", f'ulimit -f {blocks} && exec "$@"', "sh", *command]
    # Python ignores SIGXFSZ, and so must the server: its writes fail, and it goes on.
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, restore_signals=False
    ) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            if "listening" not in line or not _reached(home):
                pytest.skip("sshd does not run here: it lets nobody in")
            yield home
        finally:
            server.terminate()


def _reached(home: Path) -> bool:
    """Whether OpenSSH's own client reaches the server; not as a user that has no account."""
    settings = home / ".ssh"
    known = f"UserKnownHostsFile={settings}/known_hosts"
    command = ["ssh", "-F", str(settings / "config"), "-o", known, "-o", "BatchMode=yes"]
    done = subprocess.run([*command, "lab", "true"], capture_output=True, stdin=subprocess.DEVNULL)
    return done.returncode == 0
