"""Metrics as a file: one JSON object a line, written as it happens. No torch.

Law: the line of an epoch has the figures that the record's curves have. docs/json.md says
what else the lines hold. A run that goes on adds to the file; no other run ever does.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ckpt.errors import DiskError, UsageError
from ckpt.io.files import already_exists
from ckpt.io.strict_json import plain
from ckpt.train.watch.events import Epoch, Facts, Place, Trained, Unwatched

SUFFIX = ".jsonl"


class MetricsFile(Unwatched):
    """A `Watcher` that writes a line at the start, after every epoch, and at the end.

    Nothing is touched before the run starts, and nothing stays open between two lines.

    Args:
        path: The file, ``.jsonl``.
        replace: Whether a file that stands there is replaced.
        resumed_at: Where the run goes on; its lines are added to the file then.

    Raises:
        UsageError: It is no ``.jsonl`` file, the folder is missing, or the name is taken.
        DiskError: By a call of `Watcher`: the system refused to write.
    """

    def __init__(
        self, path: Path, *, replace: bool = False, resumed_at: Place | None = None
    ) -> None:
        self._path, self._replace, self._resumed_at = path, replace, resumed_at
        if path.suffix != SUFFIX:
            raise UsageError(f"{path}: metrics are a {SUFFIX} file")
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such folder")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a regular file")
        if path.exists() and not replace and resumed_at is None:
            raise self._taken()

    def started(self, facts: Facts) -> None:
        """See `Watcher.started`."""
        fields = asdict(facts)
        del fields["where"]  # a folder of this machine
        if self._resumed_at is None:
            self._write("started", fields, mode="w" if self._replace else "x")
        else:
            self._end_line()
            self._write("started", {**fields, "resumed_at": asdict(self._resumed_at)})

    def epoch(self, result: Epoch) -> None:
        """See `Watcher.epoch`."""
        self._write("epoch", result.figures)

    def finished(self, trained: Trained) -> None:
        """See `Watcher.finished`."""
        fields = {
            "epoch": trained.epoch,
            "test_accuracy": trained.test_accuracy,
            "test_loss": trained.test_loss,
            "test_images": trained.test_count,
            "seconds": trained.seconds,
            "peak_bytes": trained.peak_bytes,
            "path": trained.path.name,
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

    def _end_line(self) -> None:
        """Where a crash or a full disk has cut the last line short, let it have an end."""
        if self._path.exists() and self._path.read_bytes()[-1:] not in (b"", b"\n"):
            self._put("\n")

    def _taken(self) -> UsageError:
        hint = "name another file with --metrics, or replace this one with --force"
        return already_exists(self._path, hint=hint)
