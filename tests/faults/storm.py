"""Many writers of all kinds at once, killed at random: ``make storm``.

What is claimed is checked by `tests.faults.checker`, which shares no code with ckpt. The commands
come from a seed. When they run and where they are killed differs each time; what must hold does
not depend on it.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from tests.effort import PATIENCE
from tests.faults import checker
from tests.faults.stage import ENVIRONMENT, save

FILES = 12
KILLED, SECONDS = 0.25, 0.2  # the part of the commands that is killed, and within which time
MODELS = ("a", "b")
FORGET = ("--keep-removed", "0", "--keep-reflog", "0")
# 0 done, 2 a ref that does not exist (any more), 3 a rule that matches no key, 6 refused by the
# state of an alias or by `undo`.
CODES = {0, 2, 3, 6, -9}
SERVER = """
import contextlib, json, os, signal, sys, time
import ckpt.ops.alias, ckpt.ops.fsck, ckpt.ops.gc, ckpt.ops.redo, ckpt.ops.register
import ckpt.ops.rename, ckpt.ops.restore, ckpt.ops.rm, ckpt.ops.tag, ckpt.ops.verify.repair
from ckpt.cli import main

def command(words, output):
    for number in (1, 2):
        os.dup2(os.open(f"{output}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    try:
        main(words)
    except SystemExit as done:
        sys.stdout.flush()
        os._exit(done.code)

def ran(words, seconds, output):
    child = os.fork()
    if not child:
        command(words, output)
    end, ended, status = time.monotonic() + (seconds or 0), 0, 0
    while seconds is not None and not ended and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.001)
    if not ended:
        if seconds is not None:
            os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, 0)
    out, err = (open(f"{output}.{number}").read() for number in (1, 2))
    return {"words": words, "code": os.waitstatus_to_exitcode(status), "out": out, "err": err}

