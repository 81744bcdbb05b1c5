"""Several copies of the target in one file are reported, with what to type."""

import shlex
from pathlib import Path

import pytest
import torch

import ckpt
from ckpt.infer.find_rules import find_rules
from ckpt.infer.result import COPIES
from ckpt.rules.choice import drop
from ckpt.rules.document import typed

State = dict[str, torch.Tensor]


def network() -> State:
    return {f"{name}.{end}": torch.randn(*shape) for name in ("fc1", "fc2")
            for end, shape in (("weight", (4, 4)), ("bias", (4,)))}  # fmt: skip


def under(prefix: str, state: State) -> State:
    return {f"{prefix}.{key}": value for key, value in state.items()}


FILES = {
    "teacher": ("model._orig_mod", "teacher"),
    "moving average": ("net", "ema.module"),
    "three": ("student", "teacher", "ema"),
}


@pytest.mark.parametrize("prefixes", FILES.values(), ids=FILES)
def test_two_copies_are_one_question_and_one_rule_answers_it(
    prefixes: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    copies = [network() for _ in prefixes]
    old = {"step": torch.tensor(3)}
    for prefix, copy in zip(prefixes, copies, strict=True):
        old |= under(prefix, copy)
    torch.save(old, tmp_path / "old.pt")
    torch.save(network(), tmp_path / "new.pt")
    found = find_rules(tmp_path / "old.pt", tmp_path / "new.pt")
    (question,) = found.questions
    assert question.first.evidence == f"{COPIES}: {', '.join(prefixes)}"
    assert question.rule is not None
    _, pattern = shlex.split(typed(question.rule) or "")
    made = tmp_path / "made.pt"
    ckpt.rename(tmp_path / "old.pt", [drop(pattern)], to=tmp_path / "new.pt", out=made)
    result = torch.load(made)
    assert all(torch.equal(result[key], copies[0][key]) for key in copies[0])


def test_copies_under_other_names_than_the_target_s(tmp_path: Path) -> None:
    old = under("student", network()) | under("teacher", network())
    torch.save(old, tmp_path / "old.pt")
    torch.save({k.replace("fc", "linear"): v for k, v in network().items()}, tmp_path / "new.pt")
    found = find_rules(tmp_path / "old.pt", tmp_path / "new.pt")
    assert found.inference.copies == ("student", "teacher")


def test_target_with_both_copies_asks_nothing(tmp_path: Path) -> None:
    both = under("a", network()) | under("b", network())
    torch.save(under("module", both), tmp_path / "old.pt")
    torch.save(both, tmp_path / "new.pt")
    found = find_rules(tmp_path / "old.pt", tmp_path / "new.pt")
    assert found.inference.copies == ()
    assert found.inference.settled


def test_bytes_tell_which_copy_is_meant(tmp_path: Path) -> None:
    wanted = network()
    torch.save(under("student", network()) | under("teacher", wanted), tmp_path / "old.pt")
    torch.save(wanted, tmp_path / "new.pt")
    found = find_rules(tmp_path / "old.pt", tmp_path / "new.pt")
    assert found.inference.copies == ()
    assert {m.source for m in found.inference.matches} == {f"teacher.{key}" for key in wanted}
