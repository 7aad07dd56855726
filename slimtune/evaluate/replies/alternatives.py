"""Word lists as regular expressions."""


def one_of(*words: str) -> str:
    """A group of alternatives, given with spaces between them; "_" stands for a space within one."""
    return f"(?:{'|'.join(' '.join(words).split())})".replace("_", r"\x20")
