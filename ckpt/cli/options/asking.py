"""The questions of a mapping that is in part a guess: asked on a terminal, or printed as JSON."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from ckpt.cli.options import Session
from ckpt.errors import PlanError
from ckpt.rules.planned import Rule
from ckpt.show.look.words import printable


def accept_option(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``--accept-ambiguous``; under its former name with a note."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(session: Session, *given: Any, **options: Any) -> Any:
            if options.pop("accept_likely"):
                session.terminal.remark("--accept-likely is called --accept-ambiguous now")
                options["accept_ambiguous"] = True
            return function(session, *given, **options)

        former = click.option("--accept-likely", is_flag=True, hidden=True)
        return click.option("--accept-ambiguous", is_flag=True, help=help_text)(former(run))

    return decorated


def answered(session: Session, error: PlanError) -> Rule | None:
    """The rule that a person chooses for the first question of a mapping.

    None if the error is another one, or nobody can be asked; then the questions are printed as
    JSON.
    """
    from ckpt.infer.questions import answer
    from ckpt.infer.settled import UnsettledError
    from ckpt.show.diff.mapping import asked_lines, question_data

    if not isinstance(error, UnsettledError):
        return None
    found = error.found
    if session.as_json or not sys.stdin.isatty():
        session.terminal.data({"questions": [question_data(it) for it in found.questions]})
        return None
    if not found.questions:
        return None
    question = found.questions[0]
    candidates = question.first.candidates
    click.echo("\n".join(asked_lines(question, len(found.questions))), err=True)
    choices = click.Choice([*map(str, range(1, len(candidates) + 1))])
    guess = str(candidates.index(question.first.target) + 1)
    chosen = click.prompt(printable("which"), type=choices, default=guess, err=True)
    return answer(question, candidates[int(chosen) - 1])
