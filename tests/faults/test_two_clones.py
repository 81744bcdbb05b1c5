"""Two clones and a bare repository: a random walk of writes, pushes, pulls and rebases.

Laws, checked with plain JSON: no version is lost without a message, whether git could run the merge
driver or not; a number that was pushed never gets another version; a merge keeps every event of the
history of both sides.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import ckpt, folder, git  # noqa: F401 - fixtures
from tests.cli.support import Git, Run, save
from tests.effort import by_effort

STEPS = by_effort(14, 60, 150)
SEEDS = range(by_effort(2, 4, 20))
Numbers = dict[str, str]  # label to content


def numbers(text: str) -> Numbers:
    """Every number of `net` in an index, with its content."""
    model = json.loads(text)["models"].get("net", {"versions": {}})
    lines = {**model["versions"], **model.get("removed", {})}
    return {label: line["content"] for label, line in lines.items()}


def events(text: str) -> set[str]:
    """The history of `net` in an index."""
    model = json.loads(text)["models"].get("net", {})
    return {json.dumps(event, sort_keys=True) for event in model.get("log", ())}


@dataclass
class Person:
    """A clone, and what it does."""

    name: str
    home: Path
    ckpt: Run
    draw: random.Random
    seeds: list[int]
    log: list[str] = field(default_factory=list)

    def git(self, *words: str, driver: bool = True) -> int:
        environment = {**os.environ, "GIT_EDITOR": "true"}
        settings = ["-c", "pull.rebase=false"]
        if not driver:
            places = os.environ["PATH"].split(":")
            kept = [place for place in places if not (Path(place) / "ckpt").exists()]
            environment["PATH"] = ":".join(kept)
            command = self.out("config", "merge.ckpt.driver").strip()
            settings += ["-c", f"merge.ckpt.driver={command.replace(sys.executable, '/nowhere')}"]
        done = subprocess.run(
            ["git", *settings, *words], cwd=self.home, env=environment, capture_output=True
        )
        self.log.append(f"{self.name}: git {' '.join(words)}, driver {driver}: {done.returncode}")
        return done.returncode

    def out(self, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=self.home, check=True, capture_output=True, text=True
        ).stdout

    def run(self, *words: str) -> int:
        os.chdir(self.home)
        ran = self.ckpt(*words)
        self.log.append(f"{self.name}: {' '.join(words)}: {ran.code} {ran.err.strip()}")
        return ran.code

    @property
    def numbers(self) -> Numbers:
        return numbers((self.home / "registry.json").read_text())

    def any_version(self) -> str:
        return f"net:{self.draw.choice([*self.numbers, 'v1'])}"

    def register(self) -> None:
        self.seeds.append(len(self.seeds))
        save(self.home / "net.pt", self.seeds[-1])
        assert self.run("register", "net.pt") == 0

    def rename(self) -> None:
        self.run("rename", self.any_version(), "--rule", f"^.*$=k{len(self.log)}")

    def rm(self) -> None:
        self.run("rm", self.any_version(), "--yes")

    def restore(self) -> None:
        self.run("restore", self.any_version())

    def undo(self) -> None:
        self.run(self.draw.choice(["undo", "undo", "redo"]))

    def alias(self) -> None:
        self.run("alias", "prod", self.any_version())

    def tag(self) -> None:
        self.run("tag", self.any_version(), self.draw.choice(["golden", "old"]))

    def note(self) -> None:
        self.run("note", self.any_version(), "-m", f"{self.name} {len(self.log)}")
        self.run("metric", self.any_version(), f"loss={len(self.log)}")

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def push(self) -> None:
        self.commit()
        self.git("push", "-q")

    def pull(self) -> None:
        self.commit()
        assert self.run("ls") == 0
        start, before = self.out("rev-parse", "HEAD").strip(), self.numbers
        said = events((self.home / "registry.json").read_text())
        rebase = self.draw.random() < 0.4
        self.git("fetch", "-q")
        document = self.out("show", "origin/main:registry.json")
        theirs, said = numbers(document), said | events(document)
        words = ["rebase", "origin/main"] if rebase else ["merge", "-q", "--no-edit", "origin/main"]
        code = self.git(*words, driver=self.draw.random() < 0.6)
        wanted = {*before.values(), *theirs.values()}
        while code:
            if not self.settled(start, rebase=rebase, wanted=wanted):
                return
            code = self.git(*(["rebase", "--continue"] if rebase else ["commit", "-qm", "m"]))
        now = self.numbers
        assert wanted == {*now.values()}, "a version was lost"
        assert said == events((self.home / "registry.json").read_text()), "an event was lost"
        moved = {label for label, content in before.items() if now.get(label) != content}
        assert self.said() == {f"net:{label}" for label in moved}
        assert self.said() == set(), "said once"

    def said(self) -> set[str]:
        """The numbers that the next command says were moved."""
        os.chdir(self.home)
        words = [line.split() for line in self.ckpt("ls").err.splitlines()]
        return {first for first, *_ in words if first.startswith("net:")}

    def settled(self, start: str, *, rebase: bool, wanted: set[str]) -> bool:
        """End a conflict in the one or other way; false if the whole merge was given up."""
        assert self.run("ls") == 4, "nobody takes the file for whole"
        assert self.run("alias", "prod", "net:v1") == 4
        way = self.draw.choice(["resolve", "resolve", "overlook", "take ours"])
        self.log.append(f"{self.name}: {way}")
        if way == "resolve":
            assert self.run("git-driver", "resolve", self.draw.choice(["--ours", "--theirs"])) == 0
            self.git("add", "registry.json")
            return True
        if way == "overlook":
            self.git("add", "-A")
            assert self.run("ls") == self.run("fsck") == self.run("verify") == 4
            assert self.run("gc", "--grace", "0", "--yes") == 4
        elif not rebase:
            self.git("checkout", "-q", "--ours", "registry.json")
            self.git("add", "-A")
            self.git("commit", "-qm", "m")
            self.expect_message(wanted)
        if rebase:
            self.git("rebase", "--abort")
        self.git("reset", "-q", "--hard", start)
        return False

    def expect_message(self, wanted: set[str]) -> None:
        """The versions that are gone are named, by `fsck`, and kept by `gc`."""
        os.chdir(self.home)
        named = set()
        for words in (["gc", "--grace", "0", "--yes", "--json"], ["fsck", "--json"]):
            for row in self.ckpt(*words).data["lost"]:
                digest = row["manifest"].removeprefix("sha256:")
                assert (self.home / ".ckpt/manifests" / digest[:2] / digest[2:]).exists()
                line = json.loads(self.out("cat-file", "-p", row["found_in"]))
                versions = line["models"]["net"]["versions"]
                named |= {
                    each["content"]
                    for each in versions.values()
                    if each["manifest"] == row["manifest"]
                }
        removed = {
            line["content"]
            for line in json.loads(self.out("show", "HEAD^2:registry.json"))["models"]["net"]
            .get("removed", {})
            .values()
        }
        assert wanted - {*self.numbers.values()} - removed <= named, "lost without a message"


@pytest.mark.parametrize("seed", SEEDS)
def test_walk_of_two_clones(ckpt: Run, git: Git, folder: Path, seed: int) -> None:  # noqa: F811
    draw, seeds, log = random.Random(seed), [0], list[str]()
    git("init", "-q", "--bare", "-b", "main", "bare")
    people = [Person(name, folder / name, ckpt, draw, seeds, log) for name in ("ann", "bob")]
    for person in people:
        git("clone", "-q", "bare", person.name)
        if person is people[0]:
            person.register()
            (person.home / ".gitignore").write_text("*.pt\n")
            person.git("checkout", "-q", "-B", "main")
            assert person.run("git-driver", "install") == 0
            person.commit()
            assert person.git("push", "-q", "-u", "origin", "main") == 0
        save(person.home / "net.pt", 0)
        assert person.run("git-driver", "install") == 0
    pushed: Numbers = {}

    def walk(person: Person, act: Callable[[Person], None]) -> None:
        act(person)
        now = numbers(git("-C", "bare", "show", "main:registry.json").stdout)
        assert pushed.items() <= now.items(), "a pushed number changed"
        pushed.update(now)

    actions = [Person.register, Person.register, Person.rename, Person.rm, Person.alias, Person.tag]
    actions += [Person.restore, Person.undo, Person.note]
    actions += [Person.commit, Person.push, Person.push, Person.pull, Person.pull, Person.pull]
    try:
        for _ in range(STEPS):
            walk(draw.choice(people), draw.choice(actions))
    except AssertionError as error:
        raise AssertionError("\n".join([*log, str(error)])) from error
