"""A registry on which faults are tried, and what must hold after each of them.

The promises are those of FAULTS, P1 to P8 and P11: `Scene.state` asserts those that hold at once,
`Scene.recovers` those that hold when the command is typed again and garbage is collected.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from ckpt.cli import main
from ckpt.io.lock import exclusive_lock
from ckpt.io.temporaries import is_temporary
from ckpt.ops.gc import gc
from ckpt.ops.verify import verify
from ckpt.registry.index import Model
from ckpt.registry.registry import Registry
from ckpt.registry.version import Version
from tests.effort import EVERY

CKPT = (sys.executable, "-P", "-m", "ckpt")
_FOREIGN = {
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
    "CKPT_REGISTRY",
    "CKPT_SAFE_REGISTRIES",
    "CKPT_DEBUG",
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
LOST_TEMPORARY = ".ckpt-0123456789abcdef.tmp"
SHAPES = {"conv.weight": 2048, "fc.weight": 4096, "fc.bias": 10}  # elements; a bias is inlined

# What `train --register` does once the weights are written.
AS_TRAIN_DOES = """
import sys
from ckpt.errors import CkptError
from ckpt.ops.register import register
try:
    register(
        sys.argv[1], name="net", metrics={"accuracy": 0.5}, made_by="train classic, 1 ep",
        record={"train": {"epochs": 1}}, definition_source="class Net: ...\\n" * 500,
    )
