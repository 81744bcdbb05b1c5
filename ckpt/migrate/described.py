"""Definitions, described by a process of its own that builds them.

Code of a definition may hang, crash, print or change the interpreter: none of that reaches the
process that asks. This one needs no torch.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from ckpt.errors import CkptError
from ckpt.loading import Answer
from ckpt.migrate.child import plain, read_state
from ckpt.migrate.schema import Schema, schema_of
from ckpt.tensors import StateDict

if TYPE_CHECKING:
    from ckpt.migrate.revision import Revision

USUAL_SECONDS = 60.0


class BuildError(CkptError):
    """A definition cannot be built: its code fails, crashes or takes too long."""

    exit_code = 3


class MissingDefinitionError(BuildError):
    """There is no such file, module or class."""


@dataclass(frozen=True, slots=True)
class Described:
    """A definition, built once.

    Attributes:
        ref: As somebody typed it, with its arguments.
        file: The file that defines it; None if Python knows of none.
        state: Its state_dict without values, with the `ckpt_schema` of its modules.
    """

    ref: str
    file: Path | None
    state: StateDict

    @property
    def name(self) -> str:
        """``Net``."""
        return name_of(self.ref)

    @property
    def schema(self) -> Schema:
        """Its exact schema."""
        return schema_of(self.state)


def name_of(ref: str) -> str:
    """The name of the class or function that a ref names, ``Net`` of ``net.py:Net(depth=2)``."""
    return ref.partition("(")[0].rpartition(":")[2]


def as_called(ref: str, arguments: Mapping[str, object] | None) -> str:
    """A ref with arguments in it: ``net.py:Net(depth=2)``; some values have no such form."""
    if not arguments:
        return ref
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{ref[:-1]}, {given})" if ref.endswith(")") else f"{ref}({given})"


class Builder:
    """Builds definitions in another process, which begins when it is first needed.

    Args:
        folder: The folder in which it runs, from which paths of definitions begin.
        seconds: How long one request may take.
        revision: The revision of a repository whose files `folder` has.
        program: The module that the process runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float = USUAL_SECONDS,
        revision: "Revision | None" = None,
        program: str = "ckpt.migrate.child",
    ) -> None:
        self._folder, self._seconds, self._revision = folder, seconds, revision
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def begin(self) -> None:
        """Start the process, so that it imports torch while the caller does something else."""
        self._started()

    def close(self) -> None:
        """End the process, and those that it has started."""
        process, self._process, self._waiting = self._process, None, b""
        if process is None:
            return
        with process:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                process.wait()

    def describe(self, ref: str, arguments: Mapping[str, object] | None = None) -> Described:
        """Build a definition.

        Raises:
            MissingDefinitionError: There is none of this name.
            BuildError: Its code fails, crashes or takes too long.
        """
        answer = self.answer("describe", ref, arguments)
        file = None if answer["file"] is None else Path(answer["file"])
        return Described(as_called(ref, arguments), file, read_state(answer["state"]))

    def ask(
        self, ref: str, state: StateDict, arguments: Mapping[str, object] | None = None
    ) -> Answer:
        """What torch says to a state_dict that is loaded strictly: `ckpt.loading.ask_torch`.

        Raises:
            BuildError: As `describe`.
        """
        answer = self.answer("ask", ref, arguments, state=plain(state))
        return Answer(
            missing=tuple(answer["missing"]),
            unexpected=tuple(answer["unexpected"]),
            reshaped=tuple(answer["reshaped"]),
            complaints=tuple(answer["complaints"]),
            unasked=answer["unasked"],
        )

    def answer(
        self, what: str, ref: str, arguments: Mapping[str, object] | None, **more: object
    ) -> dict[str, Any]:
        """What the program answers to a request: a JSON document.

        Args:
            what: The word for it.
            ref: The definition.
            arguments: Those of the definition.
            **more: What else the request says; `seconds`, how long it may take.

        Raises:
            BuildError: As `describe`.
        """
        request = {"do": what, "definition": ref, "seconds": self._seconds, **more}
        request["arguments"] = repr(dict(arguments or {}))
        line = self._exchanged(ref, json.dumps(request).encode(), float(str(request["seconds"])))
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            self.close()
            text = f"{ref}: its code writes to a file descriptor that is not its own"
            raise BuildError(text) from error
        if "error" not in answer:
            return answer
        kind = MissingDefinitionError if answer["missing"] else BuildError
        at = f" (at {self._revision.name})" if self._revision else ""
        raise kind(f"{answer['error']}{at}", hint=answer["hint"])

    def _exchanged(self, ref: str, request: bytes, seconds: float) -> bytes:
        """The answer to a request.

        Raises:
            BuildError: The process ends, or takes too long.
        """
        process = self._started()
        assert process.stdin is not None  # a pipe, like stdout
        assert process.stdout is not None
        try:
            process.stdin.write(request + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._crash(ref) from None
        end = monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._waiting:
                if not selector.select(max(end - monotonic(), 0)):
                    self.close()
                    raise BuildError(
                        f"{ref}: takes more than {seconds:g} s to build",
                        hint="--timeout SECONDS  gives it more time",
                    )
                chunk = os.read(process.stdout.fileno(), 1 << 20)
                if not chunk:
                    raise self._crash(ref)
                self._waiting += chunk
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line

    def _crash(self, ref: str) -> BuildError:
        process = self._process
        assert process is not None
        code = process.wait()
        self.close()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BuildError(f"{ref}: its code ended the process that builds it, with {how}")

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            revision = self._revision
            trees = [str(revision.repository), str(revision.tree)] if revision else []
            # -P: no module beside the project's files may hide one of Python's own.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._program, *trees],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        return self._process
