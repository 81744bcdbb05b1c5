"""Registries and checkpoints elsewhere: buckets, hubs, folders and hosts."""
