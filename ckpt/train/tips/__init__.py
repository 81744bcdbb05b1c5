"""The five tips of docs/tips.md for other people's loops and models; importable without torch."""
