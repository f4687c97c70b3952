"""What other code in this process has set in PyTorch does not reach what is computed here."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def own_torch_state() -> Iterator[None]:
    """Make tensors on the processor unless told otherwise, and compute in the precision that was asked for.

    `torch.set_default_device` and a surrounding `torch.autocast` would change both. Serves as a decorator too, and
    imports PyTorch only when it is entered.
    """
    import torch

    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
