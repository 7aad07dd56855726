"""`slimtune new`: a file that somebody has, read, understood, cleaned, divided, and described by a recipe."""
