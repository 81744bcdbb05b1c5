"""Prove that a plan is right: run the old and the new model on the same input, and compare.

Law: a tensor is called proved only if it had influence on outputs that agree. torch runs the
user's own code here; nothing is written.
"""
