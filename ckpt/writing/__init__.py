"""Checkpoints written to disk: copied, or computed while they are written."""
