"""Mutation testing: break the code in small ways, and count the breaks that its tests notice.

Cosmic Ray makes the mutants and runs the tests; this script picks a seeded sample of each folder,
gives every worker a copy of the tree, and prints the score. The tree itself is never changed.
The quick tests that run a broken line try it first, and if they pass, all tests of its folder.

Not sampled, because no test could or should notice them:

* what Python refuses to compile, which any test would notice,
* `except (…, struct.error)` with another exception: Cosmic Ray fails on the dot,
* annotations, type aliases (`Value = str | None`) and `@dataclass(...)`: nothing runs them,
  or everything breaks without them,
* `==` against `is`, and `is` against `==`: equal for small numbers, None and interned strings,
* `|` between flags of `os` made `+` or `^`: they have no bit in common,
* the `*` of a signature made `/`: callers that name their arguments still may,
* `strict=True` of `zip`: it checks what the code around it already ensures,
* comments and strings: Cosmic Ray leaves them alone, so docstrings and message texts as well.

All else counts, messages' numbers and limits too. A mutant that runs out of time is killed.
"""

import argparse
import ast
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import chdir, closing
from dataclasses import dataclass, replace
from difflib import unified_diff
from multiprocessing import Manager
from pathlib import Path
from queue import Queue

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test, mutate_code, use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkItem
from tabulate import tabulate
from tqdm import tqdm

from tests.mutants_by_line import MEASURED, OUTPUT, Quick, Runners, preload, read_runners

TREE = Path(__file__).resolve().parent.parent
COPIED = ("ckpt", "models", "tests", "examples", "pyproject.toml")
WORKERS = 2
MOST_BASELINES = 4.0  # a mutant whose tests take longer than that and 10 s is killed
PYTEST = "-x -q -p no:cacheprovider --hypothesis-seed=0"
EXCLUDED = re.compile(r"core/ReplaceComparisonOperator_(Eq_Is|NotEq_IsNot|Is_Eq|IsNot_NotEq)")


@dataclass(frozen=True)
class Folder:
    """Code that is broken, and the tests that should notice.

    Attributes:
        code: Patterns of its files.
        tests: Arguments of pytest, one run after the other: the slow tests run only on mutants
            that the fast ones let pass.
    """

    code: tuple[str, ...]
    tests: tuple[str, ...]


