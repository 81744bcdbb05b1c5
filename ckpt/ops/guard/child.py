"""A process that also proves drafts of the guard: `python -P -m ckpt.ops.guard.child`.

It builds the class as it is now, as `ckpt.migrate.child` does; the old class of a proof runs in a
process of its own below it.
"""

import sys
from ast import literal_eval
from typing import Any

from ckpt.definitions import Definition
from ckpt.errors import CkptError, PlanError
from ckpt.migrate.child import Request, main
from ckpt.ops.migrate.new import new_migration


def _prove(_definition: Definition, request: Request) -> dict[str, Any]:
    """How the rules of a draft are checked by running both classes, or that the classes differ."""
    try:
        made = new_migration(
            request["definition"],
            request["old"],
            request["rules"],
            arguments=literal_eval(request["arguments"]),
            seconds=request["old_seconds"],
            dry_run=True,
        )
    except PlanError as error:
        return {"differs": str(error)}
    except CkptError:  # it cannot be run: keys and shapes are all that is known
        return {"how": "fitted"}
    return {"how": made.migration.checked.how}


if __name__ == "__main__":
    main(sys.argv[1:], {"prove": _prove})
