"""The process that runs code of others to read a mapping, seen from outside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ckpt.errors import CkptError


class ImportedRulesError(CkptError):
    """A mapping cannot be read, or only in part."""

    exit_code = 3


def answer_of(source: str, seconds: float, given: object = None) -> Mapping[str, Any]:
    """What `ckpt.ops.rules.child` answers.

    Args:
        source: The mapping.
        seconds: How long it may take.
        given: What it gets, as JSON: the tensors of a file.

    Raises:
        ImportedRulesError: It fails, or takes too long.
    """
    # -P: no module beside the project's files may hide one of Python's own.
    words = [sys.executable, "-P", "-m", "ckpt.ops.rules.child", source]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            printed, _ = process.communicate(json.dumps(given).encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            raise ImportedRulesError(
                f"{source}: takes more than {seconds:g} s", hint="--timeout SECONDS"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode or not printed:
        raise ImportedRulesError(f"{source}: its code ended the process that reads it")
    answer: Mapping[str, Any] = json.loads(printed)
    if "error" in answer:
        raise ImportedRulesError(answer["error"], hint=answer["hint"])
    return answer