print(json.dumps([ran(*each, sys.argv[1]) for each in json.load(sys.stdin)]))
"""
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ran:
    words: Words
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass(slots=True)
class Known:
    """What the commands have said so far.

    Attributes:
        manifests: Of every version that was acknowledged or found, by ref.
        present: Refs of versions that must be listed.
        kept: Refs that must be listed, or be restorable.
    """

    serial: int = 0
    manifests: dict[str, str] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)


def commands(draw: random.Random, highest: int) -> Iterator[Words]:
    """Commands without end; some rounds are without `undo`, and without a gc that forgets."""
    undoes, forgets = draw.random() < 0.4, draw.random() < 0.4
    while True:
        model = draw.choice(MODELS)
        ref = f"{model}:v{draw.randint(1, highest)}"
        file = f"files/{draw.randrange(FILES)}.safetensors"
        name = draw.choice("pqrs")
        kinds: list[Words] = [
            *[("register", file, "--name", model)] * 4,
            ("rename", ref, "--rule", f"conv=embed{draw.randrange(3)}_"),
            ("rename", ref, "--drop", "^conv"),
            *[("alias", name, ref)] * 2,
            ("alias", name, model),
            ("alias", "-d", f"{model}@{name}"),
            ("alias", f"{model}@{name}", ref, "--expect", "none"),
            ("tag", ref, name),
            ("tag", ref, "-d", name),
            ("note", ref, "-m", name),
            ("metric", ref, f"loss={draw.randrange(9)}"),
            *[("rm", ref, "--yes")] * 3,
            ("rm", ref, f"{model}:v1", "--yes"),
            *[("restore", ref)] * 2,
            *[("undo",), ("undo",), ("redo",)] * undoes,
            ("gc", "--local", "--grace", "0", "--yes", *(FORGET if forgets else ())),
            ("verify", "--repair", file),
            ("fsck",),
            ("fsck", "--rebuild-index"),
        ]
        yield draw.choice(kinds)


def at_once(folder: Path, draw: random.Random, highest: int, number: int, each: int) -> list[Ran]:
    """One round: what every writer's commands did, each one's in its order."""
    source = commands(draw, highest)
    environment = {**ENVIRONMENT, "CKPT_REGISTRY": str(folder), "CKPT_LOCK_SECONDS": "600"}
    writers = []
    for writer in range(number):
        lines = [
            (
                (*next(source), "--json"),
                draw.uniform(0, SECONDS) if draw.random() < KILLED else None,
            )
            for _ in range(each)
        ]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER, f"{folder.parent}/{writer}"],
            cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        writers.append((process, json.dumps(lines)))
    for process, text in writers:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
    found = []
    for process, _ in writers:
        assert process.stdout is not None
        with process:
            found += json.loads(process.stdout.read())
        assert process.wait(PATIENCE) == 0
    return [Ran(tuple(one["words"][:-1]), one["code"], one["out"], one["err"]) for one in found]


def added(ran: Ran) -> dict[str, Any] | None:
    """The line of the version that a command has acknowledged."""
    if ran.code or ran.words[0] not in ("register", "rename"):
        return None
    line: dict[str, Any] = ran.data if ran.words[0] == "register" else ran.data["added"]
    return line


def expect_kept(known: Known, ran: list[Ran], found: checker.Found) -> None:
    """No version that was acknowledged is lost, and no number is given twice."""
    issued = [each.words for each in ran]
    undoes = bool({("undo",), ("redo",)} & {*issued})
    forgets = any("--keep-removed" in words for words in issued)
    removed = {ref for words in issued if words[0] == "rm" for ref in words[1:-1]}
    new = Counter[str]()
    for line in filter(None, map(added, ran)):
        ref = f"{line['model']}:{line['version']}"
        assert known.manifests.setdefault(ref, line["manifest"]) == line["manifest"], ref
        new[ref] += line["new"]
        known.present.add(ref)
        known.kept.add(ref)
    assert not new or max(new.values()) <= 1, new
    assert found.serial >= known.serial + new.total()
    known.serial = found.serial
    if not undoes:
        assert known.present - removed <= found.versions.keys()
    if not forgets:
        assert known.kept <= found.versions.keys() | found.removed.keys()
    for ref, line in {**found.versions, **found.removed}.items():
        assert known.manifests.setdefault(ref, line["manifest"]) == line["manifest"], ref
    known.present = {*found.versions}
    known.kept = {*found.versions, *found.removed}
    for ref in known.manifests:
        model, _, label = ref.partition(":")
        assert int(label[1:]) < found.next_numbers[model]


def alias_of(words: Words) -> str:
    """``a@p``, of the words of an alias command."""
    if "-d" in words:
        return words[-1]
    return words[1] if "@" in words[1] else f"{words[2].partition(':')[0]}@{words[1]}"


def expect_said(ran: list[Ran], folder: Path) -> None:
    """Every note and metric that was acknowledged is there, and the last move of each alias."""
    models = checker.parsed((folder / "registry.json").read_bytes())["models"]
    for name, model in models.items():
        events = model.get("log", ())
        assert [event["at"] for event in events] == sorted({event["at"] for event in events})
        last = {e["name"]: e.get("version") for e in events if e["did"] in ("alias", "unalias")}
        assert {alias: label for alias, label in last.items() if label} == model["aliases"], name
    for each in ran:
        if each.code == 0 and each.words[0] in ("note", "metric"):
            if each.words[0] == "metric" and not each.data["added"]:
                continue  # a renamed version has that of its parent
            events = models[each.data["model"]]["log"]
            about = [e for e in events if e.get("version") == each.data["version"]]
            assert any(
                e.get("text") == each.words[-1]
                or each.words[-1] in {f"{k}={v:g}" for k, v in e.get("metrics", {}).items()}
                for e in about
            ), each.words


def expect_done(ran: list[Ran], found: checker.Found) -> None:
    """What one command alone has changed is as it said."""
    issued = [each.words for each in ran]
    if {("undo",), ("redo",)} & {*issued}:
        return
    removed = {ref for words in issued if words[0] == "rm" for ref in words[1:-1]}
    restored = {words[1] for words in issued if words[0] == "restore"}
    aliased = Counter(map(alias_of, (words for words in issued if words[0] == "alias")))
    tagged = Counter((words[1], words[-1]) for words in issued if words[0] == "tag")
    for each in (each for each in ran if each.code == 0):
        words = each.words
        if words[0] == "rm":
            assert not {*words[1:-1]} - restored & found.versions.keys(), words
        if words[0] == "restore" and words[1] not in removed:
            assert words[1] in found.versions, words
        if words[0] == "alias" and aliased[name := alias_of(words)] == 1:
            version = each.data["version"]
            expected = version and f"{each.data['model']}:{version}"
            assert found.aliases.get(name) == expected, words
        once = words[0] == "tag" and tagged[words[1], words[-1]] == 1
        if once and words[1] not in removed:
            assert ((words[1], words[-1]) in found.tags) == ("-d" not in words), words


def storm(
    folder: Path, *, seed: int, writers: int = 4, each: int = 5, goes_on: Callable[[int], bool]
) -> str:
    """Let it rage, and return what came of it; an error if a claim does not hold.

    Args:
        folder: Where it makes its files and the registry, on the file system in question.
        seed: Of the commands.
        writers: At once.
        each: Commands of a writer in a round.
        goes_on: Whether there is another round; gets the number of those that were.
    """
    registry, draw, known = folder / "registry", random.Random(seed), Known()
    (registry / "files").mkdir(parents=True)
    for number in range(FILES):
        save(registry / f"files/{number}.safetensors", number)
    codes: Counter[int] = Counter()
    for _ in takewhile(goes_on, count()):
        ran = at_once(registry, draw, 3 + len(known.manifests) // 2, writers, each)
        codes.update(one.code for one in ran)
        assert {one.code for one in ran} <= CODES, [e for e in ran if e.code not in CODES]
        silent = [one for one in ran if one.code > 0 and "error: " not in one.err]
        # `fsck` answers on stdout, also that no index is there yet.
        assert all('"state": "none"' in one.out for one in silent), silent
        if (registry / "registry.json").exists():
            found = checker.check(registry)
            expect_kept(known, ran, found)
            expect_done(ran, found)
            expect_said(ran, registry)
    last = [("gc", "--local", "--grace", "0", "--yes"), ("verify",), ("fsck",)]
    for words in last:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ckpt", *words], cwd=registry, env=ENVIRONMENT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
    checker.check(registry)
    assert not list(registry.rglob("*.tmp"))
    done_text = f"{codes.total():,} commands, {codes[-9]:,} killed"
    return f"storm of {writers} writers: {done_text}, {len(known.manifests)} versions, nothing lost"


def main() -> None:
    """Rage for some minutes, in a folder of any file system."""
    parser = argparse.ArgumentParser(prog="make storm", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    chosen = parser.parse_args()
    print(f"{chosen.minutes:g} minutes in {chosen.folder}, --seed {chosen.seed}", flush=True)
    end = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        print(
            storm(
                Path(name), seed=chosen.seed, writers=chosen.writers, each=12,
                goes_on=lambda rounds: not rounds or time.monotonic() < end,
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
