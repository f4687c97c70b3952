"""Files that are damaged, that are no files, or that somebody's script made with a checksum that is right."""

import copy
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator


# Damage


def _flip(path: Path, rng: Rng, within: int) -> None:
    content = bytearray(path.read_bytes())
    content[int(rng.integers(min(within, len(content))))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def _cut(path: Path, rng: Rng) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(1, len(content)))])


def _zero(path: Path, rng: Rng) -> None:
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content)))
    size = len(content[start : start + 512])
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


def _swap(path: Path, rng: Rng) -> None:
    content = path.read_bytes()
    place = int(rng.integers(1, len(content)))
    path.write_bytes(content[place:] + content[:place])


def _become(path: Path, content: bytes) -> None:
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path, Rng], None]] = {
    "a bit flipped": lambda path, rng: _flip(path, rng, 2**40),
    "a bit of the header flipped": lambda path, rng: _flip(path, rng, 400),
    "cut short": _cut,
    "a block of zeros": _zero,
    "halves exchanged": _swap,
    "bytes at the end": lambda path, rng: _become(path, path.read_bytes() + rng.bytes(100)),
    "a page of HTML": lambda path, _: _become(path, b"<!DOCTYPE html>\n<html>404</html>\n"),
    "random bytes": lambda path, rng: _become(path, rng.bytes(3000)),
    "zeros alone": lambda path, _: _become(path, bytes(3000)),
}


# Hostile things in place of a file


def _huge(path: Path, _rng: Rng) -> None:
    """Declare far more numbers than there are."""
    suffix = path.suffix
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 100000), }".ljust(118) + "\n"
            npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
            file.writestr("features.npy", npy)
            file.writestr("image_ids.npy", npy)
    elif suffix == ".h5":
        import h5py

        with h5py.File(path, "r+") as file:
            for name in list(file):
                if isinstance(file[name], h5py.Dataset) and file[name].ndim:
                    shape, dtype = (10**7, *(10**6 for _ in file[name].shape[1:])), file[name].dtype
                    del file[name]
                    file.create_dataset(name, shape, dtype, chunks=True)
    elif suffix == ".safetensors":
        entry = {"features": {"dtype": "F32", "shape": [10**9, 10**6], "data_offsets": [0, 4 * 10**15]}}
        text = json.dumps(entry).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text)
    elif suffix == ".gz":
        import gzip

        import nibabel as nib

        header = nib.Nifti1Header(endianness="<")
        header["dim"], header["datatype"], header["bitpix"] = [4, 32767, 32767, 32767, 32767, 1, 1, 1], 16, 32
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    elif suffix in (".json", ".toml"):
        path.write_bytes(b"[" * 200_000)
    elif suffix in (".pt", ".pth"):
        import torch

        torch.save({"state_dict": torch.zeros(1).expand(10**12)}, path)
    else:
        path.write_bytes(b"image\tsession\n" + b"x" * 2_000_000 + b"\0\n\x1b[2J\n")


class _Evil:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def _pickle(path: Path, _rng: Rng) -> None:
    """Run code when read carelessly."""
    import torch

    if path.suffix == ".npz":
        np.savez(path, features=np.array([_Evil()], object), image_ids=np.array([_Evil()], object))
    else:
        torch.save({"state_dict": _Evil(), "recipe": _Evil()}, path)


def _instead(target: str) -> Callable[[Path, Rng], None]:
    def replace(path: Path, _rng: Rng) -> None:
        path.unlink()
        path.symlink_to(target)

    return replace


def _pipe(path: Path, _rng: Rng) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path, _rng: Rng) -> None:
    path.unlink()
    path.mkdir()


HOSTILE: dict[str, Callable[[Path, Rng], None]] = {
    "a pipe": _pipe,
    "a folder": _folder,
    "an endless device": _instead("/dev/zero"),
    "a terminal": _instead("/dev/tty"),
    "a link to nothing": _instead("nowhere"),
    "a link to itself": lambda path, rng: _instead(path.name)(path, rng),
    "the memory of the process": _instead("/proc/self/mem"),
    "nothing": lambda path, _: path.unlink(),
    "empty": lambda path, _: _become(path, b""),
    "far more numbers than there are": _huge,
    "a pickle that runs code": _pickle,
}


# Crafted: whole, with a checksum that is right, but of another form than ours

VALUES: tuple[Any, ...] = (
    None, -1, 0, 1.5, 10**30, float("nan"), float("inf"), True, "", "../../outside", "/etc/hostname", "x" * 5000, "\0",
    "a\nb\x1b[2J", [], {}, [[]], {"a": None}, ["../x"], "\ud800",
)  # fmt: skip


def craft_json(value: Any, rng: Rng) -> Any:
    """Exchange one value anywhere in JSON-like content, or remove it."""
    value = copy.deepcopy(value)
    here = value
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return value
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.7:
            here = here[key]
            continue
        if rng.random() < 0.25:
            del here[key]
        else:
            here[key] = VALUES[int(rng.integers(len(VALUES)))]
        return value


