"""Plans of keys alone."""

from collections.abc import Iterable, Sequence

from ckpt.rules.plan import Plan, plan_tensors
from ckpt.rules.planned import Rule
from ckpt.tensors import TensorEntry


def plan_renames(keys: Iterable[str], rules: Sequence[Rule]) -> Plan:
    return plan_tensors([TensorEntry(key, "uint8", ()) for key in keys], rules)
