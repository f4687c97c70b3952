"""How many threads a computation may take."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited_threads(n: int, *, torch: bool) -> Iterator[None]:
    """Compute with n threads of linear algebra, whatever the environment or an earlier caller has set.

    PyTorch brings a linear algebra of its own, which threadpoolctl cannot see: once `torch.set_num_threads` was called
    in a process, only `torch.set_num_threads` limits it again.

    Parameters
    ----------
    n
        Number of threads.
    torch
        Whether what runs here imports PyTorch itself; where it was imported before, it is limited anyway.
    """
    from threadpoolctl import threadpool_limits

    if not torch and "torch" not in sys.modules:
        with threadpool_limits(n):
            yield
        return
    import torch as engine

    before = engine.get_num_threads()
    engine.set_num_threads(n)
    try:
        with threadpool_limits(n):
            yield
    finally:
        engine.set_num_threads(before)
