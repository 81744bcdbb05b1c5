"""The registry of one folder: its index, what was done to it, and the store of its versions."""
