"""How two state_dicts differ: in keys, modules that moved, and values."""
