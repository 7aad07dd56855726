"""Several requests under way at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Given = TypeVar("_Given")
_Got = TypeVar("_Got")


def in_threads(
    ask: Callable[[_Given], _Got], given: Iterable[_Given], count: int, *, interrupt: Callable[[], None]
) -> list[_Got]:
    """`ask` of each, `count` at a time, in the order of `given`; the first one's exception where any fail.

    interrupt: called on Ctrl-C to end the requests that the threads wait for.
    """
    pool = ThreadPoolExecutor(count)
    try:
        return list(pool.map(ask, given))
    except KeyboardInterrupt:
        interrupt()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
