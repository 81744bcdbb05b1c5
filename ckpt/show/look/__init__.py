"""How text looks: tables, folding, words, progress, the terminal, pages."""
