"""Which device, which precision, and how much memory is free: the three things that "auto" has to know."""

import contextlib
import os
import platform
from pathlib import Path

import psutil
import torch

from braincorl.errors import InputError
from braincorl.validation import spell_precision

_PROCESS = os.getpid()


def mind_forks() -> None:
    """Compute with one thread in a forked child: the pool of PyTorch's threads does not survive a fork, and hangs."""
    if os.getpid() != _PROCESS and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto" into the fastest device there is, and refuse one that is absent.

    Parameters
    ----------
    device
        "auto" (a GPU if there is one, else the processor), or a name that PyTorch knows, such as "cpu" or "cuda:1".

    Raises
    ------
    InputError
        If the name is unknown or the device is not there.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f'device {device!r} cannot be used ({reason}): pass "auto" or "cpu".') from error
    if resolved.type == "meta":
        raise InputError('device "meta" computes nothing: pass "auto" or "cpu".')
    return resolved


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Turn "auto" into bfloat16 where the device multiplies it natively, else into float32.

    Parameters
    ----------
    precision
        "auto", "float32", "bfloat16" (or "bf16"), or "float64".
    device
        Where the products will run.

    Raises
    ------
    InputError
        If the precision is unknown.
    """
    name = spell_precision(precision)
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has matrix units for bfloat16: a processor with AMX, or a GPU from Ampere on."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0) if torch.version.cuda else True
    if device.type != "cpu" or not torch.backends.mkldnn.enabled or platform.system() != "Linux":
        return False
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return "amx_bf16" in line.split()
    return False


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device, as far as the machine tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [psutil.virtual_memory().available, _cgroup_headroom(), _address_space_headroom()]
    return max(0, min(limit for limit in limits if limit is not None))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed; PyTorch has several ways to say so."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    signs = ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc", "could not create a memory")
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)


def _cgroup_headroom() -> int | None:
    """Bytes left under the memory limit of the container or job, if it has one."""
    root = Path("/sys/fs/cgroup")
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    leaf = root / own.lstrip("/")
    headrooms = [_read_headroom(group) for group in (leaf, *leaf.parents) if group == root or root in group.parents]
    return min((headroom for headroom in headrooms if headroom is not None), default=None)


def _read_headroom(group: Path) -> int | None:
    try:
        limit = int((group / "memory.max").read_text())  # the word "max" stands for no limit
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return limit - used + int(statistics.get("inactive_file", 0))  # cached file pages make way when memory is asked for


def _address_space_headroom() -> int | None:
    """Bytes left under `ulimit -v`, if it is set."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms
