"""The exceptions of ckpt, each with its exit code on the command line.

An error's text names the thing first, then found against expected; its `hint` says what to do.
Foreign exceptions are wrapped where we call out (`raise … from error`); only `ckpt.cli` catches
and prints. Elsewhere a traceback shows the hint, as a note. Some are also what Python itself would
raise, for callers who catch that: `ValueError`, `KeyError`, `FileNotFoundError`. So
`except CkptError: raise` goes before a handler of these.
"""

from typing import Any

TRUNCATED = "the file is truncated; fetch it again"  # a hint


def excerpt(text: str, most: int = 80) -> str:
    """The beginning of a foreign text, at most `most` characters of it, for a message."""
    return text if len(text) <= most else text[:most] + "…"


class CkptError(Exception):
    """Base of all errors that ckpt raises on purpose.

    Args:
        message: One line: what, where, found against expected.
        hint: The way out of it; may have several lines.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")

    def __str__(self) -> str:
        return str(self.args[0])  # `KeyError` would quote it

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it with all attributes, also those that its class requires."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[CkptError], args: tuple[Any, ...], state: dict[str, Any]) -> CkptError:
    # Python finds `ValueError.__new__` first, which makes no `OSError`.
    maker = OSError if issubclass(kind, OSError) else kind
    error = maker.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(CkptError, ValueError):
    """Invalid arguments."""

    exit_code = 2


class RefError(UsageError, KeyError):
    """A ref matches nothing, or more than one thing."""


class NoModelError(RefError):
    """The registry has no such model, or no model at all."""


class NoAliasError(UsageError):
    """A condition names `alias`, which no model has."""

    def __init__(self, message: str, *, hint: str, alias: str) -> None:
        super().__init__(message, hint=hint)
        self.alias = alias


class MissingFileError(RefError, FileNotFoundError):
    """There is no such file."""


class RuleError(UsageError):
    """A rename rule has no valid syntax, or fails when it runs."""


class SlowRuleError(RuleError):
    """A rule's pattern took too long on a key, or too much memory."""


class FormatError(CkptError):
    """A file is not a checkpoint, or not a well-formed one."""

    exit_code = 3


class AmbiguousStateError(FormatError):
    """A file holds several state_dicts, `names`, and the ref names none of them."""

    def __init__(self, message: str, *, hint: str | None, names: tuple[str, ...]) -> None:
        super().__init__(message, hint=hint)
        self.names = names


class RefusedGlobalError(FormatError):
    """A pickle names a global that the allow-list does not hold."""


class PlanError(CkptError):
    """Valid rules do not make a valid plan for these keys."""

    exit_code = 3


class UnexplainedError(PlanError):
    """The order of an optimizer's parameters is unknown without the class it was saved from."""


class KeyCollisionError(PlanError, ValueError):
    """Two keys would get the same new name."""


class UnmatchedRuleError(PlanError, ValueError):
    """A rule changed no key."""


class ConditionError(CkptError):
    """A condition that the caller has set does not hold."""

    exit_code = 3


class FitError(CkptError):
    """A state_dict does not fit a definition."""

    exit_code = 3


class DatasetError(CkptError):
    """A dataset is missing, damaged or not the expected one."""

    exit_code = 3


class InterruptedTrainingError(CkptError):
    """A signal ended a training run, after its state was saved; the hint resumes it."""

    def __init__(self, message: str, *, hint: str, signal: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal


class DivergedError(CkptError):
    """A training run's loss or gradient is not finite; nothing is written but its state."""

    exit_code = 3


class IntegrityError(CkptError):
    """Stored bytes differ from the bytes that were stored."""

    exit_code = 4


class AbsentError(IntegrityError):
    """An object is not in the store; it may be on a remote."""


class IndexDamageError(IntegrityError):
    """The index cannot be read, or is missing although versions exist.

    Args:
        message: Names the file and the damage.
        hint: The way to repair it.
        kind: ``missing``, ``conflict`` (git's markers), ``newer`` (schema) or ``damaged``.
        line: Of the damage, counted from 1; None if unknown.
    """

    def __init__(self, message: str, *, hint: str, kind: str, line: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.line = line


class DiskError(CkptError):
    """The disk or the operating system refused a call."""


class DiskWarning(UserWarning):
    """A file system lacks something, and ckpt does without; the text says what that costs."""


class OutOfMemoryError(CkptError):
    """A training step needs more memory than the device has."""


class ConflictError(CkptError):
    """Another process holds the lock, or made its change first."""

    exit_code = 6


class RemoteError(CkptError):
    """A server or bucket refused a request, cannot be reached, or sent something else."""

    exit_code = 7
