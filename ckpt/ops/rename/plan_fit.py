"""Check whether the result of a plan would fit, before anything is written."""

from ckpt.compare.keys import Pair
from ckpt.errors import FitError
from ckpt.infer.fitting import Ask, Fitting, fitting, unasked
from ckpt.rules.plan import Plan
from ckpt.tensors import StateDict
from ckpt.writing.outcome import outcome

_SHAPES = "of another shape"


def expect_fit(
    state: StateDict, plan: Plan, definition: str, wanted: StateDict, ask: Ask = unasked
) -> Fitting:
    """The fit of the result of a plan with the state_dict `wanted` by a definition.

    Raises:
        FitError: The result would not fit; the hint shows how to make it fit.
    """
    found = fitting(outcome(plan, state), definition, wanted, ask)
    if not found.fit.fits:
        raise _misfit(found, before=fitting(state, definition, wanted, ask))
    return found


def _misfit(found: Fitting, *, before: Fitting) -> FitError:
    missing = [entry.key for entry in found.fit.missing]
    # Inference drops what has no place, such as a key that is there in another shape.
    reshaped = [(a, b) for a, b in before.fit.reshaped if b.key in missing]
    there = {b.key for _, b in reshaped}
    groups = {
        "missing": [key for key in missing if key not in there],
        "unexpected": [entry.key for entry in found.fit.unexpected],
        _SHAPES: list(map(_shapes, (*reshaped, *found.fit.reshaped))),
    }
    parts = [f"{len(keys)} {what} ({_few(keys, what)})" for what, keys in groups.items() if keys]
    parts += found.fit.complaints[:1]
    if before.fit.fits:
        hint = "it already fits, without any rules"
    elif before.options:
        hint = f"this would fit:  {' '.join(before.options)}"
    else:
        hint = _near(groups["unexpected"], groups["missing"])
        hint += f"ckpt diff SRC {found.definition}  shows both sides"
    return FitError(f"the result would not fit {found.definition}: {', '.join(parts)}", hint=hint)


def _shapes(pair: Pair) -> str:
    mine, theirs = (" ".join(map(str, entry.shape)) or "()" for entry in pair)
    return f"{pair[1].key}: {mine}, expected {theirs}"


def _near(unexpected: list[str], missing: list[str]) -> str:
    """The keys that the first unexpected keys resemble, one line each."""
    from difflib import get_close_matches

    found = ((key, get_close_matches(key, missing, n=1)) for key in unexpected[:3])
    return "".join(f"{key}: did you mean {near[0]}?\n" for key, near in found if near)


def _few(texts: list[str], what: str) -> str:
    mark = "; " if what == _SHAPES else ", "
    return mark.join([*texts[:2], *(["…"] if len(texts) > 2 else [])])
