"""The command line: each command parses, calls one operation and shows what it returned.

Exit codes: 0 done, 1 differs (only with --exit-code), 2 usage, 3 input refused,
4 integrity, 5 disk or system, 6 lock or conflict, 7 remote, 130 interrupted.
"""

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from ckpt.cli.commands import Commands
from ckpt.errors import CkptError
from ckpt.show.look.terminal import Terminal

SYSTEM = 5
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports for any other tool


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; the only place that catches errors."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if arguments is None and "train" not in words:
        # The process is ours and short-lived. Looking for circles in the hundreds of thousands
        # of nodes of a large file takes a third of the time, and finds none. A training run is
        # neither short nor without circles, which may hold tensors.
        gc.disable()
    try:
        code = _run(words)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain at exit again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except OSError:
        # Not even stderr takes what there is to say: the code alone says it. Python's own code
        # for a crash would be read as "differs".
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = SYSTEM
    sys.exit(code)


def _run(words: list[str]) -> int:
    terminal = Terminal()
    try:
        with Commands(name="ckpt").make_context("ckpt", words) as context:
            context.command.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "ckpt"
        terminal.error(error.format_message(), f"{where} --help")
        return error.exit_code
    except CkptError as error:
        _trace_if_asked()
        terminal.error(str(error), error.hint)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        _trace_if_asked()
        terminal.error(f"{error.filename or 'the output'}: {error.strerror or error}")
        return SYSTEM
    except Exception as error:  # noqa: BLE001 - a crash must not be read as "differs"
        _trace_if_asked()
        terminal.error(
            f"a fault in ckpt itself: {type(error).__name__}: {error}",
            "CKPT_DEBUG=1 shows where; please report it with the command",
        )
        return SYSTEM
    return 0


def _trace_if_asked() -> None:
    if os.environ.get("CKPT_DEBUG"):
        import traceback

        traceback.print_exc()
