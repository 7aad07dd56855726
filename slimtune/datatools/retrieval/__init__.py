"""Passages that a question is answered from: reading a corpus of them, and finding the ones that fit a question."""
