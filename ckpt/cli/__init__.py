"""The command line: a command parses its arguments, calls one operation and prints the result.

Exit codes: 0 done, 1 differs (only with --exit-code), 2 usage, 3 input refused,
4 integrity, 5 disk or system, 6 lock or conflict, 7 remote, 130 interrupted, 143 terminated.
"""

import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from gc import disable as stop_searching_cycles  # `gc` is a command here
from gc import freeze as keep_all
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

import ckpt
from ckpt.cli.commands import COMMANDS, Commands
from ckpt.errors import CkptError
from ckpt.show.look.terminal import Terminal

SYSTEM = 5
_EXTRAS = {
    "torch": "torch",
    "torchvision": "torch",
    "matplotlib": "plot",
    "jinja2": "site",
    "obstore": "remote",
    "paramiko": "ssh",
    "model_signing": "sign",
    "cryptography": "sign",
    "OpenSSL": "sign",
    "mlflow": "mlflow",
    "sqlalchemy": "mlflow",
    "alembic": "mlflow",
}
_OF_CKPT = ("--color", "--no-pager")
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it for other tools


class Terminated(BaseException):
    """A signal asked the process to end; temporary files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; the only place that catches errors."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    is_short = arguments is None and "train" not in words
    if is_short:
        # The process is short-lived. Searching the hundreds of thousands of nodes of a large
        # file for reference cycles takes a third of the time and finds none. A training run is
        # long, and its cycles may hold tensors.
        stop_searching_cycles()
        # The matrix library of numpy starts a thread for each core when it is imported, and
        # interrupts the process if it gets none. These commands multiply no matrices in numpy.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if arguments is None:
        _end_tidily()
        if asked := os.environ.get("_CKPT_COMPLETE"):
            from ckpt.cli.completion import complete

            sys.exit(complete(Commands(name="ckpt"), asked))
    try:
        code = _run(words)
    except BrokenPipeError:
        # The reader closed the pipe. Python would report that again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except OSError:
        # stderr cannot be written either, so only the exit code reports the error. Python's own
        # exit code for a crash, 1, means "differs".
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = SYSTEM
    if is_short:
        keep_all()  # else the interpreter searches them for cycles when it ends, even so
    sys.exit(code)


def _run(words: list[str]) -> int:
    terminal = Terminal()
    try:
        if "rename" not in getattr(ckpt, "__all__", ()):  # another package wrote its own over ours
            raise ModuleNotFoundError(name="ckpt.__init__")
        with Commands(name="ckpt").make_context("ckpt", [*words]) as context:
            from ckpt.cli.options import terminal_of  # --help goes without

            terminal = terminal_of(context)
            context.command.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        terminal.remark(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "ckpt"
        meant = _at_front(error, words) or _as_option(error, words)
        terminal.error(error.format_message(), meant or f"{where} --help")
        return error.exit_code
    except CkptError as error:
        _trace_if_asked(terminal)
        terminal.error(str(error), error.hint)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.error("interrupted")
        return INTERRUPTED
    except Terminated as signalled:
        with suppress(OSError):  # the terminal may be what went away
            terminal.error("terminated by a signal")
        return signalled.exit_code
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        _trace_if_asked(terminal)
        terminal.error(*_missing(str(error.name), _from_command(words)[0]))
        return SYSTEM
    except OSError as error:
        _trace_if_asked(terminal)
        terminal.error(f"{error.filename or 'the output'}: {error.strerror or error}")
        return SYSTEM
    except Exception as error:  # noqa: BLE001 - a crash must not exit with 1, "differs"
        _trace_if_asked(terminal)
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's
            terminal.error("out of memory")
            return SYSTEM
        terminal.error(
            f"internal error: {type(error).__name__}: {error}",
            "set CKPT_DEBUG=1 to see the traceback; please report it with the command",
        )
        return SYSTEM
    return 0


def _from_command(words: list[str]) -> list[str]:
    """The words from the command's name on; before it are options of `ckpt` itself."""
    at = next((at for at, word in enumerate(words) if word in COMMANDS), 0)
    return words[at:]


def _missing(module: str, command: str) -> tuple[str, str]:
    """What is not installed, and how it comes; the core has neither torch nor numpy."""
    name = module.partition(".")[0]
    if name == "ckpt":
        return (
            f"{Path(__file__).parent.parent}: {module} is missing, or belongs to another package",
            "pip install --force-reinstall --no-deps ckpt-registry",
        )
    extra = "train" if command == "train" else _EXTRAS.get(name)
    what = name if extra is None else f"'ckpt-registry[{extra}]'"
    return f"ckpt {command} needs {name}, which is not installed", f"pip install {what}"


def _at_front(error: click.UsageError, words: list[str]) -> str | None:
    """The command for somebody who typed an option of `ckpt` itself after the command's name."""
    if not isinstance(error, click.NoSuchOption) or error.option_name not in _OF_CKPT:
        return None
    from shlex import join

    at = max(at for at, word in enumerate(words) if word.startswith(error.option_name))
    after = at + (2 if words[at] == "--color" else 1)
    return join(["ckpt", *words[at:after], *words[:at], *words[after:]])


def _as_option(error: click.UsageError, words: list[str]) -> str | None:
    """The command for somebody who left out an option's name, as one types `cp OLD NEW`."""
    extra = re.search(r"unexpected extra argument \((.*)\)", error.format_message(), re.DOTALL)
    if not (extra or isinstance(error, click.MissingParameter)):
        return None
    from shlex import join

    from ckpt.refs import SUFFIXES

    typed_words = _from_command(words)
    front = ["ckpt", *words[: len(words) - len(typed_words)]]
    match typed_words:
        case ["rename" | "export" as command, old, new, *rest] if (
            not old.startswith("-")
            and new.endswith((*SUFFIXES,))
            and not any(word.startswith(("-o", "--out")) for word in rest)
        ):
            return join([*front, command, old, *rest, "-o", new])
        case ["train", *rest] if (
            extra
            and rest.count(typed := extra[1]) == 1
            and (option := _option_for(typed))
            and not any(word.startswith(option) for word in rest)
        ):
            at = rest.index(typed)
            return join([*front, "train", *rest[:at], option, *rest[at:]])
        case ["rename", old, new, *rest] if (
            not old.startswith("-") and _CLASS.search(new) and "--to" not in rest
        ):
            return join([*front, "rename", old, "--to", new, *rest])
    return None


def _option_for(typed: str) -> str | None:
    """The option of `ckpt train` that takes such a value: a definition or a dataset."""
    from ckpt.train.recipes.recipe import DATASETS, is_path

    if ":" in typed or typed.endswith(".py"):
        return "--model"
    return "--dataset" if typed in DATASETS or is_path(typed) else None


_CLASS = re.compile(r"\.py:\w+$")


def _end_tidily() -> None:
    """Make SIGTERM (of job schedulers and `timeout`) and SIGHUP end the process like Ctrl-C."""
    numbers = signal.SIGTERM, signal.SIGHUP

    def end(number: int, _frame: FrameType | None) -> None:
        for each in numbers:  # `timeout` sends it twice; the second must not stop the tidying
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    for number in numbers:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, end)


def _trace_if_asked(terminal: Terminal) -> None:
    if os.environ.get("CKPT_DEBUG"):
        import traceback

        terminal.remark(traceback.format_exc().rstrip())
