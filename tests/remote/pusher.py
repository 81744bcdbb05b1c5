"""One of many who push to one model: `pusher.py URL FOLDER NAME PUSHES`.

Each push adds one version, whose tensor `w` says whose it is. Prints that of each push that
was acknowledged. A push that failed is repeated, as a person would.

Each version has two packs: one is the same in all, the other its own.
"""

import hashlib
import json
import struct
import sys
from itertools import islice
from pathlib import Path

import ckpt
from ckpt.errors import ConflictError, RemoteError
from ckpt.registry.registry import Registry


def main(url: str, folder: str, name: str, pushes: str) -> None:
    ckpt.clone(url, folder)
    registry = Registry(folder)
    for number in range(int(pushes)):
        text = f"{name} {number}".ljust(5000)  # too large to be part of a manifest
        path = Path(folder) / "net.safetensors"
        write(path, *shared(), text.encode())
        ckpt.register(path, name="net", registry=registry)
        for attempt in range(20):
            try:
                ckpt.push(registry=registry)
                break
            except (RemoteError, ConflictError):
                if attempt == 19:
                    raise
        print(f"{name} {number}", flush=True)


def ends_pack(data: bytes) -> bool:
    """As docs/remotes.md describes it."""
    return int(hashlib.sha256(data).hexdigest()[:8], 16) * 4_194_304 < len(data) << 32


def shared() -> list[bytes]:
    """Contents of tensors before one that is a version's own: a pack, and a part of a pack."""
    drawn = [f"shared {number}".encode().ljust(5000) for number in range(5000)]
    first, third = islice((data for data in drawn if not ends_pack(data)), 2)
    return [first, next(filter(ends_pack, drawn)), third]


def write(path: Path, *contents: bytes) -> None:
    """A safetensors file of these tensors, by the format's description; the last one is `w`."""
    header, offset = {}, 0
    for at, data in enumerate(contents, 1):
        key = "w" if at == len(contents) else f"shared{at}"
        ends = [offset, offset := offset + len(data)]
        header[key] = {"dtype": "U8", "shape": [len(data)], "data_offsets": ends}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(contents))


if __name__ == "__main__":
    main(*sys.argv[1:])
