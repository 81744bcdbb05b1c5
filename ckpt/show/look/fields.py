"""Results as JSON: which attributes, under which names."""

from operator import attrgetter
from typing import Any


def fields(value: object, *names: str) -> dict[str, Any]:
    """Attributes for JSON, in this order; ``state=kind`` gives `kind` the name ``state``."""
    return {name.partition("=")[0]: attrgetter(name.rpartition("=")[2])(value) for name in names}
