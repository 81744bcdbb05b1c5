"""Which tests run a line of the code: they try its mutants first.

One run of the tests under coverage says which tests run each line, and how long they take. It
decides only the order: what these tests let pass, all tests of the folder still try. So a line
that only an import, another process or a slow test runs costs time, and no mutant is missed.
"""

import os
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from coverage import CoverageData

MEASURED = (
    "--cov=ckpt --cov-append --cov-context=test --cov-report= --durations=0 --durations-min=0 -vv"
)
OUTPUT = Path("quick-tests.txt")  # in the folder
QUICK = 1.0  # seconds; slower tests wait until the quick ones have passed
PATIENCE = 60.0  # seconds that the start of pytest may take
# The second: a test is not found by its id, as where its parameters come from the code. Then only
# the tests of the folder can tell.
_PASSED = (0, 4)
_PRELOADED = ("torch", "numpy", "safetensors.torch", "pytest")  # pytest imports its plugins itself


@dataclass(frozen=True)
class Quick:
    """Some quick tests, fastest first.

    Attributes:
        tests: Their ids.
        seconds: What they take together.
    """

    tests: tuple[str, ...]
    seconds: float

    def notice(self, options: str) -> bool | None:
        """Whether they run out of time in this folder, True, or fail, False; None if they pass.

        They run in a fork of this process, which saves the import of torch.
        """
        if not self.tests:
            return None
        child = get_context("fork").Process(target=_run, args=(self.tests, options))
        child.start()
        child.join(4 * self.seconds + PATIENCE)
        late = child.is_alive()
        if late:
            os.killpg(child.pid or 0, signal.SIGKILL)
            child.join()
        return None if child.exitcode in _PASSED else late


def preload() -> None:
    """Import what nearly all tests need, but nothing of the code that is broken."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _PRELOADED:
        import_module(name)


def _run(tests: tuple[str, ...], options: str) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["PYTHONPATH"] = str(Path.cwd())
    sys.path.insert(0, str(Path.cwd()))
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    output = os.open(OUTPUT, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in range(3):
        os.dup2(output, stream)
    import pytest

    os._exit(pytest.main([*options.split(), *tests]))


@dataclass(frozen=True)
class Runners:
    """The quick tests that run each line.

    Attributes:
        seconds: How long each quick test takes, set-up included.
        of_line: Ids of the tests, by file and line.
    """

    seconds: dict[str, float]
    of_line: dict[tuple[Path, int], set[str]]

    def of(self, path: Path, lines: Iterable[int]) -> Quick:
        """The tests that run any of these lines of a file of the tree."""
        return self.in_order({test for n in lines for test in self.of_line.get((path, n), ())})

    def in_order(self, tests: Iterable[str]) -> Quick:
        """The quick ones of these tests."""
        quick = [test for test in tests if test in self.seconds]
        quick.sort(key=lambda test: (self.seconds[test], test))
        return Quick(tuple(quick), sum(self.seconds[test] for test in quick))


def read_runners(tree: Path, output: str) -> Runners:
    """What a run of pytest with `MEASURED` in this tree found, of which `output` is the text."""
    seconds: dict[str, float] = defaultdict(float)
    slow = set[str]()  # files whose tests may share a slow set-up
    for took, phase, test in re.findall(r"^([\d.]+)s (\w+) +(.+)$", output, re.MULTILINE):
        seconds[test] += float(took)
        if phase == "setup" and float(took) > QUICK:
            slow.add(test.partition("::")[0])
    quick = {
        test: took
        for test, took in seconds.items()
        if took <= QUICK and test.partition("::")[0] not in slow
    }
    data = CoverageData(str(tree / ".coverage"))
    data.read()
    of_line = {
        (Path(file).relative_to(tree), line): {test.rpartition("|")[0] for test in tests} - {""}
        for file in data.measured_files()
        for line, tests in data.contexts_by_lineno(file).items()
    }
    return Runners(quick, of_line)
