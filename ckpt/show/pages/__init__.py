"""Pages of HTML, made from the templates in this folder.

Laws: no text of a registry or a file acts as markup; a page runs and loads nothing but our own
script and style, and its Content-Security-Policy says so. A page alone has both in itself, allowed
by their digests; the pages of a site share two files.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt.show.look.words import count, metric, printable, shape, size

if TYPE_CHECKING:
    from jinja2 import Environment

ASSETS = ("style.css", "script.js")
_FOLDER = Path(__file__).parent / "templates"
_POLICY = (
    "default-src 'none'; style-src {style}; script-src {script}; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)


def site_page(template: str, /, *, root: str, **values: Any) -> str:
    """A page of a site.

    Args:
        template: Its name.
        root: The relative way to the site's folder, ``../../``; empty in the folder itself.
        values: What the template shows.
    """
    policy = _POLICY.format(style="'self'", script="'self'")
    page = _environment().get_template(template)
    return page.render(policy=policy, root=root, alone=False, **values)


def page_alone(template: str, /, **values: Any) -> str:
    """A page that is one file."""
    style, script = map(asset, ASSETS)
    policy = _POLICY.format(style=_allowed(style), script=_allowed(script))
    page = _environment().get_template(template)
    return page.render(policy=policy, style=style, script=script, root="", alone=True, **values)


@cache
def asset(name: str) -> str:
    """The text of one of `ASSETS`."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def _allowed(text: str) -> str:
    """How a policy names an element of this text (CSP Level 3, hash-source)."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest())
    return f"'sha256-{digest.decode('ascii')}'"


@cache
def _environment() -> "Environment":
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"size": size, "shape": shape, "counted": count}
    found.filters["metric"] = lambda value, name: metric(name, value)
    found.filters["parted"] = _parted
    return found


def _parted(notes: Sequence[str]) -> list[tuple[str, str]]:
    """The text and the command of each note."""
    parts = (note.strip().partition("  ckpt ") for note in notes if note.strip())
    return [(text.strip(), f"ckpt {command}" if mark else "") for text, mark, command in parts]


def _printable(value: Any) -> Any:
    """What a template shows: markup as it is, any other text without controls."""
    return printable(value) if type(value) is str else value
