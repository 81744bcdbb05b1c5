"""An inferred mapping as few readable rules."""
