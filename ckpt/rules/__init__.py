"""Rename rules and the plan that they make. Pure functions over strings."""
