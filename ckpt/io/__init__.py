"""Bytes on disk: files, sources of bytes, locks, digests. Knows no tensors."""
