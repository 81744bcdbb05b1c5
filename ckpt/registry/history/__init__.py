"""What was done to an index, and an index rebuilt from that."""