TESTS_OF_FORMATS = (
    "tests/formats --ignore=tests/formats/distributed --ignore=tests/formats/fuzz "
    "--ignore-glob=*test_inflated* --ignore-glob=*test_laws* --ignore-glob=*test_torch_l*",
    "tests/formats/test_laws.py tests/formats/test_torch_legacy.py tests/formats/fuzz "
    "tests/formats/zip/test_inflated.py tests/formats/distributed "
    "-k 'not four_processes and not archive_is and not archive_of and not archive_without'",
    "tests/cli/test_mend.py tests/cli/test_folders.py tests/cli/test_shards.py "
    "tests/cli/test_opaque.py tests/cli/test_rename_to_copies.py tests/ops/rename tests/writing "
    "tests/oracles/test_load_optimizer.py tests/oracles/test_resume.py "
    "tests/oracles/test_resume_after_drop.py tests/cli/test_migrate_numbers.py",
)
FOLDERS = {
    "rules": Folder(
        ("ckpt/rules/*.py",),
        (
            "tests/rules --ignore-glob=*test_ex* --ignore-glob=*test_inverse* "
            "--ignore-glob=*test_cases*",
            "tests/rules/test_expressions.py tests/rules/test_inverse.py tests/rules/test_cases.py "
            "tests/rules/test_examples.py",
            "tests/ops/rename/test_operations.py tests/cli/test_rename.py",
        ),
    ),
    "registry": Folder(
        ("ckpt/registry/*.py", "ckpt/registry/history/*.py"),
        (
            "tests/registry tests/test_refs.py --ignore=tests/registry/store "
            "--ignore-glob=*test_merge* --ignore-glob=*test_replay* --ignore-glob=*test_fault* "
            "--ignore-glob=*test_modes* -k 'not fault_33'",
            "tests/registry/history/test_replay.py tests/registry/test_merge.py "
            "tests/registry/test_fault_26.py tests/registry/test_modes.py",
            "tests/cli/test_labels.py tests/cli/test_removal.py tests/cli/test_gc.py "
            "tests/cli/test_git_driver.py tests/cli/test_fsck.py",
        ),
    ),
    "store": Folder(
        ("ckpt/registry/store/*.py",),
        (
            "tests/registry/store",
            "tests/registry/test_modes.py tests/ops/test_register.py tests/cli/test_gc.py "
            "tests/cli/test_repair.py",
        ),
    ),
    "formats": Folder(("ckpt/formats/*.py", "ckpt/formats/*/*.py"), TESTS_OF_FORMATS),
    "pickle": Folder(("ckpt/formats/pickle/*.py",), TESTS_OF_FORMATS),
    "loop": Folder(("ckpt/train/loop.py",), ("tests/train/test_loop.py",)),
    "values": Folder(
        ("ckpt/compare/values.py", "ckpt/compare/numbers.py"),
        (
            "tests/compare/test_numbers.py tests/compare/test_values.py",
            "tests/cli/test_values.py",
        ),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One mutant, and whether the tests noticed it."""

    item: WorkItem
    place: str
    diff: str
    killed: bool
    in_time: bool


def main() -> int:
    """Print the score of each folder, and the mutants that survived."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", choices=FOLDERS, action="append", help="only this one")
    parser.add_argument("--count", type=int, default=60, help="mutants a folder (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default 1)")
    given = parser.parse_args()
    rows = []
    for name in given.folder or FOLDERS:
        begin = time.monotonic()
        outcomes = _run(name, given.count, given.seed)
        killed = sum(each.killed for each in outcomes)
        score = f"{killed / max(1, len(outcomes)):.0%}"
        late = sum(not each.in_time for each in outcomes)
        seconds = round(time.monotonic() - begin)
        rows.append((name, len(outcomes), killed, late, score, seconds))
    print(f"\nseed {given.seed}")
    heads = ("folder", "mutants", "killed", "by time", "score", "seconds")
    print(tabulate(rows, heads, tablefmt="plain", disable_numparse=True))
    return 0


def _run(name: str, count: int, seed: int) -> list[Outcome]:
    folder = FOLDERS[name]
    with tempfile.TemporaryDirectory(prefix="ckpt-mutants-") as made:
        trees = [Path(made, f"tree{number}") for number in range(WORKERS)]
        _copy_tree(trees[0])
        seconds, runners = _expect_controls(trees[0], folder)
        for tree in trees[1:]:
            shutil.copytree(trees[0], tree, symlinks=True)
        with chdir(trees[0]):  # so that nobody edits the code between the copy and the sample
            sample = _sample(Path(made), folder, count, f"{name} {seed}")
        print(f"{name}: {len(sample)} mutants, tests take {seconds:.0f} s", file=sys.stderr)
        quick = [(item, _quick(item, runners)) for item in sample]
        outcomes = _test_all(_try_quick, quick, trees)
        whole = (_all_tests(folder), seconds * MOST_BASELINES + 10)
        left = [(each, *whole) for each in outcomes if not each.killed]
        print(f"{name}: quick tests let {len(left)} pass", file=sys.stderr)
        tried = _test_all(_try_whole, left, trees)
        for each in tried:
            if not each.killed:
                print(f"survived: {each.place}\n{each.diff}\n")
        return [*(each for each in outcomes if each.killed), *tried]


def _quick(item: WorkItem, runners: Runners) -> Quick:
    mutation = item.mutations[0]
    lines = range(mutation.start_pos[0], mutation.end_pos[0] + 1)
    return runners.of(mutation.module_path, lines)


def _all_tests(folder: Folder, options: str = "") -> str:
    python = shlex.quote(sys.executable)
    commands = (f"{python} -m pytest {PYTEST} {options} {tests}" for tests in folder.tests)
    return shlex.join(["sh", "-fc", " && ".join(commands)])


def _copy_tree(tree: Path) -> None:
    tree.mkdir()
    for name in COPIED:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, tree / name)
        else:
            shutil.copy2(TREE / name, tree / name)
    # An installed ckpt maps this package; a copy has it where Python looks first.
    (tree / "ckpt" / "models").symlink_to("../models")


def _expect_controls(tree: Path, folder: Folder) -> tuple[float, Runners]:
    """Seconds of the tests, and which of them run a line.

    They must pass as the code is, the quick ones in another order too, and fail when all of it is
    broken.
    """
    begin = time.monotonic()
    output = _expect_pass(tree, _all_tests(folder, MEASURED))
    seconds = time.monotonic() - begin
    runners = read_runners(tree, output)
    preload()
    with chdir(tree):
        if runners.in_order(runners.seconds).notice(PYTEST) is not None:
            sys.exit(f"the quick tests fail in another order:\n{OUTPUT.read_text()}")
    path = _sources(tree, folder)[0]
    whole = path.read_text(encoding="utf-8")
    path.write_text("raise RuntimeError('broken on purpose')\n", encoding="utf-8")
    if not _pytest(tree, _all_tests(folder)).returncode:
        sys.exit(f"the tests do not notice that {path.relative_to(tree)} is broken")
    path.write_text(whole, encoding="utf-8")
    return seconds, runners


def _expect_pass(tree: Path, command: str) -> str:
    passed = _pytest(tree, command)
    if passed.returncode:
        sys.exit(f"the tests fail before anything is broken:\n{passed.stdout}")
    return passed.stdout


