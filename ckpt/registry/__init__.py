"""The registry's index and the refs by which people name what is in it."""
