"""`ckpt completion`: scripts by which a shell completes commands, options, refs and files."""

import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    shell_complete,
    split_arg_string,
)
from click.shell_completion import add_completion_class as replace_class
from click.shell_completion import get_completion_class as class_of

from ckpt.cli.options import Session, ckpt_command

ASKED = "_CKPT_COMPLETE"  # the variable by which a script asks
_SHELLS = ("bash", "zsh", "fish")
_BASH = """\
%(complete_func)s() {
    local item
    COMPREPLY=()
    while IFS= read -r item; do
        case "$item" in
            plain,*) printf -v item %%q "${item#*,}"; COMPREPLY+=("$item") ;;
            file,*) compopt -o default ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@replace_class
class _Bash(BashComplete):
    """bash ends a word at ``:`` and ``@``, and replaces what follows; a ref has both.

    So the words come from the line, and the answers begin where bash's last word does.
    """

    source_template = _BASH

    def source(self) -> str:
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        return (words, "") if line[-1:].isspace() else (words[:-1], words[-1] if words else "")

    def format_completion(self, item: "CompletionItem") -> str:
        typed = self.get_completion_args()[1]
        breaks = [mark for mark in ":=@" if mark in os.environ.get("COMP_WORDBREAKS", "")]
        # The mark of a host, @, is part of the word that it begins.
        ends = (typed.rfind(mark) + (mark != "@") for mark in breaks)
        return f"{item.type},{item.value[max([0, *ends]) :]}"


@ckpt_command(
    examples="""\
source <(ckpt completion bash)                                # in ~/.bashrc
source <(ckpt completion zsh)                                 # in ~/.zshrc, after compinit
ckpt completion fish > ~/.config/fish/completions/ckpt.fish"""
)
@click.argument("shell", type=click.Choice(_SHELLS))
def command(session: Session, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, refs, keys and files."""
    group = click.get_current_context().find_root().command
    made = class_of(shell)
    assert made is not None
    script = made(group, {}, "ckpt", ASKED).source()
    session.show(
        script,
        lambda text: text.rstrip(),
        lambda text: {"shell": shell, "script": text},
        verbatim=True,
    )


def complete(group: click.Command, instruction: str) -> int:
    """Answer a script; ``bash_complete`` and the like."""
    return shell_complete(group, {}, "ckpt", ASKED, instruction)
