"""How results look: as text for people, and as data for `--json`. Decides nothing."""
