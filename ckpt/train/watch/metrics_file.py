"""Metrics as a file: one JSON object a line, written as it happens. No torch.

Law: the line of an epoch has the same figures as the record's curves; docs/json.md describes the
other lines. A resumed run appends to its file; no other run does.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ckpt.errors import DiskError, MissingFileError, UsageError
from ckpt.io.documents.strict_json import parse, plain
from ckpt.io.files import already_exists
from ckpt.train.watch.events import Epoch, Event, Started, StepDone, Trained

SUFFIX = ".jsonl"
_MOST_EPOCHS = 1_000_000
_NO_CURVES = ("event", "time", "epoch", "images_per_second")


class MetricsFile:
    """A `Callback` that writes a line at the start, after every epoch, and at the end.

    The file is not created or changed before the run starts, and not kept open between lines.

    Args:
        path: The file, ``.jsonl``.
        replace: Whether to replace an existing file.
        resumed_at: The step after which the run resumes; its lines are appended then.

    Raises:
        UsageError: It is not a ``.jsonl`` file, its folder is missing, or it already exists.
        DiskError: When called: the system refused to write.
    """

    def __init__(
        self, path: Path, *, replace: bool = False, resumed_at: StepDone | None = None
    ) -> None:
        self._path, self._replace, self._resumed_at = path, replace, resumed_at
        if path.suffix != SUFFIX:
            raise UsageError(f"{path}: metrics are written to a {SUFFIX} file")
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such folder")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a regular file")
        if path.exists() and not replace and resumed_at is None:
            raise self._taken()

    def __call__(self, event: Event) -> None:
        """Write the event's line, if it has one."""
        match event:
            case Started():
                fields = asdict(event)
                del fields["where"]  # a folder of this machine
                if self._resumed_at is None:
                    self._write("started", fields, mode="w" if self._replace else "x")
                    return
                if self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n"):
                    self._put("\n")  # ends a line that a crash or a full disk truncated
                self._write("started", {**fields, "resumed_at": asdict(self._resumed_at)})
            case Epoch():
                self._write("epoch", event.figures)
            case Trained():
                fields = {
                    "epoch": event.epoch,
                    "test_accuracy": event.test_accuracy,
                    "test_loss": event.test_loss,
                    "test_images": event.test_count,
                    "seconds": event.seconds,
                    "peak_bytes": event.peak_bytes,
                    "path": event.path.name,
                }
                self._write("finished", fields)

    def _write(self, event: str, fields: Mapping[str, object], *, mode: str = "a") -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(plain({"event": event, "time": now, **fields}), allow_nan=False)
        self._put(f"{line}\n", mode=mode)

    def _put(self, text: str, *, mode: str = "a") -> None:
        try:
            with self._path.open(mode, encoding="ascii") as out:
                out.write(text)
        except FileExistsError as error:
            raise self._taken() from error
        except OSError as error:
            raise DiskError(f"{self._path}: {error.strerror}") from error

    def _taken(self) -> UsageError:
        hint = "name another file with --metrics, or replace this one with --force"
        return already_exists(self._path, hint=hint)


def read_curves(path: Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The curves in a metrics file, as a record has them, and its last line about a finished run.

    Of an epoch that a resumed run repeated, the later line counts. Lines that a crash truncated are
    left out, and so are values that are missing: they are NaN.

    Raises:
        UsageError: It has no line of an epoch.
        MissingFileError: There is none.
        DiskError: The system refused to read.
    """
    epochs: dict[int, dict[str, Any]] = {}
    finished: dict[str, Any] = {}
    for line in _lines(path):
        epoch = line.get("epoch")
        if line.get("event") == "epoch" and type(epoch) is int and 1 <= epoch <= _MOST_EPOCHS:
            epochs[epoch] = line
        elif line.get("event") == "finished":
            finished = line
    if not epochs:
        hint = "ckpt train --metrics FILE.jsonl  writes one line an epoch"
        raise UsageError(f"{path}: has no line of an epoch", hint=hint)
    names = dict.fromkeys(name for line in epochs.values() for name in line)
    rows = [epochs.get(at, {}) for at in range(1, max(epochs) + 1)]
    curves = {
        name: [row.get(name, "nan") for row in rows] for name in names if name not in _NO_CURVES
    }
    return curves, finished


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    line = parse(text)
                except ValueError:
                    continue  # truncated
                if isinstance(line, dict):
                    yield line
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
