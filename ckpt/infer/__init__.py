"""The mapping between two state_dicts, found from names, shapes and, where known, digests."""
