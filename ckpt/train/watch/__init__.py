"""The events of a run, and the callbacks that write them to files."""
