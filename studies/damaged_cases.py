"""One damaged input for one reader: what may come of it, and within which limits."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HARMLESS, UNSEEN, SILENT = "harmless", "no checksum", "silent"
REFUSED, CRASH = "refused", "crash"
OUTCOMES = (REFUSED, HARMLESS, UNSEEN, CRASH, SILENT)
"""What may come of an input: see `damaged_inputs`."""
SECONDS = 5.0
MEMORY = 10**9
"""Seconds and bytes that no input may cost."""


class Case(NamedTuple):
    """A damaged input and its reader.

    Attributes
    ----------
    damage : str
        What was done to a sound one.
    attempt : callable
        Reads it, and gives one of `HARMLESS`, `UNSEEN` and `SILENT` if it is accepted.
    errors : tuple of exception classes
        By which the reader may refuse it, saying why.
    named : str
        What an error must name, such as the file; nothing by default.
    shown : str
        The input, for people who look into a crash.
    """

    damage: str
    attempt: Callable[[], str]
    errors: tuple[type[BaseException], ...] = (ValueError,)
    named: str = ""
    shown: str = ""


class TooLong(BaseException):
    """Reading took too long; no `except Exception` of a reader holds it up."""


def outcome(case: Case, seconds: float = SECONDS, memory: int = MEMORY) -> tuple[str, str]:
    """What comes of a case, and of a crash or a silent acceptance what is known of it."""
    try:
        with warnings.catch_warnings(), limited(seconds, memory):
            warnings.simplefilter("ignore")
            found = case.attempt()
        return found, case.shown if found == SILENT else ""
    except case.errors as error:
        if out_of_memory(error):
            return CRASH, f"asked for much memory: {told(error)}; {case.shown}"
        text = str(error)
        if not text.strip() or case.named not in text:
            return CRASH, f"does not say what is wrong: {told(error)}; {case.shown}"
        return REFUSED, ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return CRASH, f"{told(error)}; {case.shown}"


def told(error: BaseException) -> str:
    """Kind and message of an error in one line, without the folders of this machine."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"/[^\s:'\"]*/", "", line)[:200]


def out_of_memory(error: BaseException | None) -> bool:
    """Whether a refusal only came about because memory is limited here."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def limited(seconds: float, memory: int) -> Iterator[None]:
    """Let what is inside take no more time, and on Linux no more memory beyond what there is."""

    def stop(*_: Any) -> None:
        raise TooLong(f"more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with _memory_limited(memory):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory_limited(more: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + more
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def short(value: Any, most: int = 120) -> str:
    """The beginning of what a value is written as."""
    with contextlib.suppress(ValueError):  # of integers too long to be written
        text = repr(value)
        return text if len(text) <= most else f"{text[:most]}…"
    return f"a long {type(value).__name__}"
