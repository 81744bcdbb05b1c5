"""Datasets, and the samples of a run in their order."""
