"""What is asked of a run beside its recipe: where weights and states go. No torch."""

from dataclasses import dataclass, fields, replace
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where a run's weights and states go; None where nothing was asked for.

    Attributes:
        out: File for the weights.
        registers: Whether they become the next version of a model.
        name: Of that model.
        message: Of that version.
        save_minutes: Interval between two state files.
        keeps_state: Whether the state file stays when the run is done.
    """

    out: Path | None = None
    registers: bool | None = None
    name: str | None = None
    message: str | None = None
    save_minutes: float | None = None
    keeps_state: bool | None = None

    def or_else(self, other: "Outputs") -> "Outputs":
        """These, and those of `other` where nothing was asked for."""
        asked = {it.name: getattr(self, it.name) for it in fields(self)}
        return replace(other, **{name: it for name, it in asked.items() if it is not None})
