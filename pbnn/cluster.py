"""Functions run in other processes, of this machine or of a dask cluster that is already there."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import pickle
import random
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pbnn

if TYPE_CHECKING:
    from distributed import Client, Future, WorkerPlugin

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# dask makes glibc give memory back at once; training asks for the same blocks again at every step,
# and would spend half of its time on that.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}

RECOUNT = 1.0
"""Seconds after which the workers are counted again."""

Function = Callable[[Any], Any]


def run_on_cluster(
    function: Function,
    arguments: Mapping[str, Any],
    keep: Callable[[str, Callable[[], Any]], None],
    *,
    workers: int | None = None,
    scheduler: str | os.PathLike[str] | None = None,
) -> None:
    """Call a function with many arguments elsewhere, and hand over each result as it comes.

    Few calls are under way at a time. A call whose process dies is tried again; what has come back
    when an error or an interruption ends the work is still handed over.

    Parameters
    ----------
    function : callable
        Of one argument. It reaches each worker once and must be picklable by cloudpickle.
    arguments : mapping
        By distinct keys.
    keep : callable
        Takes a key and a function that returns the result, or raises what the call raised.
    workers : int, optional
        This many processes of this machine, with one thread each.
    scheduler : str or path, optional
        Else the address of a scheduler, such as ``tcp://host:8786``, or its scheduler file.
    """
    with _connected(min(workers or 0, len(arguments)), scheduler) as client:
        _run_on(client, function, arguments, keep, ours=scheduler is None)


def check_place(workers: int | None, scheduler: str | os.PathLike[str] | None) -> None:
    """Refuse what is no place to run, or two places."""
    if workers is not None and scheduler is not None:
        raise ValueError(f"`workers` must be left out with a `scheduler`, got {workers}.")
    if workers is not None and workers < 1:
        raise ValueError(f"`workers` must be a positive integer, got {workers}.")
    if scheduler is not None and "://" not in str(scheduler) and not Path(scheduler).is_file():
        raise ValueError(
            "`scheduler` must be an address such as tcp://host:8786 or an existing scheduler "
            f"file, got {str(scheduler)!r}."
        )


@contextlib.contextmanager
def _connected(workers: int, scheduler: str | os.PathLike[str] | None) -> Iterator[Client]:
    """A client of the scheduler, or of a cluster of this machine that ends with the client."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError(
            "`workers` and `scheduler` need the package distributed: pip install distributed"
        ) from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(_process_left_as_it_was())
        if scheduler is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            settings = {
                "temporary_directory": folder,
                "distributed.nanny.pre-spawn-environ": dict.fromkeys(THREADS, "1") | KEEP_MEMORY,
            }
            with _interrupted_afterwards(), dask.config.set(settings):
                local = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    # Without a dashboard there is still a server, by default at one fixed port.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    local_directory=folder,
                    memory_limit=0,  # dask would pause a worker for good at a share of the memory
                    silence_logs=logging.CRITICAL,
                )
                stack.enter_context(local)
            where: dict[str, Any] = {"address": local}
        else:
            where = {"address" if "://" in str(scheduler) else "scheduler_file": str(scheduler)}
        yield stack.enter_context(Client(**where, set_as_default=False))


@contextlib.contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    """One thread for the numerics of processes started meanwhile, and no traces of dask in ours."""
    variables, state = dict(os.environ), random.getstate()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        # Starting workers sets variables here, and gathering draws from the global generator.
        for name in set(os.environ) - set(variables):
            del os.environ[name]
        os.environ.update(variables)
        random.setstate(state)


@contextlib.contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Put off Ctrl-C, which nothing could handle halfway, and keep it from processes started."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    caught: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    resource_tracker.ensure_running()  # Its start, with that of a process, would undo the mask.
    # A terminal interrupts all processes; those that inherit the mask leave it to this one.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, usual)
        if caught:
            signal.raise_signal(signal.SIGINT)


def _run_on(
    client: Client,
    function: Function,
    arguments: Mapping[str, Any],
    keep: Callable[[str, Callable[[], Any]], None],
    *,
    ours: bool,
) -> None:
    from distributed import as_completed

    name = f"pbnn-{secrets.token_hex(8)}"
    client.register_plugin(_carrier(function), name)
    waiting, ready = iter(arguments.items()), as_completed(loop=client.loop)
    under_way: dict[Future, str] = {}
    # A call that waits in a worker is blamed with the one that kills it. Yet a cluster that adapts
    # to its work must see some waiting.
    each = 1 if ours else 2

    count, counted = 1, -math.inf

    def threads() -> int:
        """Of all workers together; asked for seldom, as the answer grows with their number."""
        nonlocal count, counted
        if time.monotonic() > counted + RECOUNT:
            count, counted = max(1, sum(client.nthreads().values())), time.monotonic()
        return count

    def submit() -> None:
        room = each * threads() - len(under_way)
        for key, argument in itertools.islice(waiting, max(0, room)):
            call = (_run_there, name, pbnn.__version__, argument)
            future = client.submit(*call, key=f"{name}-{key}", pure=False)
            under_way[future] = key
            ready.add(future)

    try:
        submit()
        for future in ready:
            keep(under_way[future], future.result)
            del under_way[future]
            submit()
    except BaseException:
        for future, key in under_way.items():
            if future.status == "finished":
                with contextlib.suppress(Exception):
                    keep(key, future.result)
        raise
    finally:
        client.cancel(list(under_way))
        client.unregister_worker_plugin(name)


def _run_there(name: str, version: str, argument: Any) -> Any:
    """In a worker: call the function that a plugin has brought there."""
    from distributed import get_worker

    if version != pbnn.__version__:
        raise RuntimeError(f"The worker has pbnn {pbnn.__version__}, the study {version}.")
    carrier: Any = get_worker().plugins[name]
    if carrier.run is None:  # Not in its setup, whose error would be the worker's, not the call's.
        carrier.run = pickle.loads(carrier.pickled)
    return carrier.run(argument)


def _carrier(run: Function) -> WorkerPlugin:
    """What brings `run` to each worker once, also to those that join or start again later."""
    import cloudpickle  # type: ignore[import-untyped]
    from distributed import WorkerPlugin

    class Carrier(WorkerPlugin):
        def __init__(self) -> None:
            self.pickled, self.run = cloudpickle.dumps(run), None

    try:
        return Carrier()
    except (TypeError, pickle.PicklingError) as error:
        raise TypeError(f"`run` must be picklable by cloudpickle: {error}.") from error