except CkptError as error:
    print("error:", error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One command that writes.

    Attributes:
        name: For people.
        words: As after ``ckpt``; of a `script` its arguments.
        first: What is done before, in a registry of two versions; None where there is none yet.
        again: What is typed after a fault; None for the same words.
        steps: Whether each time that it succeeds it does one thing more.
        done: What it may say when it is typed again and all is done, with exit code 2.
        script: A program that stands for the command.
    """

    name: str
    words: tuple[str, ...]
    first: tuple[tuple[str, ...], ...] | None = ()
    again: tuple[str, ...] | None = None
    steps: bool = False
    done: str = "nothing else"
    script: str = ""

    @property
    def line(self) -> tuple[str, ...]:
        """What is executed."""
        return (sys.executable, "-P", "-c", self.script, *self.words) if self.script else (
            *CKPT, *self.words)  # fmt: skip


_REGISTER_NEW = ("register", "new.safetensors", "--name", "net")
_MADE = ("rename", "new.safetensors", "--rule", "conv=embed", "-o", "made.safetensors",
         "--register", "--name", "net")  # fmt: skip
COMMANDS = [
    Command("begin", ("register", "net.safetensors"), first=None),
    Command("register", _REGISTER_NEW),
    Command("rename", ("rename", "net:v1", "--rule", "fc=head")),
    Command("rename-file", _MADE, again=(*_MADE, "--force")),
    Command("alias", ("alias", "prod", "v2")),
    Command("tag", ("tag", "v2", "golden")),
    Command("rm", ("rm", "v2", "--yes"), done="net:v2 was removed"),
    Command("undo", ("undo",), first=(("rm", "v2", "--yes"),), steps=True),
    Command(
        "gc",
        ("gc", "--keep-removed", "0", "--grace", "0", "--yes"),
        first=(_REGISTER_NEW, ("rm", "v3", "--yes")),
    ),
    Command("copy", ("copy", "net:v1", ".", "--name", "other")),
    Command("train", ("new.safetensors",), script=AS_TRAIN_DOES),
]
# Half a minute each time: for the long form, and of it a few points.
TRAINING = Command("training", ("train", "--dataset", "digits", "--epochs", "1", "--register"))
TRAINED = "mnist-cnn.state.pt"  # what an interrupted run goes on with
BY_NAME = {command.name: command for command in (*COMMANDS, TRAINING)}


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str


def save(path: Path, seed: int) -> None:
    """Write random weights; by hand, for torch takes a second to import."""
    generator, header, data = random.Random(seed), {}, b""
    for key, elements in SHAPES.items():
        tensor = generator.randbytes(4 * elements)
        offsets = [len(data), len(data) + len(tensor)]
        header[key] = {"dtype": "F32", "shape": [elements], "data_offsets": offsets}
        data += tensor
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def run(folder: Path, *line: str, around: Sequence[str] = ()) -> Ran:
    """Execute a line in a process of its own; a signal is a negative code."""
    ran = subprocess.run(
        [*around, *line], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def within(folder: Path, *words: str) -> Ran:
    """Run a command of ckpt in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(words)
        except SystemExit as done:
            code = done.code
    assert isinstance(code, int)
    return Ran(code, out.getvalue(), err.getvalue())


def models(folder: Path) -> Mapping[str, Model]:
    """What the index says, but for the times, and for what a first attempt had stored already."""
    return {name: _timeless(model) for name, model in Registry(folder).index().models.items()}


def _timeless(model: Model) -> Model:
    def plain(version: Version) -> Version:
        return replace(version, manifest="", created="", removed="", new_bytes=0)

    return replace(
        model,
        versions={number: plain(each) for number, each in model.versions.items()},
        removed={number: plain(each) for number, each in model.removed.items()},
        log=tuple(replace(event, at="", by=None, manifest="") for event in model.log),
    )


def exported(folder: Path) -> dict[str, str]:
    """The SHA-256 of every version's file, put together from the store."""
    registry = Registry(folder)
    found = {}
    for version in registry.versions():
        source = registry.source(version)
        found[version.ref] = hashlib.sha256(source.read(0, source.size)).hexdigest()
    return found


def record(
    record_property: Callable[[str, object], None], what: str, name: str, outcomes: Counter[str]
) -> None:
    """Count what was tried; in the long form say what came of it, too.

    Args:
        record_property: pytest's.
        what: E.g. ``killed before a call``.
        name: Of the command.
        outcomes: How often each came about.
    """
    record_property(f"count: {what}", outcomes.total())
    if EVERY:
        record_property("figure", f"{what}, {name}: {dict(outcomes)}")


def copy(source: Path, folder: Path) -> Path:
    """The folder, which is emptied first, holding what `source` holds."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
    return folder


@dataclass(frozen=True, slots=True)
class Scene:
    """One command, the registry on which it is tried, and what it makes of it.

    Attributes:
        template: The registry before.
        before: Its models.
        after: Those that the command makes of it.
        exports: SHA-256 of every version's file, before or after.
    """

    command: Command
    template: Path
    before: Mapping[str, Model]
    after: Mapping[str, Model]
    exports: Mapping[str, str]

    def state(self, folder: Path) -> str:
        """``before`` or ``after``, whichever a registry is; it must be one of the two, whole.

        P2 and P3: each version that the index names is there with all its objects; P4: its file
        is what it was; P5: the registry opens and `verify` finds nothing; P8: no lock is held.
        """
        found = models(folder)
        assert found in (self.before, self.after), found
        registry = Registry(folder)
        assert not registry.exists or not verify(registry=registry).damages
        for ref, digest in exported(folder).items():
            assert digest == self.exports[ref], ref
        for lock in (registry.store.lock, registry.store.root / "lock"):
            if lock.exists():
                with _at_once(), exclusive_lock(lock):
                    pass
        return "after" if found == self.after else "before"

    def recovers(self, folder: Path) -> None:
        """P6: the command typed again succeeds, or says that it is done; P7: gc leaves no trace."""
        if not self.command.steps or self.state(folder) == "before":
            again = self.again(folder)
            accepted = again.code == 0 or (again.code == 2 and self.command.done in again.err)
            assert accepted, again
        assert self.state(folder) == "after"
        gc(grace=timedelta(), registry=Registry(folder))
        assert self.state(folder) == "after"
        left = [path for path in folder.rglob("*") if is_temporary(path.name)]
        assert not left

    def again(self, folder: Path) -> Ran:
        """Type the command again."""
        if self.command == TRAINING and (folder / TRAINED).exists():
            return run(folder, *CKPT, "train", "--register", "--resume", TRAINED)
        if self.command.script or self.command == TRAINING:
            return run(folder, *self.command.line)
        return within(folder, *(self.command.again or self.command.words))


@contextlib.contextmanager
def _at_once():
    """Locks are waited for no longer than now."""
    os.environ["CKPT_LOCK_SECONDS"] = "0"
    try:
        yield
    finally:
        del os.environ["CKPT_LOCK_SECONDS"]


def scene(command: Command, folder: Path) -> Scene:
    """Build the registry of a command, and see what the command does when nothing fails."""
    template = folder / "template"
    template.mkdir()
    save(template / "net.safetensors", 1)
    save(template / "new.safetensors", 2)
    if command.first is not None:
        for words in (
            ("register", "net.safetensors"),
            ("rename", "net:v1", "--rule", "conv=embed"),
            ("alias", "prod", "v1"),
            ("tag", "v1", "good"),
            *command.first,
        ):
            ran = within(template, *words)
            assert ran.code == 0, ran
        (template / ".ckpt" / "tmp" / LOST_TEMPORARY).write_bytes(b"cut off")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        clean = copy(template, Path(name))
        ran = run(clean, *command.line)
        assert ran.code == 0, ran
        before, after = models(template), models(clean)
        exports = {**exported(template), **exported(clean)}
    assert before != after
    return Scene(command, template, before, after, exports)
