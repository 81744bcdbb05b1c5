"""`ckpt site`."""

import webbrowser
from pathlib import Path

import click

from ckpt.cli.options import PATH, Session, ckpt_command
from ckpt.ops.site import site
from ckpt.ops.site.folder import write_site
from ckpt.show.look.words import printable
from ckpt.show.site import site_data, site_files, site_text


@ckpt_command(examples="ckpt site -o public --open\nckpt site -o public --registry team")
@click.option(
    "-o",
    "--out",
    required=True,
    type=PATH,
    help="The folder to write: a new one, or the site of an earlier run, which is replaced.",
)
@click.option("--open", "opens", is_flag=True, help="Open the first page in a browser.")
def command(session: Session, out: Path, opens: bool) -> None:
    """Write the registry as web pages that need no server.

    The pages list all models and versions, with search, sorting and filters. A version has a page
    with its metrics, changes, curves, lineage, history, tensors and record; any two versions of a
    model can be compared. Tensor values are not read.
    """
    found = site(registry=session.registry)
    written = write_site(site_files(found), out, rights=found.rights)
    session.show(written, lambda it: site_text(it, found), lambda it: site_data(it, found))
    if opens and not webbrowser.open(written.start.resolve().as_uri()):
        session.terminal.remark(f"no browser found; open {printable(str(written.start))}")
