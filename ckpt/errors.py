"""The exceptions of ckpt, each with the exit code that it means on the command line.

An error's text says the thing first, then what was found against what was expected,
and its `hint` says what to do. Foreign exceptions are wrapped where we call out
(`raise … from error`); only `ckpt.cli` catches and prints.
"""


class CkptError(Exception):
    """Base of all that ckpt raises on purpose.

    Args:
        message: One line: what, where, found against expected.
        hint: What to do about it; may have several lines.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(CkptError):
    """What was typed cannot be meant."""

    exit_code = 2


class RefError(UsageError):
    """A ref names nothing, or more than one thing."""


class RuleError(UsageError):
    """A rename rule cannot be read or cannot be run."""


class FormatError(CkptError):
    """A file is not a checkpoint, or not a well-formed one."""

    exit_code = 3


class AmbiguousStateError(FormatError):
    """A file holds several state_dicts, and nothing says which is meant.

    Args:
        message: Which file.
        hint: How to say it.
        names: Theirs, as after ``FILE::``.
    """

    def __init__(self, message: str, *, hint: str | None, names: tuple[str, ...]) -> None:
        super().__init__(message, hint=hint)
        self.names = names


class RefusedGlobalError(FormatError):
    """A pickle names something that is not needed to describe tensors."""


class PlanError(CkptError):
    """Rules that can be read do not make a good plan for these keys."""

    exit_code = 3


class KeyCollisionError(PlanError):
    """Two keys end up with one name."""


class UnmatchedRuleError(PlanError):
    """A rule changed no key."""


class FitError(CkptError):
    """A state_dict does not fit a definition."""

    exit_code = 3


class DatasetError(CkptError):
    """A dataset is absent, damaged or not what it should be."""

    exit_code = 3


class InterruptedTrainingError(CkptError):
    """A signal ended a training run, whose state was written.

    Args:
        message: Where it stopped.
        hint: How it goes on.
        signal: Its number.
    """

    def __init__(self, message: str, *, hint: str, signal: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal


class IntegrityError(CkptError):
    """Stored bytes are not the bytes that were stored."""

    exit_code = 4


class IndexDamageError(IntegrityError):
    """The index cannot be read, or is not there though there are versions.

    Args:
        message: Which file, and what is wrong with it.
        hint: What to do.
        kind: ``missing``, ``conflict`` (git's markers), ``newer`` (schema) or ``damaged``.
        line: Where, from 1; None where that cannot be said.
    """

    def __init__(self, message: str, *, hint: str, kind: str, line: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.line = line


class DiskError(CkptError):
    """The disk or the system did not do what it was asked."""

    exit_code = 5


class OutOfMemoryError(CkptError):
    """A training step needs more memory than there is."""

    exit_code = 5


class ConflictError(CkptError):
    """Somebody else holds the lock, or won."""

    exit_code = 6
