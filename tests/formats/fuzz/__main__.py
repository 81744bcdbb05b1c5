"""The differential fuzzer: ckpt and torch read the same files, or one of them refuses.

    python -m tests.formats.fuzz --cases 100000 --seed 1

A case is a pure function of the seed and its number; `--only NUMBER` runs one again and prints
both answers. Files on which the two differ are kept in `--keep`. Cases run in a process of
their own, so that one in which torch crashes, hangs or wants all memory counts as refused by it.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.formats.fuzz import cases, verdict

MEMORY = 2 << 30  # bytes that a worker may take beyond what it has
PATIENCE = 120  # seconds for one case; none needs a hundredth of them
BAD = ("different", "fault")  # outcomes; a fault is an error of ckpt that is not a CkptError


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="how many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="run this case alone and show it")
    parser.add_argument("--trick", action="append", default=[], help="let each case use this one")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    verdict.allow_safe_globals()
    torch.set_num_threads(1)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        if options.only is not None:
            return show(options, Path(folder) / "case.pt")
        return run(options, Path(folder))


def show(options: argparse.Namespace, path: Path) -> int:
    """Run one case, and print both answers."""
    case = cases.case(options.seed, options.only, forced=options.trick)
    path.write_bytes(case.data)
    print(f"{case.container}: {', '.join(sorted(case.tricks)) or 'no tricks'}")
    print(f"ckpt:  {verdict.ckpts(path)}", flush=True)
    print(f"torch: {verdict.shown(verdict.torchs(path))}", flush=True)
    outcome, details = verdict.judged(path)
    print(outcome, details)
    return int(outcome in BAD)


def run(options: argparse.Namespace, folder: Path) -> int:
    """Run all cases, and print the counts."""
    begun = time.monotonic()
    end = options.first + options.cases
    jobs = [
        forked(job, options, folder, range(options.first + at, end, options.jobs))
        for at in range(options.jobs)
    ]
    failed = [os.waitpid(process, 0)[1] for process in jobs]
    seconds = time.monotonic() - begun
    outcomes: Counter[str] = Counter()
    by_trick: dict[str, Counter[str]] = {}
    for file in folder.glob("*.jsonl"):
        for record in map(json.loads, file.read_text().splitlines()):
            outcomes[record["outcome"]] += 1
            for trick in (record["container"], *record["tricks"]):
                by_trick.setdefault(trick, Counter())[record["outcome"]] += 1
    for trick, counts in sorted(by_trick.items()):
        print(f"{trick:32}", ", ".join(f"{n:,} {what}" for what, n in counts.most_common()))
    print(f"{len(by_trick)} containers and tricks; left out: {', '.join(cases.KNOWN) or 'none'}")
    for what, count in outcomes.most_common():
        print(f"{count:8,} {what}")
    done = outcomes.total()
    print(f"{done:,} cases of seed {options.seed}, {done / seconds:.0f} a second")
    bad = sum(outcomes[what] for what in BAD)
    if bad:
        print(f"kept in {options.keep}; --only NUMBER runs one again")
    return int(bad > 0 or done != options.cases or any(failed))


def forked(function: Callable[..., None], *arguments: object) -> int:
    """The number of a new process that calls the function."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        function(*arguments)
        status = 0
    except Exception:  # noqa: BLE001 - a child must not go on as its parent would
        traceback.print_exc()
    finally:
        os._exit(status)


def job(options: argparse.Namespace, folder: Path, numbers: range) -> None:
    """Run cases; a process that dies is followed by another one, from the next case on."""
    with (folder / f"{numbers.start}.jsonl").open("w") as out:
        while numbers:
            for record in worked(options, folder / f"{os.getpid()}.pt", numbers):
                out.write(json.dumps(record) + "\n")
                if record["outcome"] in BAD:
                    keep(options, record)
                numbers = numbers[1:]


def worked(options: argparse.Namespace, path: Path, numbers: range) -> Iterator[dict[str, Any]]:
    """Run cases in a new process; yield a record of each, up to one that ends the process."""
    reading, writing = os.pipe()
    child = forked(work, options, path, numbers, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            yield json.loads(line)
            numbers = numbers[1:]
    if os.WIFEXITED(os.waitpid(child, 0)[1]) and numbers:
        raise RuntimeError(f"the fuzzer itself failed in case {numbers[0]}")
    if numbers:
        case = cases.case(options.seed, numbers[0], forced=options.trick)
        yield record_of(numbers[0], case, "torch crashed", "")


def work(options: argparse.Namespace, path: Path, numbers: range, writing: int) -> None:
    """Run cases, and write a line for each."""
    if sys.platform == "linux":
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(writing, "w", buffering=1) as out:
        for number in numbers:
            case = cases.case(options.seed, number, forced=options.trick)
            path.write_bytes(case.data)
            signal.alarm(PATIENCE)
            outcome, details = verdict.judged(path, rename=number % 4 == 0)
            out.write(json.dumps(record_of(number, case, outcome, details)) + "\n")


def record_of(number: int, case: cases.Case, outcome: str, details: str) -> dict[str, Any]:
    return {
        "number": number,
        "container": case.container,
        "tricks": sorted(case.tricks),
        "outcome": outcome,
        "details": details,
    }


def keep(options: argparse.Namespace, record: dict[str, Any]) -> None:
    """Keep a file, and beside it what the two say of it."""
    options.keep.mkdir(parents=True, exist_ok=True)
    name = f"{options.seed}-{record['number']}"
    case = cases.case(options.seed, record["number"], forced=options.trick)
    (options.keep / f"{name}.pt").write_bytes(case.data)
    (options.keep / f"{name}.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    sys.exit(main())
