"""Recipes: the settings of a run, and the files that name them."""
