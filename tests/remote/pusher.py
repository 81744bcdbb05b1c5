"""One of many who push to one model: `pusher.py URL FOLDER NAME PUSHES`.

Each push adds one version, whose only tensor says whose it is. Prints the tensor of each push that
was acknowledged. A push that failed is repeated, as a person would.
"""

import json
import struct
import sys
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
        write(path, text.encode())
        ckpt.register(path, name="net", registry=registry)
        for attempt in range(20):
            try:
                ckpt.push(registry=registry)
                break
            except (RemoteError, ConflictError):
                if attempt == 19:
                    raise
        print(f"{name} {number}", flush=True)


def write(path: Path, data: bytes) -> None:
    """A safetensors file of one tensor, by the format's description."""
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


if __name__ == "__main__":
    main(*sys.argv[1:])
