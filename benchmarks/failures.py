"""What is kept of a measurement that failed, so that the others can go on."""

import traceback


def failure(error: BaseException) -> dict[str, str]:
    """Status, message and traceback, ready for JSON."""
    return {
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
