"""Checkpoints: the authors' files made safe and checkable, and networks read back from them.

The authors publish Python pickles in two shapes, a bare state dict and a Lightning file. They are read with PyTorch's
restricted unpickler alone, which builds tensors and plain containers and runs nothing. `convert_reference_checkpoint`
writes their tensors to a safetensors file with a checksum, the network's sizes, its backbone, and the hash of the file
they came from. `load_checkpoint` reads either kind, strictly: every name of the network, in its shape, and nothing
more. `save_checkpoint` writes what `braincorl train` made. "default", the native transformer, has no file: nothing in
it is trained.
"""

import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from braincorl.errors import FileFormatError, InputError
from braincorl.foreign_state import own_torch_state
from braincorl.models import ReferenceConfig, ReferenceTransformer
from braincorl.models.reference import without_values
from braincorl.names import NATIVE
from braincorl.storage.files import check_regular, reading
from braincorl.storage.named_files import file_hash, find_pretrained, is_name
from braincorl.storage.tensorfile import read_tensors, write_tensors

logger = logging.getLogger(__name__)

KIND = "braincorl-checkpoint/1"
ARCHITECTURE = "reference"
BACKBONES = {(512, 560): "CLIP ViT-B/16", (768, 800): "DINO", (1152, 1200): "SigLIP"}  # (E, D) of the published sizes
MARKER = "cls_token"  # a name that no other part of a Lightning module has; what stands before it is the prefix


@own_torch_state()
def convert_reference_checkpoint(path: str | Path, output: str | Path) -> dict[str, Any]:
    """Turn the authors' checkpoint into a safetensors file.

    Parameters
    ----------
    path
        The authors' file: a state dict, or a Lightning checkpoint with one under `state_dict`, its names possibly
        prefixed.
    output
        Destination, by convention ending in `.safetensors`.

    Returns
    -------
    dict
        The header that was written: `architecture`, `config` (sizes), `backbone`, `inputs` (what the network expects),
        `source` (name and SHA-256 of the authors' file).

    Raises
    ------
    InputError
        If `path` does not exist, or is `output`.
    FileFormatError
        If the file is damaged, holds anything but tensors and plain values, or another network.
    OutputError
        If `output` cannot be written.
    """
    path, output = Path(path), Path(output)
    if output.exists() and path.exists() and output.samefile(path):
        raise InputError(f"{output} is the file to convert: choose another name for the result.")
    if _is_safetensors(path):
        raise FileFormatError(f"{path} is a safetensors file, not a checkpoint of the authors: load it as it is.")
    state, header = _read_reference(path)
    write_tensors(output, KIND, {name: tensor.numpy() for name, tensor in state.items()}, header)
    return header


def save_checkpoint(path: str | Path, network: ReferenceTransformer, header: Mapping[str, Any]) -> None:
    """Write a network, whole or not at all.

    Parameters
    ----------
    path
        Destination, by convention ending in `.safetensors`.
    network
        On any device.
    header
        JSON-serialisable notes: what it was trained on, and how.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in network.state_dict().items()}
    described = {"architecture": ARCHITECTURE, "config": asdict(network.config), **header}
    write_tensors(path, KIND, state, described)


def find_checkpoint(name: str | Path) -> Path:
    """File of a published network, by path or by a name that `find_pretrained` knows.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if str(name) == NATIVE:
        raise InputError(
            f"{NATIVE!r} is the native transformer, in which nothing is trained, so that there is no checkpoint: "
            "use InContextEncoder()."
        )
    if is_name(name):
        return find_pretrained(name).path
    raise InputError(f"{name} does not exist or is not a file: pass the path of a checkpoint.")


def load_checkpoint(path: str | Path) -> ReferenceTransformer:
    """Read a network.

    Parameters
    ----------
    path
        A file that `convert_reference_checkpoint` or `braincorl train` wrote, or the authors' own; or a name, as for
        `load_pretrained`.

    Returns
    -------
    ReferenceTransformer
        On the processor, in the precision of the file, not requiring gradients.

    Raises
    ------
    InputError
        If the file does not exist.
    FileFormatError
        If it is damaged, altered, unsafe to read, or no such network.
    """
    return read_checkpoint(path)[0]


@own_torch_state()
def read_checkpoint(path: str | Path) -> tuple[ReferenceTransformer, dict[str, Any]]:
    """Read a network and the header that describes it; see `load_checkpoint` and `convert_reference_checkpoint`."""
    path = find_checkpoint(path)
    state, header = _read_own(path) if _is_safetensors(path) else _read_reference(path)
    with without_values():
        network = ReferenceTransformer(ReferenceConfig(**header["config"]))
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False), header


