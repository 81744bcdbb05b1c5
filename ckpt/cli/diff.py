"""`ckpt diff`."""

from math import inf
from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, arg_option, ckpt_command
from ckpt.cli.options.completed import REF
from ckpt.io.files import write_whole
from ckpt.ops.diff import READ_UNASKED_BYTES, RefDiff, diff
from ckpt.show.diff import diff_data, diff_text
from ckpt.show.look.progress import progress_bar
from ckpt.show.look.words import printable


@ckpt_command(
    examples="ckpt diff v1 v2\nckpt diff old.pt models/mnist_embed.py:Net\n"
    "ckpt diff v1 new.safetensors --exit-code\nckpt diff a.pt b.pt --tolerance 1e-6\n"
    "ckpt diff prod v3 --format html -o changes.html\n"
    "ckpt diff hf://org/repo@v1.0 hf://org/repo",
    reads=True,
)
@click.argument("before", type=REF, metavar="A")
@click.argument("after", type=REF, metavar="B")
@click.option(
    "--values/--keys",
    default=None,
    help="Measure how far apart changed values are, or compare only the headers of files. "
    "By default, bytes are compared if that takes little reading (256 MB). Versions are compared "
    "by digest, at no cost.",
)
@click.option(
    "--map",
    "as_map",
    is_flag=True,
    help="Infer which key of A becomes which key of B, how sure that is, and the rename rules.",
)
@click.option("--stat", is_flag=True, help="Count changed keys by module instead of listing them.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown", "html"]),
    default="text",
    help="markdown suits a pull request; html is one self-contained page.",
)
@click.option("-o", "--out", type=PATH, help="Write markdown or html to this file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "--records",
    is_flag=True,
    help="Also show how the records differ (training, metrics, data, environment), and what files "
    "hold besides tensors.",
)
@click.option(
    "--tolerance",
    type=float,
    metavar="T",
    help="Treat tensors as equal if no element differs by more than T; implies --values.",
)
@click.option(
    "--all",
    "all_values",
    is_flag=True,
    help="List all changed tensors, not only the 20 largest changes; implies --values.",
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
    out: Path | None,
    force: bool,
    records: bool,
    tolerance: float | None,
    all_values: bool,
    exit_code: bool,
    arguments: dict[str, object],
) -> None:
    """Compare two versions, files or definitions.

    Lists keys that were added, removed, renamed (the same bytes under another key), reshaped,
    re-typed or changed. If one side is a definition: says whether the other fits it, strictly.
    Of files elsewhere (https://, hf://, s3://) only the headers are read, unless --values.
    """
    if tolerance is not None or all_values:
        if values is False:
            raise click.UsageError("--keys reads no values; --tolerance and --all need them")
        values = True
    if out is not None and form not in ("markdown", "html"):
        raise click.UsageError("-o writes --format markdown or --format html")
    if as_map:
        _show_map(session, before, after, arguments)
        return
    with progress_bar(session.terminal, "comparing") as told:
        found = diff(
            before,
            after,
            registry=session.registry,
            values=values,
            tolerance=tolerance,
            unasked=inf if exit_code else READ_UNASKED_BYTES,
            arguments=arguments,
            told=told,
        )
    session.remark_on_shards(before, after)
    chosen = {"stat": stat, "records": records, "all_values": all_values}
    _show(session, found, "json" if session.as_json else form, chosen, out, replace=force)
    if exit_code and found.differs:
        click.get_current_context().exit(1)


def _show(
    session: Session,
    found: RefDiff,
    form: str,
    chosen: dict[str, bool],
    out: Path | None,
    *,
    replace: bool,
) -> None:
    terminal = session.terminal
    match form:
        case "json":
            terminal.data(diff_data(found))
            return
        case "text":
            width, colour = terminal.width, terminal.coloured
            terminal.result(diff_text(found, width=width, colour=colour, **chosen))
            return
    from ckpt.show.diff.page import diff_page
    from ckpt.show.diff.report import diff_report
    from ckpt.show.look.markdown import markdown

    report = diff_report(found, **chosen)
    text = markdown(report) if form == "markdown" else diff_page(report)
    if out is None:
        terminal.result(text, verbatim=True)
        return
    with write_whole(out, replace=replace) as file:
        file.write(f"{text}\n".encode())
    terminal.result(f"wrote {printable(str(out))}")


def _show_map(session: Session, before: str, after: str, arguments: dict[str, object]) -> None:
    from ckpt.infer.find_rules import find_rules
    from ckpt.show.diff.mapping import found_data, found_text

    with progress_bar(session.terminal, "comparing") as told:
        found = find_rules(before, after, registry=session.registry, arguments=arguments, told=told)
    session.show(found, found_text, found_data)
