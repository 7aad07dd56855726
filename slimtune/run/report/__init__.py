"""`report.html`: a run on one page, rendered from its folder alone.

The page needs no script and asks for nothing from outside: styles and charts are inside, and a content security
policy forbids the rest. Every text of the run is escaped. A part that is missing is said to be missing.
"""

from slimtune.run.report.page import FILE_NAME, render, write

__all__ = ["FILE_NAME", "render", "write"]
