"""Memory: how much there is, and the micro-batches that fit into it."""
