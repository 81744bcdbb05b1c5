"""`ckpt diff`."""

from math import inf

import click

from ckpt.cli.options import Session, arg_option
from ckpt.cli.options import command as ckpt_command
from ckpt.ops.diff import READ_UNASKED_BYTES, diff
from ckpt.show.diff import comparison_data, comparison_report, comparison_text
from ckpt.show.look.pages import markdown, page
from ckpt.show.look.terminal import coloured


@ckpt_command(
    examples="ckpt diff v1 v2\nckpt diff old.pt models/mnist_embed.py:Net\n"
    "ckpt diff v1 new.safetensors --exit-code\nckpt diff a.pt b.pt --tolerance 1e-6"
)
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--values/--keys",
    default=None,
    help="Say how far changed values are apart, or read the headers of files alone. Without "
    "either, bytes are compared where that is little (256 MB). Versions are compared by digest at "
    "no cost.",
)
@click.option(
    "--map",
    "as_map",
    is_flag=True,
    help="Find out which key of A becomes which of B, how sure that is, and the rules for it.",
)
@click.option("--stat", is_flag=True, help="Show numbers by module in place of keys.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "html"]),
    default="text",
    help="Markdown for a pull request, or one page of HTML that needs nothing else.",
)
@click.option(
    "--records",
    is_flag=True,
    help="Show as well what is recorded differently: training, metrics, data, environment, and "
    "what files hold besides tensors.",
)
@click.option(
    "--tolerance",
    type=float,
    metavar="T",
    help="Tensors no number of which moved by more than T are not held to differ; as --values.",
)
@click.option(
    "--all", "all_values", is_flag=True, help="List all changed tensors, not only 20; as --values."
)
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 1 if anything differs; compares all bytes unless --keys.",
)
@arg_option
def command(
    session: Session,
    before: str,
    after: str,
    values: bool | None,
    as_map: bool,
    stat: bool,
    form: str,
    records: bool,
    tolerance: float | None,
    all_values: bool,
    exit_code: bool,
    arguments: dict[str, object],
) -> None:
    """Show what differs from A to B: two versions, files or definitions.

    Keys added, removed, renamed (the same bytes under another key), reshaped, re-typed and
    changed. With a definition on one side: whether the other fits it, strictly.
    """
    if tolerance is not None or all_values:
        if values is False:
            raise click.UsageError("--keys reads no values, which --tolerance and --all need")
        values = True
    if as_map:
        _show_map(session, before, after, arguments)
        return
    with session.progress("comparing") as told:
        comparison = diff(
            before,
            after,
            registry=session.registry,
            values=values,
            tolerance=tolerance,
            unasked=inf if exit_code else READ_UNASKED_BYTES,
            arguments=arguments,
            told=told,
        )
    chosen = {"stat": stat, "records": records, "all_values": all_values}
    if form == "text" or session.as_json:
        colour = coloured(session.terminal.out)
        session.show(
            lambda: comparison_text(
                comparison, width=session.terminal.width, colour=colour, **chosen
            ),
            lambda: comparison_data(comparison),
        )
    else:
        report = comparison_report(comparison, **chosen)
        session.terminal.result(markdown(report) if form == "markdown" else page(report))
    if exit_code and comparison.differs:
        click.get_current_context().exit(1)


def _show_map(session: Session, before: str, after: str, arguments: dict[str, object]) -> None:
    from ckpt.infer.find_rules import find_rules
    from ckpt.show.diff.mapping import found_data, found_text

    with session.progress("comparing") as told:
        found = find_rules(before, after, registry=session.registry, arguments=arguments, told=told)
    session.show(lambda: found_text(found), lambda: found_data(found))
