"""Signatures of versions: keys, and what model-signing makes with them."""
