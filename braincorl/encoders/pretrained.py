"""`load_pretrained`: memories and networks by name; `save_pretrained`: a folder that the Hub takes as it is.

`braincorl.storage.named_files` says where they are looked for and what such a folder holds.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from braincorl import __version__
from braincorl.errors import FileFormatError, InputError
from braincorl.priors import GroupPrior
from braincorl.priors.group_prior import KIND as MEMORY
from braincorl.storage.named_files import CARD, CONFIG, MODEL, file_hash, find_pretrained
from braincorl.storage.result_folders import staged_directory

if TYPE_CHECKING:
    from braincorl.models import ReferenceTransformer

KIND = "pretrained"
NETWORK = "braincorl-checkpoint/1"  # braincorl.checkpoint.KIND, whose module brings PyTorch


def load_pretrained(
    name: str | Path, *, sha256: str | None = None, offline: bool | None = None
) -> "GroupPrior | ReferenceTransformer":
    """Read a memory or a network.

    Parameters
    ----------
    name
        One of `braincorl.pretrained_names()`, a file, a folder of `save_pretrained`, or `hub:OWNER/NAME` for such a
        folder on the Hugging Face Hub, with `@REVISION` if another than the newest is meant.
    sha256
        Hash that the file must have; by default the one that comes with it.
    offline
        Take from the Hub's cache only; by default as `HF_HUB_OFFLINE` says.

    Returns
    -------
    GroupPrior or ReferenceTransformer
        For `InContextEncoder(prior=…)`, or as the network of `InContextEncoder(checkpoint=name)`.

    Raises
    ------
    InputError
        If there is none of this name, or it cannot be had.
    FileFormatError
        If the file has another hash, is damaged, or holds neither.
    """
    found = find_pretrained(name, sha256=sha256, offline=offline)
    if found.format == MEMORY:
        return GroupPrior.load(found.path)
    if found.format == NETWORK:
        from braincorl.checkpoint import load_checkpoint

        return load_checkpoint(found.path)
    raise FileFormatError(f"{name} holds a {found.format} file, expected a memory ({MEMORY}) or a network ({NETWORK}).")


def save_pretrained(file: str | Path, folder: str | Path, *, card: str, license_: str, overwrite: bool = False) -> Path:
    """Lay out a memory or network as the Hub takes it, with its hash and card: upload the folder to publish it.

    Parameters
    ----------
    file
        Of `GroupPrior.save`, `braincorl prior`, `convert` or `train`.
    folder
        To be made.
    card
        Markdown: what it learned from, what it is for, its limits.
    license_
        Terms of its use, in the Hub's short form, such as "mit".
    overwrite
        Replace an earlier one.

    Returns
    -------
    Path
        The folder; `load_pretrained` reads it.

    Raises
    ------
    InputError
        If the file does not exist, the card is empty, or the license no single word.
    FileFormatError
        If the file is damaged, or neither a memory nor a network.
    OutputError
        If the folder is taken or cannot be written.
    """
    if not card.strip():
        raise InputError("card is empty: say what it learned from, what it is for, and its limits.")
    if license_.split() != [license_]:
        raise InputError(f"license_ is {license_!r}, expected one word, such as mit, cc0-1.0 or cc-by-4.0.")
    load_pretrained(file)  # whole, and of a kind that others can read
    found = find_pretrained(file)
    with staged_directory(folder, overwrite=overwrite, kind=KIND) as staging:
        shutil.copyfile(found.path, staging / MODEL)
        config = {"braincorl": __version__, "format": found.format, "sha256": file_hash(staging / MODEL)}
        (staging / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        front = f"---\nlibrary_name: braincorl\nlicense: {license_}\ntags:\n- fmri\n- encoding-model\n---\n\n"
        (staging / CARD).write_text(front + card.strip() + "\n", encoding="utf-8")
        find_pretrained(staging, sha256=found.sha256)
    return Path(folder)
