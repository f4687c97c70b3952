"""Memories and networks by name: those that come with braincorl, and those in a folder or on the Hugging Face Hub.

A folder and a repository of the Hub hold the same three files, so that uploading the folder publishes it:

model.safetensors   a memory of `braincorl prior`, or a network of `braincorl convert` or `train`
config.json         {"format": kind and version of that file, "sha256": of that file}
README.md           the card: what it learned from, terms, limits

Every file is compared with its hash before it is read, and no format here runs code when it is read.
"""

import contextlib
import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import one_line, read_json, read_text, reading
from braincorl.storage.tensorfile import read_metadata

HUB = "hub:"
MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# Name -> SHA-256; the file is priors/shipped/NAME.safetensors, with its card beside it.
SHIPPED = {"bold5000-resnet18": "3611ae6ac5f7db0ddf6dd6537d61585aad96518486b070699d83e15f4b40730c"}
_SHELF = Path(__file__).parent.parent / "priors" / "shipped"


@dataclass(frozen=True)
class NamedFile:
    """A memory or network on this machine.

    Attributes
    ----------
    name
        As it was asked for.
    path
        The file.
    sha256
        Of the file.
    format
        Kind and version, such as "braincorl-prior/2".
    card
        Markdown; "" for a file without one.
    """

    name: str
    path: Path
    sha256: str
    format: str
    card: str = ""


def pretrained_names() -> tuple[str, ...]:
    """Names of what comes with braincorl."""
    return tuple(SHIPPED)


def is_name(name: str | Path) -> bool:
    """Whether this is a shipped name, one of the Hub, or a folder of a memory or network; else it may be a file."""
    text = str(name)
    return text.startswith(HUB) or text in SHIPPED or (Path(name) / MODEL).is_file()


def find_pretrained(name: str | Path, *, sha256: str | None = None, offline: bool | None = None) -> NamedFile:
    """Find a memory or network, and compare it with its hash.

    Parameters
    ----------
    name
        One of `pretrained_names()`; `hub:OWNER/NAME`, with `@REVISION` if another than the newest is meant; or the path
        of a file, or of a folder as described above.
    sha256
        Hash that the file must have, as a paper or a colleague states it; by default the one that comes with it.
    offline
        Take from the Hub's cache only; by default as `HF_HUB_OFFLINE` says.

    Returns
    -------
    NamedFile

    Raises
    ------
    InputError
        If there is none of this name, or it cannot be had.
    FileFormatError
        If the file has another hash, or is damaged.
    """
    text, path = str(name), Path(name)
    if text.startswith(HUB):
        return _checked(text, _from_hub(text, is_offline(offline)), sha256)
    if path.is_dir():
        return _checked(text, path, sha256)
    if path.is_file():
        return _known(text, path, sha256, "")
    if text in SHIPPED:
        found = _known(text, _SHELF / f"{text}.safetensors", SHIPPED[text], read_text(_SHELF / f"{text}.md", "card"))
        return _compared(found, sha256)
    raise InputError(
        f"{name} is neither a file nor a shipped name: pass a .safetensors file, one of {', '.join(SHIPPED)}, or "
        f"{HUB}OWNER/NAME for one on the Hugging Face Hub."
    )


def is_offline(offline: bool | None = None) -> bool:
    """Whether downloads are forbidden: as said, or else by `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`."""
    if offline is not None:
        return offline
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in OFFLINE_VARIABLES)


def check_reachable(host: str) -> None:
    """Fail at once where there is no network; the Hub's own client would retry for half a minute.

    Raises
    ------
    OSError
        If the host has no address.
    """
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT")):
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise OSError(f"{host} cannot be reached") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with reading(path, "cannot be read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(name: str, folder: Path, sha256: str | None) -> NamedFile:
    """Look at a folder's file, which must be what its config.json says."""
    for part in (MODEL, CONFIG):
        if not (folder / part).is_file():
            raise InputError(f"{folder} holds no {part}: it is no memory or network as save_pretrained writes one.")
    config = read_json(folder / CONFIG)
    stated = config.get("sha256")
    if not isinstance(stated, str):
        raise FileFormatError(f"{folder / CONFIG} does not state the sha256 of {MODEL}: get a whole copy.")
    card = read_text(folder / CARD, "card") if (folder / CARD).is_file() else ""
    found = _known(name, folder / MODEL, stated, card)
    if found.format != config.get("format"):
        raise FileFormatError(
            f"{name}: {MODEL} is a {found.format} file, but {CONFIG} says {config.get('format')}: get a whole copy."
        )
    return _compared(found, sha256)


def _known(name: str, path: Path, sha256: str | None, card: str) -> NamedFile:
    _check_hash(name, path, own := file_hash(path), sha256)
    return NamedFile(name, path, own, str(read_metadata(path).get("format", "another program's")), card)


def _compared(found: NamedFile, sha256: str | None) -> NamedFile:
    """Hold what was found to a hash that somebody stated, too."""
    _check_hash(found.name, found.path, found.sha256, sha256)
    return found


def _check_hash(name: str, path: Path, own: str, sha256: str | None) -> None:
    if sha256 is not None and own != sha256.lower():
        raise FileFormatError(
            f"{name}: {path} has the SHA-256 {own[:12]}…, expected {sha256[:12]}…: it was altered, damaged or "
            "replaced; remove it and get a new copy, or find out which is meant."
        )


def _from_hub(name: str, offline: bool) -> Path:
    """Folder of a repository's three files in the Hub's cache, all of one revision."""
    parts = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name.removeprefix(HUB))
    if parts is None:
        raise InputError(f"{name} is no name on the Hub, expected {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION.")
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, revision = parts.groups()
    endpoint = os.environ.get("HF_ENDPOINT") or None

    def fetch(file: str, commit: str | None) -> Path:
        return Path(
            hf_hub_download(
                repository,
                file,
                revision=commit,
                cache_dir=constants.HF_HUB_CACHE,
                endpoint=endpoint,
                local_files_only=offline,
            )
        )

    try:
        if not offline:
            check_reachable("huggingface.co")
        folder = fetch(CONFIG, revision).parent
        fetch(MODEL, folder.name)  # the cache names the folder by its commit
    except LocalEntryNotFoundError as error:
        why = "and downloads are off" if offline else "and the Hub cannot be reached"
        raise InputError(
            f"{name} is not in {constants.HF_HUB_CACHE} {why}: fetch it where there is a network."
        ) from error
    except (OSError, ValueError) as error:  # the Hub's errors are all of these
        detail = one_line(error)[:200] or type(error).__name__
        raise InputError(f"{name} could not be had from the Hub: {detail}") from error
    with contextlib.suppress(OSError, ValueError):  # a repository may have no card
        fetch(CARD, folder.name)
    return folder
