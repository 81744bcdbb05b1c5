"""Measure pushes beside an upload of one file by obstore, and beside boto3 and DVC.

    python benchmarks/remotes.py [--megabytes 1000] [--small 10000] [--runs 3]
                                 [--tools ckpt boto3 dvc] [--places folder S3]
                                 [--environments DIR] [--folder DIR] [--quick]

A checkpoint of 100 tensors and one of many tensors of 8 KiB are pushed to an empty folder and to an
empty bucket of moto's server, which runs beside and speaks S3 over HTTP; and so are the same bytes
as one tensor. The others upload these bytes: obstore and boto3 as one file, DVC as the file of the
checkpoint, and the small tensors as files in a folder. DVC is installed by pip into an environment
of its own; where it cannot be had, that is printed. Requests are those in the server's log.

Whole processes are compared, from the start of Python until the bytes are on the disk: into a
folder, a sync of its file system is part of each. All take turns. Times are those of the fastest
run, since other processes only add to them; ratios are medians of those in one turn, to obstore,
and to ckpt's own push of one tensor, which starts, verifies and syncs alike.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from quick import parse_options
from safetensors.numpy import save_file
from tabulate import tabulate

LARGE, SMALL_BYTES = 100, 8192
CKPT = str(Path(sys.executable).with_name("ckpt"))
BUCKET = "s3://team"
TOOLS = ("ckpt", "boto3", "dvc")
PLACES = {"folder": "a folder", "S3": "S3"}
OBSTORE = """
import sys
from pathlib import Path
import obstore
url = sys.argv[1]
patient = {"client_options": {"allow_http": True, "timeout": "600s"}}
options = patient if url.startswith("s3:") else {"mkdir": True}
store = obstore.store.from_url(url, **options)
obstore.put(store, "one-file", Path(sys.argv[2]))
"""
BOTO3 = """
import sys, boto3
bucket, _, key = sys.argv[1].removeprefix("s3://").partition("/")
boto3.client("s3").upload_file(sys.argv[2], bucket, f"{key}/one-file")
"""


@dataclass(frozen=True)
class Cost:
    """Of one push: wall and CPU seconds of the client, and requests that the server has logged."""

    wall: float
    cpu: float
    requests: int


@dataclass(frozen=True)
class Server:
    """moto's server: its endpoint and its log."""

    endpoint: str
    log: Path

    def empty(self) -> None:
        """Forget everything, and make the bucket."""
        for path in ("/moto-api/reset", "/team"):
            method = "POST" if path.startswith("/moto") else "PUT"
            request = urllib.request.Request(f"{self.endpoint}{path}", method=method)
            urllib.request.urlopen(request).close()

    def requests(self) -> int:
        """The number of requests so far."""
        return self.log.read_bytes().count(b" HTTP/1.1")


