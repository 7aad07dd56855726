"""Passages that may answer a question, found in a corpus."""