def _pytest(tree: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run(
        shlex.split(command), cwd=tree, env=environment, capture_output=True, text=True
    )


def _sources(tree: Path, folder: Folder) -> list[Path]:
    return [path for pattern in folder.code for path in sorted(tree.glob(pattern))]


def _sample(made: Path, folder: Folder, count: int, seed: str) -> list[WorkItem]:
    """`count` mutants in a random order that only the seed and the code decide."""
    with closing(WorkDB(made / "session.sqlite", WorkDB.Mode.create)) as database:
        init(_sources(Path(), folder), database, {})
        items = sorted(database.pending_work_items, key=lambda item: _identity(item.mutations[0]))
    random.Random(seed).shuffle(items)
    found: list[WorkItem] = []
    for item in items:
        if len(found) == count:
            break
        mutation = item.mutations[0]
        if not EXCLUDED.fullmatch(mutation.operator_name) and _matters(mutation):
            found.append(item)
    return found


def _identity(mutation: MutationSpec) -> tuple[str, str, int]:
    return str(mutation.module_path), mutation.operator_name, mutation.occurrence


def _matters(mutation: MutationSpec) -> bool:
    """Whether the mutant compiles and is another program; see the module's docstring."""
    code = mutation.module_path.read_text(encoding="utf-8")
    try:
        mutated = mutate_code(code, get_operator(mutation.operator_name)(), mutation.occurrence)
        return mutated is not None and meaning(code) != meaning(mutated)
    except (SyntaxError, AttributeError):
        return False


def meaning(code: str) -> str:
    """The code without what no test could or should notice; see the module's docstring."""
    return ast.dump(_Meaning().visit(ast.parse(code)))


class _Meaning(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults += [each for each in node.kw_defaults if each is not None]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [each for each in node.decorator_list if not _is_dataclass(each)]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        match node.targets:
            case [ast.Name(id=name)] if re.fullmatch(r"_?[A-Z][a-z]\w*", name):
                node.value = ast.Constant(None)
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        text = ast.unparse(node)
        if not re.sub(r"os\.O_\w+|[|+^() ]", "", text):
            return ast.Constant(" ".join(re.findall(r"os\.O_\w+", text)))
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "zip":
            node.keywords = []
        return self.generic_visit(node)


def _is_dataclass(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).startswith("dataclass")


def _test_all(
    test: Callable[..., Outcome], jobs: Sequence[tuple[object, ...]], trees: list[Path]
) -> list[Outcome]:
    with Manager() as manager:
        free: Queue[Path] = manager.Queue()
        for tree in trees:
            free.put(tree)
        # A worker ends its mutant after Ctrl-C, so that no test outlives the copy of the tree.
        with ProcessPoolExecutor(len(trees), initializer=_enter, initargs=(free,)) as workers:
            try:
                futures = [workers.submit(test, *job) for job in jobs]
                done = tqdm(as_completed(futures), total=len(futures), unit=" mutants", leave=False)
                return [_said(future.result()) for future in done]
            except KeyboardInterrupt:
                workers.shutdown(cancel_futures=True)
                raise


def _said(outcome: Outcome) -> Outcome:
    if not outcome.killed:
        tqdm.write(f"passed: {outcome.place}\n{outcome.diff}\n", file=sys.stderr)
    return outcome


def _enter(free: "Queue[Path]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tree = free.get()
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    preload()


def _try_quick(item: WorkItem, quick: Quick) -> Outcome:
    """Test a mutant by the quick tests that run its line."""
    _forget_examples()
    mutation = item.mutations[0]
    operator = get_operator(mutation.operator_name)()
    with use_mutation(mutation.module_path, operator, mutation.occurrence) as (old, new):
        late = quick.notice(PYTEST)
    diff = unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    changed = [line for line in diff if not re.match(r"---|\+\+\+|@@", line)]
    place = f"{mutation.module_path}:{mutation.start_pos[0]}"
    return Outcome(item, place, "\n".join(changed), late is not None, in_time=not late)


def _try_whole(outcome: Outcome, command: str, limit: float) -> Outcome:
    """Test a mutant that they let pass by all tests of its folder."""
    _forget_examples()
    result = mutate_and_test(outcome.item.mutations, command, limit)
    if result.test_outcome is None or result.test_outcome is TestOutcome.INCOMPETENT:
        raise RuntimeError(f"{outcome.place}: {result.worker_outcome}\n{result.output}")
    killed = result.test_outcome is TestOutcome.KILLED
    return replace(outcome, killed=killed, in_time=result.output != "timeout")


def _forget_examples() -> None:
    """Examples that Hypothesis noted for another mutant decide nothing about this one."""
    shutil.rmtree(".hypothesis", ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
