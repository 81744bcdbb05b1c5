"""Checkpoints elsewhere, read by ranges: only the bytes that are needed come here."""