def craft_array(array: Any, rng: Rng) -> Any:
    """Change the shape, type or values of an array."""
    array = np.asarray(array)
    number = array.dtype.kind in "fiub"
    choices: list[Callable[[], Any]] = [
        lambda: array[:0],
        lambda: array[:-1],
        lambda: array[None],
        lambda: np.concatenate([array, array]),
        lambda: np.arange(array.size).reshape(array.shape),
        lambda: np.zeros(array.shape, "c8"),
        lambda: np.array(5.0),
    ]
    if number:
        choices += [
            lambda: np.where(rng.random(array.shape) < 0.1, np.nan, array.astype("f8")),
            lambda: np.full(array.shape, np.inf),
            lambda: -np.abs(array.astype("f8")) - 1,
            lambda: array.astype("f8") * 1e300,
            lambda: np.zeros_like(array),
            lambda: array.astype("u1"),
        ]
    else:
        choices += [lambda: np.full(array.shape, array.ravel()[0]), lambda: np.full(array.shape, "a\n\x1b[2J")]
    with np.errstate(all="ignore"):
        return choices[int(rng.integers(len(choices)))]() if array.ndim else np.zeros(3)


def _craft_safetensors(path: Path, rng: Rng) -> None:
    from safetensors.numpy import load_file, save_file

    from braincorl.storage.tensorfile import content_hash, read_metadata

    stated, arrays = read_metadata(path), dict(load_file(path))
    kind, header = stated.get("format"), json.loads(stated.get("header", "{}"))
    if rng.random() < 0.4 and header:
        header = craft_json(header, rng)
    else:
        name = sorted(arrays)[int(rng.integers(len(arrays)))]
        if rng.random() < 0.2:
            del arrays[name]
        else:
            arrays[name] = np.ascontiguousarray(craft_array(arrays[name], rng))
    arrays = {name: array for name, array in arrays.items() if array.dtype.kind in "fiub"}
    if kind is None:
        save_file(arrays, path, metadata={name: text for name, text in stated.items() if isinstance(text, str)})
        return
    text = json.dumps(header, sort_keys=True)
    own = {"format": kind, "header": text, "sha256": content_hash(arrays, kind, text)}
    save_file(arrays, path, metadata={"braincorl": json.dumps(own)})


def _craft_npz(path: Path, rng: Rng) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    if rng.random() < 0.2:
        del arrays[name]
    else:
        arrays[name] = craft_array(arrays[name], rng)
    np.savez(path, **arrays)


def _craft_h5(path: Path, rng: Rng) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        attributes = list(file.attrs)
        if attributes and rng.random() < 0.4:
            name = attributes[int(rng.integers(len(attributes)))]
            del file.attrs[name]
            if rng.random() < 0.6:
                file.attrs[name] = (5, "{", "\u2028", np.zeros(3), "{}")[int(rng.integers(5))]
            return
        name = names[int(rng.integers(len(names)))]
        values = file[name][()]
        if isinstance(values, np.ndarray) and values.dtype == object:
            values = values.astype("S")
        del file[name]
        if rng.random() < 0.7:
            new = craft_array(values, rng)
            file[name] = new.astype("S") if new.dtype.kind == "U" else new


def _craft_torch(path: Path, rng: Rng) -> None:
    import torch

    content = torch.load(path, weights_only=True)
    changed = craft_json(dict(content), rng)
    tensors = [name for name, value in changed.items() if isinstance(value, torch.Tensor)]
    if tensors and rng.random() < 0.7:
        name = tensors[int(rng.integers(len(tensors)))]
        changed[name] = (torch.zeros(3), changed[name].to(torch.int64), changed[name] * np.nan)[int(rng.integers(3))]
    torch.save(changed, path)


def _craft_text(path: Path, rng: Rng) -> None:
    rows = path.read_text().split("\n")
    row = int(rng.integers(max(1, len(rows) - 1)))
    other = ("", "\t", "n/a", "x" * 4000, "\x1b[2J", "=1+1", "../../x", "a\u2028b", '"', "\0", "1\t2\t3\t4", "sub-01")
    choice = rng.random()
    if choice < 0.25:
        del rows[row]
    elif choice < 0.4:
        rows.insert(row, rows[int(rng.integers(len(rows)))])
    else:
        rows[row] = other[int(rng.integers(len(other)))]
    path.write_bytes("\n".join(rows).encode())


def craft(path: Path, rng: Rng) -> bool:
    """Change what a file says; False where nobody knows how."""
    known: dict[str, Callable[[Path, Rng], None]] = {
        ".safetensors": _craft_safetensors,
        ".npz": _craft_npz,
        ".h5": _craft_h5,
        ".pt": _craft_torch,
        ".pth": _craft_torch,
        ".txt": _craft_text,
        ".tsv": _craft_text,
        ".toml": _craft_text,
        ".json": lambda path, rng: _become(path, json.dumps(craft_json(json.loads(path.read_text()), rng)).encode()),
    }
    change = known.get(path.suffix)
    if change is None or path.name == "f.h5.partial":
        return False
    change(path, rng)
    return True
