"""FAULTS 33, 27: many writers of all kinds at once, killed at random.

What is claimed is checked by `tests.faults.checker`, which shares no code with ckpt. The commands
come from a seed. When they run and where they are killed differs each time; what must hold does
not depend on it.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.effort import PATIENCE, by_effort
from tests.faults import checker
from tests.faults.stage import ENVIRONMENT, save

WRITERS = by_effort(4, 8, 32)
ROUNDS = by_effort(3, 12, 60)
EACH = by_effort(5, 8, 12)  # commands of a writer in a round
FILES = 12
KILLED, SECONDS = 0.25, 0.2  # the part of the commands that is killed, and within which time
MODELS = ("a", "b")
# 0 done, 2 a ref that does not exist (any more), 3 a rule that matches no key, 6 refused by the
# state of an alias or by `undo`.
CODES = {0, 2, 3, 6, -9}
SERVER = """
import contextlib, json, os, signal, sys, time
import ckpt.ops.alias, ckpt.ops.fsck, ckpt.ops.gc, ckpt.ops.register, ckpt.ops.rename, ckpt.ops.rm
import ckpt.ops.tag, ckpt.ops.undo, ckpt.ops.verify.repair
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
            *[("undo",)] * (2 if undoes else 0),
            ("gc", "--grace", "0", "--yes", *(("--keep-removed", "0") if forgets else ())),
            ("verify", "--repair", file),
            ("fsck",),
            ("fsck", "--rebuild-index"),
        ]
        yield draw.choice(kinds)


def at_once(folder: Path, draw: random.Random, highest: int) -> list[Ran]:
    """One round: what every writer's commands did, each one's in its order."""
    source = commands(draw, highest)
    environment = {**ENVIRONMENT, "CKPT_REGISTRY": str(folder), "CKPT_LOCK_SECONDS": "600"}
    writers = []
    for writer in range(WRITERS):
        lines = [
            (
                (*next(source), "--json"),
                draw.uniform(0, SECONDS) if draw.random() < KILLED else None,
            )
            for _ in range(EACH)
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
    return [
        Ran(tuple(each["words"][:-1]), each["code"], each["out"], each["err"]) for each in found
    ]


def added(ran: Ran) -> dict[str, Any] | None:
    """The line of the version that a command has acknowledged."""
    if ran.code or ran.words[0] not in ("register", "rename"):
        return None
    line: dict[str, Any] = ran.data if ran.words[0] == "register" else ran.data["added"]
    return line


def expect_kept(known: Known, ran: list[Ran], found: checker.Found) -> None:
    """No version that was acknowledged is lost, and no number is given twice."""
    issued = [each.words for each in ran]
    undoes, forgets = ("undo",) in issued, any("--keep-removed" in words for words in issued)
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
    if ("undo",) in issued:
        return
    removed = {ref for words in issued if words[0] == "rm" for ref in words[1:-1]}
    aliased = Counter(map(alias_of, (words for words in issued if words[0] == "alias")))
    tagged = Counter((words[1], words[-1]) for words in issued if words[0] == "tag")
    for each in (each for each in ran if each.code == 0):
        words = each.words
        if words[0] == "rm":
            assert not {*words[1:-1]} & found.versions.keys(), words
        if words[0] == "alias" and aliased[name := alias_of(words)] == 1:
            version = each.data["version"]
            expected = version and f"{each.data['model']}:{version}"
            assert found.aliases.get(name) == expected, words
        once = words[0] == "tag" and tagged[words[1], words[-1]] == 1
        if once and words[1] not in removed:
            assert ((words[1], words[-1]) in found.tags) == ("-d" not in words), words


def test_fault_33_storm_of_all_commands_loses_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder, draw, known = tmp_path / "registry", random.Random(33), Known()
    (folder / "files").mkdir(parents=True)
    for number in range(FILES):
        save(folder / f"files/{number}.safetensors", number)
    codes: Counter[int] = Counter()
    for _ in range(ROUNDS):
        ran = at_once(folder, draw, 3 + len(known.manifests) // 2)
        codes.update(each.code for each in ran)
        assert {each.code for each in ran} <= CODES, [e for e in ran if e.code not in CODES]
        assert all(each.err.startswith("error: ") for each in ran if each.code > 0)
        if (folder / "registry.json").exists():
            found = checker.check(folder)
            expect_kept(known, ran, found)
            expect_done(ran, found)
            expect_said(ran, folder)
    last = [("gc", "--grace", "0", "--yes"), ("verify",), ("fsck",)]
    for words in last:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ckpt", *words], cwd=folder, env=ENVIRONMENT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
    checker.check(folder)
    assert not list(folder.rglob("*.tmp"))
    figure = f"storm of {WRITERS} writers: {codes.total()} commands, {codes[-9]} killed, "
    record_property("figure", f"{figure}{len(known.manifests)} versions, nothing lost")
