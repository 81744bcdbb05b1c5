"""The registry of one folder: its index, the history of that, and the store of its versions."""
