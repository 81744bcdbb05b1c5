"""Paths of modules, which follow the keys of their tensors."""

from collections.abc import Mapping


def moved_modules(modules: list[str], new_keys: Mapping[str, str]) -> dict[str, str]:
    """The new path of each module: that of its tensors if they stay together, and unique."""
    targets = _moved_modules(new_keys)
    landed = {module: targets.get(module, module) for module in modules}
    while True:
        takers: dict[str, str] = {}
        for module, target in sorted(landed.items(), key=lambda pair: pair[0] != pair[1]):
            takers.setdefault(target, module)
        losers = [module for module, target in landed.items() if takers[target] != module]
        if not losers:
            return landed
        landed |= {module: module for module in losers}


def _moved_modules(new_keys: Mapping[str, str]) -> dict[str, str]:
    """Module path to new module path, for modules whose tensors all moved to one place.

    A module with tensors of its own follows them, whatever their new last part; one with
    modules only moves if all of them move together and keep their names.
    """
    own: dict[str, set[str | None]] = {}
    around: dict[str, set[str | None]] = {}
    for old, new in new_keys.items():
        module, target = old.rpartition(".")[0], new.rpartition(".")[0]
        own.setdefault(module, set()).add(target)
        outer: str | None = target
        while module:
            module, _, name = module.rpartition(".")
            if outer is not None:
                outer, _, new_name = outer.rpartition(".")
                outer = outer if name == new_name else None
            around.setdefault(module, set()).add(outer)
    return {
        module: target
        for module, (target, *others) in (around | own).items()
        if target is not None and not others
    }