def main() -> None:
    """Make the checkpoints, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--small", type=int, default=10_000, help="tensors of 8 KiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    parser.add_argument("--places", nargs="+", default=list(PLACES), choices=PLACES)
    kept = Path(tempfile.gettempdir()) / "ckpt-peers"
    parser.add_argument("--environments", type=Path, default=kept)
    parser.add_argument("--folder", type=Path, help="where everything is made")
    options = parse_options(parser, megabytes=4, small=300, runs=1, tools=["ckpt", "boto3"])
    dvc = dvc_program(options.environments) if "dvc" in options.tools else None
    sizes = {
        f"{LARGE} tensors, {options.megabytes:g} MB": (LARGE, int(options.megabytes * 1e6 / LARGE)),
        f"{options.small:,} tensors of 8 KiB": (options.small, SMALL_BYTES),
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch, served(Path(scratch)) as moto:
        for name, (count, nbytes) in sizes.items():
            folder = made(Path(scratch) / str(count), count, nbytes)
            urls = {"folder": (folder / "remote").as_uri(), "S3": f"{BUCKET}/r"}
            for place in options.places:
                url = urls[place]
                commands = commands_of(options.tools, dvc, url)
                runs = [
                    {tool: measured(folder, each, url, moto) for tool, each in commands.items()}
                    for _ in range(options.runs)
                ]
                print_costs(f"{name}, to {PLACES[place]}", runs)
            shutil.rmtree(folder)
    print(
        f"fastest, and median ratio, of {options.runs}; at most 1.3 times obstore is asked for few"
    )
    print("large tensors, and 2 times the same bytes as one file for many small ones")


def dvc_program(environments: Path) -> str | None:
    """DVC, installed by pip if it is not there; None if it cannot be had."""
    program = environments / "dvc-s3" / "bin" / "dvc"
    if not program.exists():
        venv.create(environments / "dvc-s3", with_pip=True)
        pip = [str(program.with_name("python")), "-m", "pip", "install", "-q", "dvc[s3]"]
        if subprocess.run(pip).returncode:
            print("dvc: left out, pip cannot install it\n")
            return None
    return str(program)


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A server of moto, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("moto_server"))
    server = Server(f"http://127.0.0.1:{port}", folder / "log")
    keys = {"ACCESS_KEY_ID": "AKIATEST", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}
    os.environ |= {f"AWS_{name}": text for name, text in keys.items()}
    os.environ["CKPT_REMOTE_SECONDS"] = "600"  # moto takes long to join the parts of an upload
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": server.endpoint}
    with server.log.open("wb") as log:
        process = subprocess.Popen([program, "-p", str(port)], stdout=log, stderr=log)
    try:
        while True:
            try:
                server.empty()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(server.log.read_text()) from None
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


def made(folder: Path, count: int, nbytes: int) -> Path:
    """A checkpoint of so many tensors: as a file, as files, and in a registry of ckpt."""
    for name in ("files", "one"):
        (folder / name).mkdir(parents=True)
    draw = np.random.default_rng(0)
    state = {f"layer{at}": draw.integers(0, 256, nbytes, dtype=np.uint8) for at in range(count)}
    save_file(state, folder / "net.safetensors")
    joined = {"all": np.concatenate([*state.values()])}
    save_file(joined, folder / "one" / "net.safetensors")
    if nbytes == SMALL_BYTES:
        for key, value in state.items():
            value.tofile(folder / "files" / key)
    else:
        shutil.copy(folder / "net.safetensors", folder / "files")
    for registry in (".", "one"):
        run(folder, [CKPT, "register", f"{registry}/net.safetensors", "--registry", registry, "-q"])
    return folder


def commands_of(tools: list[str], dvc: str | None, url: str) -> dict[str, tuple[str, str]]:
    """By tool, what comes before the push, and the push."""
    python = sys.executable
    commands = {"obstore, one file": ("true", f"{python} -c '{OBSTORE}' {url} net.safetensors")}
    if "ckpt" in tools:
        for tool, registry in (("ckpt push", "."), ("ckpt push, one tensor", "one")):
            here = f"cd {registry}; {CKPT}"
            again = f"{here} remote rm origin -q || true; {CKPT} remote add origin {url}"
            commands[tool] = again, f"{here} push -q"
    if "boto3" in tools and url.startswith("s3:"):
        commands["boto3, one file"] = "true", f"{python} -c '{BOTO3}' {url} net.safetensors"
    if dvc is not None:
        place = url.removeprefix("file://")
        more = f"{dvc} remote modify store endpointurl $AWS_ENDPOINT_URL -q"
        commands["dvc push"] = (
            f"rm -rf .dvc files.dvc; {dvc} init --no-scm -q; {dvc} config core.analytics false; "
            f"{dvc} add -q files; {dvc} remote add -d store {place} -q"
            + (f"; {more}" if url.startswith("s3:") else ""),
            f"{dvc} push -q",
        )
    return commands


def measured(folder: Path, commands: tuple[str, str], url: str, server: Server) -> Cost:
    """The cost of a push to an empty place, until its bytes are on the disk."""
    before, push = commands
    shutil.rmtree(folder / "remote", ignore_errors=True)
    server.empty()
    run(folder, ["bash", "-c", before])
    os.sync()
    seen, began, used = server.requests(), time.perf_counter(), cpu_seconds()
    run(folder, ["bash", "-c", push])
    if url.startswith("file:"):  # as a command, so that its CPU seconds count on both sides
        run(folder, ["sync", "-f", "remote"])
    wall, cpu = time.perf_counter() - began, cpu_seconds() - used
    return Cost(wall, cpu, server.requests() - seen)


def cpu_seconds() -> float:
    """Of all commands so far, without the server, which has not ended."""
    used = os.times()
    return used.children_user + used.children_system


def run(folder: Path, command: list[str]) -> None:
    """Run a command; what it says is shown only if it fails."""
    environment = {name: text for name, text in os.environ.items() if name != "CKPT_REGISTRY"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def print_costs(head: str, runs: list[dict[str, Cost]]) -> None:
    """A line for each tool."""
    rows = []
    others = [each for each in ("obstore, one file", "ckpt push, one tensor") if each in runs[0]]
    for tool in runs[0]:
        wall = min(each[tool].wall for each in runs)
        cpu = min(each[tool].cpu for each in runs)
        ratios = [median(each[tool].wall / each[other].wall for each in runs) for other in others]
        requests = f"{runs[0][tool].requests:,}"
        rows.append(
            [tool, f"{wall:.2f}", *(f"{each:.2f}" for each in ratios), f"{cpu:.2f}", requests]
        )
    heads = [head, "wall s", *["of obstore", "of one tensor"][: len(others)], "CPU s", "requests"]
    print(
        tabulate(
            rows, heads, disable_numparse=True, colalign=["left", *["right"] * (len(heads) - 1)]
        )
    )
    print()


if __name__ == "__main__":
    main()
