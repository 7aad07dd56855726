"""What is expected among the findings of an inspection."""

from slimtune.core.findings import render


def has(findings, level, *texts):
    """Exactly one finding has this level and all these texts, in what it says or in its fix."""
    found = [one for one in findings if one.level == level and all(text in f"{one.what}\n{one.fix}" for text in texts)]
    assert len(found) == 1, render(findings)
    return found[0]


def levels(findings):
    return {one.level for one in findings}
