"""What differs between two state_dicts: keys, modules that moved, values."""
