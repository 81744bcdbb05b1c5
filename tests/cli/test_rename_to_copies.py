"""`ckpt rename --to`, from a file that has the target twice."""

import torch

from tests.cli.conftest import Run


def network(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}fc{n}.{end}": torch.randn(*shape) for n in (1, 2)
            for end, shape in (("weight", (4, 4)), ("bias", (4,)))}  # fmt: skip


def test_copies_are_reported_with_what_to_type(ckpt: Run) -> None:
    torch.save(network("student.") | network("teacher."), "old.pt")
    torch.save(network(""), "new.pt")
    ran = ckpt("rename", "old.pt", "--to", "new.pt", "-o", "made.pt")
    assert ran.code == 3
    assert "old.pt: ambiguous: copies of the target: student, teacher" in ran.err
    assert "--drop '^(teacher)([.]|$)'" in ran.err
    ran = ckpt("rename", "old.pt", "--to", "new.pt", "--drop", "^(teacher)([.]|$)", "-o", "made.pt")
    assert (ran.code, ran.err) == (0, "")
    old, made = torch.load("old.pt"), torch.load("made.pt")
    assert all(torch.equal(made[key], old[f"student.{key}"]) for key in made)


def test_diff_reports_the_copies(ckpt: Run) -> None:
    torch.save(network("student.") | network("teacher."), "old.pt")
    torch.save(network(""), "new.pt")
    ran = ckpt("diff", "old.pt", "new.pt", "--map")
    assert "copies of the target: student, teacher" in ran.out
