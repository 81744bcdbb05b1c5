"""Match the tensors of two sides, as trees of modules."""
