"""The data by which a page compares two versions: the same that `ckpt diff` compares."""

import json
from typing import Any

from ckpt.io.documents.strict_json import plain
from ckpt.ops.site import Described


def version_script(found: Described) -> str:
    """A script that hands the data of a version to `script.js`."""
    text = json.dumps(plain(version_data(found)), separators=(",", ":"), allow_nan=False)
    return f"ckptVersion({text});\n"


def version_data(found: Described) -> dict[str, Any]:
    """Entries as [key, dtype, shape, digest], ties, side files, facts and metrics as pairs."""
    version, shown = found.origin.version, found.shown
    return {
        "ref": version.ref,
        "label": version.label,
        "inside": found.inside,
        "entries": [[e.key, e.dtype, list(e.shape), _short(e.digest)] for e in found.entries],
        "ties": [*shown.ties.items()],
        "files": [[file.name, _short(file.digest)] for file in shown.side_files],
        "made": [*found.made.items()],
        "held": [*found.held.items()],
        "metrics": [*version.metrics.items()],
    }


def _short(digest: str | None) -> str | None:
    return None if digest is None else digest.removeprefix("sha256:")
