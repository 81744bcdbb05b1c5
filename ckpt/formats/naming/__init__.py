"""Names of tensors and modules outside of the keys, and how they follow a rename."""
