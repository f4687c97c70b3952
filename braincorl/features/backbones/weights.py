"""Where a network's weights are: a local file, the download caches, or, if allowed, the network.

Weights are found first and loaded afterwards from a local file, so that every path goes through the same strict
loader. Files are opened with `weights_only`, which runs no code from them.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from braincorl.errors import FileFormatError, InputError
from braincorl.features.backbones import lite
from braincorl.storage.files import one_line
from braincorl.storage.named_files import check_reachable, is_offline

if TYPE_CHECKING:
    import torch

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Published:
    """Where published weights are to be had.

    Attributes
    ----------
    name
        Of the network and tag, for messages.
    repository
        On the Hugging Face Hub; empty if there is none.
    files
        Names that the weights may have there, preferred first.
    url
        Direct address; empty if there is none.
    """

    name: str
    repository: str
    files: Sequence[str]
    url: str = ""


def local_weights(path: str | Path) -> Path:
    """Check a local weights file, or find the one in a folder.

    Parameters
    ----------
    path
        A file, or a folder that holds exactly one `.safetensors` file, or else exactly one `.pt`, `.pth` or `.bin`.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is none, or the choice is not clear.
    """
    path = Path(os.path.expanduser(path))  # noqa: PTH111  (the method fails where a user has no home)
    if path.is_dir():
        for suffixes in (WEIGHT_SUFFIXES[:1], WEIGHT_SUFFIXES[1:]):
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(f"{path} holds {len(found)} weights files, such as {found[0].name}: name one of them.")
        raise InputError(f"{path} holds no weights file ({', '.join(WEIGHT_SUFFIXES)}).")
    if not path.is_file():
        raise InputError(f"weights were looked for at {path}, but there is no such file: check the path.")
    if path.suffix.lower() not in WEIGHT_SUFFIXES:
        raise InputError(f"{path} must be a weights file that ends in one of {', '.join(WEIGHT_SUFFIXES)}.")
    return path


def find_published(source: Published, offline: bool | None = None) -> Path:
    """Find published weights in the caches, or download them if that is allowed.

    Parameters
    ----------
    source
        Where they are to be had.
    offline
        Never use the network; by default as the environment says.

    Returns
    -------
    Path
        A local file.

    Raises
    ------
    InputError
        If they are not there and cannot be had; says where they were looked for and how to get them.
    """
    cached = _in_hub_cache(source) or next((path for path in _url_cache_places(source) if path.is_file()), None)
    if cached is not None:
        return cached
    if is_offline(offline):
        raise InputError(_not_there(source, "and downloads are off"))
    try:
        return _from_hub(source) if source.repository else _from_url(source)
    except (OSError, RuntimeError, ValueError) as error:  # the hub's errors are all of these
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(_not_there(source, f"and could not be downloaded ({detail})")) from error


@contextmanager
def reading_weights(path: Path, name: str) -> Iterator[None]:
    """Turn whatever goes wrong while weights are read into one line.

    Parameters
    ----------
    path
        The file.
    name
        Of the network that it should fit.

    Raises
    ------
    FileFormatError
        If the file is damaged, would run code, or holds weights of another network.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on a file that is refused below anyway
            yield
    except (FileFormatError, InputError):
        raise
    except UnpicklingError as error:
        raise FileFormatError(
            f"{path} would run code when read, or is damaged: get the weights as .safetensors."
        ) from error
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        if isinstance(error, MemoryError):
            raise
        if "TorchScript" in str(error):
            raise FileFormatError(f"{path} is a TorchScript archive: get the weights as .safetensors.") from error
        raise FileFormatError(f"{path} cannot be read as weights of {name} ({_both_sides(error)}).") from error


def _both_sides(error: Exception) -> str:
    """Shorten an error, torch's lists of weights that lack and of weights that are left over to one example each."""
    text = one_line(error)
    lists = re.findall(r'(Missing|Unexpected) key\(s\) in state_dict: ((?:"[^"]*",? ?)+)', text)
    if not lists:
        return text[:200]
    found = [(kind.lower(), re.findall(r'"([^"]*)"', keys)) for kind, keys in lists]
    return "; ".join(f"{kind}: {len(keys)} weights, such as '{keys[0]}'" for kind, keys in found)


def load_strictly(module: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path, name: str) -> None:
    """Put weights into a network, all of them and nothing else.

    Raises
    ------
    FileFormatError
        Naming a weight that is missing, left over, or of another shape.
    """
    own = module.state_dict()
    # Batch normalisation's step counter is of no use here, and old files lack it.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    other = [key for key in own if key in state and own[key].shape != state[key].shape]
    kinds = (("lacks", missing), ("has besides", extra), ("has in another shape", other))
    faults = [f"{kind} {len(keys)} weights, such as '{keys[0]}'" for kind, keys in kinds if keys]
    if faults:
        raise FileFormatError(f"{path} does not fit {name}: it {', and '.join(faults)}.")
    module.load_state_dict(dict(state), strict=False)  # checked above


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 over a network's weights (name, type, shape, bytes), the same whatever file they came from."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


# -- caches and downloads ---------------------------------------------------------------------------------------------


def _in_hub_cache(source: Published) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in source.files if source.repository else ():
        found = try_to_load_from_cache(source.repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def _url_cache_places(source: Published) -> list[Path]:
    """Files where torch.hub and the CLIP packages keep what they download."""
    if not source.url:
        return []
    import torch

    file = source.url.rsplit("/", 1)[-1]
    places = [Path(torch.hub.get_dir()) / "checkpoints" / file]
    if not file.startswith("ViT-") and not file.startswith("RN"):  # OpenAI's are TorchScript: the hub has them plain
        places.append(Path(os.path.expanduser("~/.cache/clip")) / file)  # noqa: PTH111
    return places


def _from_hub(source: Published) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    check_reachable("huggingface.co")
    for file in source.files:
        try:
            return Path(hf_hub_download(source.repository, file))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:  # under another name, then
            continue
    raise ValueError(f"the repository {source.repository} has none of {', '.join(source.files)}")


def _from_url(source: Published) -> Path:
    import torch

    if not source.url:
        raise ValueError("no address is known for them")
    check_reachable(source.url.split("/")[2])
    target = _url_cache_places(source)[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = re.search(r"-([0-9a-f]{8,})\.", target.name)
    torch.hub.download_url_to_file(source.url, str(target), prefix.group(1) if prefix else None, progress=False)
    return target


def _not_there(source: Published, why: str) -> str:
    from huggingface_hub import constants

    places = [str(constants.HF_HUB_CACHE)] if source.repository else []
    places += [str(path) for path in _url_cache_places(source)]
    address = f"https://huggingface.co/{source.repository}" if source.repository else source.url
    return (
        f"the weights of {source.name} are not in {' or '.join(places) or 'any cache'} {why}: fetch "
        f"{' or '.join(source.files) or 'them'} from {address or 'their authors'} and pass the file as weights; "
        f"{lite.NAME} needs no download ({lite.HOW_TO_GET})."
    )


def library_versions(*names: str) -> dict[str, Any]:
    """Installed versions of libraries, for the provenance."""
    from importlib.metadata import version

    return {name: version(name) for name in names}
