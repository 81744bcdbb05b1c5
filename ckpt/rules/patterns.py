"""Regular expressions that a user typed, run by `regex`, whose timeout stops a bad one.

The time is limited for one key, and for all keys of a checkpoint together.
"""

import re
from collections.abc import Callable
from functools import cached_property
from time import thread_time
from typing import TypeVar

import regex

from ckpt.errors import RuleError, SlowRuleError

MATCH_SECONDS = 0.5  # for one key
SLOW_SECONDS = 10.0  # for all keys that are slow
_SLOW = 0.0001  # a normal match takes a fiftieth of that

Match = regex.Match[str]
_T = TypeVar("_T")
_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\\.)+\$?")  # valid for sure, and without groups
_HEAD = re.compile(r"\^?((?:[A-Za-z0-9_-]|\\\.)*)")


class Pattern:
    """A compiled regular expression.

    Args:
        source: The regular expression; an attribute, too.
        name: The name of its rule in messages, e.g. ``rule 'conv->embed'``.
        shown: The part of `source` that the user typed; None for all of it.
        hint: The hint of the error if it is invalid.

    Raises:
        RuleError: It is invalid.
    """

    def __init__(
        self, source: str, *, name: str, shown: str | None = None, hint: str | None = None
    ) -> None:
        self.source, self._name = source, name
        self._slow = 0.0
        self._contained = _contained(source)
        if _PLAIN.fullmatch(source):  # compiled if a key needs it
            return
        try:
            self._compiled  # noqa: B018 - an invalid one is an error here
        except (regex.error, RecursionError, MemoryError, OverflowError, ValueError) as error:
            text = source if shown is None else shown
            why = str(error) or "too large"
            raise RuleError(
                f"{name}: '{text:.200}' is not a valid regular expression: {why:.200}", hint=hint
            ) from error

    @cached_property
    def _compiled(self) -> "regex.Pattern[str]":
        return regex.compile(self.source)

    def may_match(self, key: str) -> bool:
        """Whether a key has the text that every match contains; that is quick."""
        return self._contained in key

    @property
    def groups(self) -> int:
        """How many groups it has."""
        return self._compiled.groups

    def group(self, name: str) -> int | None:
        """The number of a named group."""
        return self._compiled.groupindex.get(name)

    def search(self, key: str, position: int = 0) -> Match | None:
        """The first match at `position` or after it.

        Raises:
            SlowRuleError: It ran too long.
        """
        return self._timed(key, lambda: self._compiled.search(key, position, timeout=MATCH_SECONDS))

    def sub(self, expand: Callable[[Match], str], key: str) -> str:
        """The key with every match replaced.

        Raises:
            SlowRuleError: It ran too long.
        """
        return self._timed(key, lambda: self._compiled.sub(expand, key, timeout=MATCH_SECONDS))

    def _timed(self, key: str, run: Callable[[], _T]) -> _T:
        begin = thread_time()
        try:
            found = run()
        except TimeoutError as error:
            raise self._failed(
                f"took over {MATCH_SECONDS} s on a key of {len(key):,} characters"
            ) from error
        except (MemoryError, RecursionError) as error:
            raise self._failed(f"ran out of memory on a key of {len(key):,} characters") from error
        took = thread_time() - begin
        if took > _SLOW:
            self._slow += took
            if self._slow > SLOW_SECONDS:
                raise self._failed(f"took over {SLOW_SECONDS:g} s")
        return found

    def _failed(self, how: str) -> SlowRuleError:
        return SlowRuleError(
            f"{self._name} {how}",
            hint="a repeat inside a repeat, like (a+)+, is the usual cause",
        )


def _contained(source: str) -> str:
    """Text that every match of a regular expression contains; empty if that is hard to say."""
    found = _HEAD.match(source)
    if found is None or "|" in source or "(?" in source:
        return ""
    text = found[1]
    if source[found.end() :].startswith(("*", "?", "{")):  # the last character may be absent
        text = text.removesuffix(r"\.") if text.endswith(r"\.") else text[:-1]
    return text.replace("\\", "")
