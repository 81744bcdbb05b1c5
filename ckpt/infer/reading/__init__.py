"""How the keys and shapes of two sides are read before they are compared."""