def _is_safetensors(path: Path) -> bool:
    """Whether a file starts like safetensors: eight bytes of length, then JSON."""
    check_regular(path, "checkpoint")
    with reading(path, "is not a readable checkpoint"), path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_own(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file of `save_checkpoint` or `convert_reference_checkpoint`."""
    arrays, header = read_tensors(path, KIND)
    if header.get("architecture") != ARCHITECTURE:
        raise FileFormatError(
            f"{path} holds a network of the kind {header.get('architecture')!r}, which this version cannot run: "
            f"train or convert one with this version, or use InContextEncoder() without a checkpoint."
        )
    try:
        config = ReferenceConfig(**header["config"])
    except (KeyError, TypeError, InputError) as error:
        raise FileFormatError(f"{path} does not describe its network ({error}): convert it anew.") from error
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    _check_names(path, config, state)
    return state, header


def _read_reference(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under their published names, and the header, of the authors' file."""
    state = _published_state(path, read_pickled_tensors(path))
    config = _recognise(path, state)
    _check_names(path, config, state)
    header = {
        "architecture": ARCHITECTURE,
        "config": asdict(config),
        "backbone": BACKBONES.get((config.n_features, config.width), "unknown"),
        "inputs": {"features": "unit norm", "responses": "z-scored"},
        "source": {"name": path.name, "sha256": file_hash(path)},
    }
    return state, header


def read_pickled_tensors(path: str | Path, kind: str = "PyTorch checkpoint") -> Any:
    """Read tensors and plain containers that `torch.save` wrote; nothing that the file holds is executed.

    The archive's own checksums are compared first, which PyTorch does not do.

    Parameters
    ----------
    path
        The file.
    kind
        What was expected, for messages.

    Raises
    ------
    InputError
        If it is missing, or the system does not let it be read.
    FileFormatError
        If it is damaged, or holds anything else.
    """
    path = check_regular(path, kind)
    try:
        with reading(path, f"is not a readable {kind}"):
            if zipfile.is_zipfile(path):  # those of PyTorch before 1.6 are none, and have no checksum
                with zipfile.ZipFile(path) as archive:
                    if not any(name.endswith("data.pkl") for name in archive.namelist()):
                        raise FileFormatError(f"{path} is a zip archive without tensors of PyTorch, expected a {kind}.")
                    damaged = archive.testzip()
                if damaged is not None:
                    raise ValueError(f"{damaged} fails its checksum")
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except FileFormatError as error:
        if isinstance(error.__cause__, pickle.UnpicklingError) and "weights" in str(error.__cause__).lower():
            raise FileFormatError(
                f"{path} was not read: it holds more than tensors and plain values, and reading that could run code. "
                f"If you trust its origin, save its state dict alone and convert that."
            ) from error
        raise


def _published_state(path: Path, content: Any) -> dict[str, Tensor]:
    """Take the network's own tensors, without prefix, in one floating type."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise FileFormatError(
            f"{path} holds a {type(content).__name__}, but a state dict (name -> tensor), or a Lightning checkpoint "
            f"with one under 'state_dict', is expected."
        )
    prefixes = [name.removesuffix(MARKER) for name in content if name == MARKER or name.endswith("." + MARKER)]
    if len(prefixes) != 1:
        raise FileFormatError(
            f"{path} holds {len(prefixes)} tensors named {MARKER!r} where the published network has one: "
            f"it is a checkpoint of another model."
        )
    prefix = prefixes[0]
    state = {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}
    if len(state) < len(content):
        logger.info("%s: left out %d entries outside %r", path, len(content) - len(state), prefix)
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise FileFormatError(f"{path} holds no floating-point tensor under {name!r}: it is of another model.")
        if not torch.isfinite(tensor).all():
            raise FileFormatError(f"{path} holds NaN or infinity in {name!r}: it is damaged, get a new copy.")
    wide = any(tensor.dtype == torch.float64 for tensor in state.values())
    dtype = torch.float64 if wide else torch.float32
    return {name: tensor.detach().to(dtype).contiguous() for name, tensor in state.items()}


def _recognise(path: Path, state: Mapping[str, Tensor]) -> ReferenceConfig:
    """Tell the sizes from the shapes. Heads leave no trace there; every published network has ten."""
    try:
        _, n_learned_tokens, width = state["cls_token"].shape
        n_features = state["early_layers.0.bypass.weight"].shape[1] - 1
        ffn_width = state["transformer.0.ffn.linear2.weight"].shape[1]
        layers = {name.split(".")[1] for name in state if name.startswith("transformer.")}
        return ReferenceConfig(n_features, width, len(layers), 10, ffn_width, n_learned_tokens)
    except (KeyError, IndexError, ValueError) as error:
        raise FileFormatError(
            f"{path} is no checkpoint of the published network: its tensors have other names or shapes ({error})."
        ) from error


def _check_names(path: Path, config: ReferenceConfig, state: Mapping[str, Tensor]) -> None:
    """Refuse all but every name of the network in its shape, and no other name."""
    with without_values():
        expected = {name: tuple(tensor.shape) for name, tensor in ReferenceTransformer(config).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not part of the network" for name in found if name not in expected]
    problems += [
        f"{name} is {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise FileFormatError(f"{path} does not hold the network that it describes: {problems[0]}{others}.")
