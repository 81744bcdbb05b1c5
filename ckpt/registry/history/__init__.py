"""The history of an index on this machine, and the index rebuilt from it."""
