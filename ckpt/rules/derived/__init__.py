"""Expressions that follow from others: their inverse, simpler ones, those over other tensors."""
