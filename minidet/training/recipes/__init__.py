"""How each of the systems is trained: one recipe a file."""
