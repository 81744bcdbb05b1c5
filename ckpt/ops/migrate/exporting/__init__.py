"""Migrations as Python for those who have no ckpt: the parts of `ckpt migrate export`."""
