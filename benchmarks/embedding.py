"""Images to features: equality with the libraries' own loops, speed against them, and memory.

    python benchmarks/embedding.py speed --backbone open_clip:ViT-B-32/openai
    python benchmarks/embedding.py memory
    python benchmarks/embedding.py inputs

`speed` makes JPEG files, embeds them with random weights, and times a plain loop (the library's own preprocessing and
forward pass: one image at a time, and in batches of 32) and `ImageEmbedder` in turns, in the same process. `memory`
writes and reads 73,000 x 1,152 features. `inputs` sends real small pictures through every input path.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from braincorl.features import ImageEmbedder, load_features
from braincorl.features.store.feature_files import write_matrix

SHARED = Path(os.environ.get("BRAINCORL_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
BATCH = 32


def make_files(folder: Path, n_images: int) -> list[Path]:
    """JPEG files of 640 x 480 with structure at several scales, about as large as photographs."""
    rng = np.random.default_rng(0)
    paths = []
    for row in range(n_images):
        picture = np.zeros((480, 640, 3), dtype=np.float32)
        for size in (4, 16, 64):
            layer = rng.integers(0, 256, (size * 3 // 4, size, 3), dtype=np.uint8)
            picture += np.asarray(Image.fromarray(layer).resize((640, 480), Image.Resampling.BICUBIC)) / 3
        paths.append(folder / f"{row:05}.jpg")
        Image.fromarray(picture.astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def plain_network(backbone: str, seed: int) -> tuple[Callable, Callable]:
    """Preprocessing and forward pass as the library's documentation has them, with the embedder's random weights."""
    import torch

    kind, _, name = backbone.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "timm":
            import timm

            model = timm.create_model(name, pretrained=False, num_classes=0).eval()
            return timm.data.create_transform(**timm.data.resolve_model_data_config(model)), model
        import open_clip

        architecture, _, tag = name.partition("/")
        settings = open_clip.get_pretrained_cfg(architecture, tag)
        model, _, preprocess = open_clip.create_model_and_transforms(
            architecture,
            pretrained=None,
            pretrained_text=False,
            force_quick_gelu=settings.get("quick_gelu", False),
            image_mean=settings.get("mean"),
            image_std=settings.get("std"),
            image_interpolation=settings.get("interpolation"),
            image_resize_mode=settings.get("resize_mode"),
        )
        return preprocess, model.eval().encode_image


def plain_loop(paths: list[Path], preprocess: Callable, encode: Callable, batch: int) -> np.ndarray:
    """Embed as a user does without this package."""
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, len(paths), batch):
            pictures = [preprocess(Image.open(path).convert("RGB")) for path in paths[start : start + batch]]
            features = encode(torch.stack(pictures))
            parts.append(features / features.norm(dim=1, keepdim=True))
    return torch.cat(parts).numpy()


def speed(options: argparse.Namespace) -> None:
    """Time the plain loop and the embedder in turns; compare their features."""
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), options.images)
        preprocess, encode = plain_network(options.backbone, seed=1)
        make = {
            precision: ImageEmbedder(options.backbone, weights="random:1", precision=precision, normalize=True)
            for precision in ("float32", "bf16")
        }
        runs: dict[str, Callable[[], np.ndarray]] = {
            "plain loop, one by one": lambda: plain_loop(paths, preprocess, encode, 1),
            f"plain loop, batches of {BATCH}": lambda: plain_loop(paths, preprocess, encode, BATCH),
            "ImageEmbedder float32": lambda: make["float32"].embed(paths).features,
            "ImageEmbedder bf16": lambda: make["bf16"].embed(paths).features,
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        work: dict[str, list[float]] = {name: [] for name in runs}  # less moved by what else the machine does
        features = {}
        plain_loop(paths[:BATCH], preprocess, encode, BATCH)  # the first run of a network plans its products
        make["bf16"].embed(paths[:BATCH])
        for _ in range(options.rounds):
            for name, run in runs.items():
                start, worked = time.perf_counter(), time.process_time()
                features[name] = run()
                seconds[name].append(time.perf_counter() - start)
                work[name].append(time.process_time() - worked)
        reference = features["plain loop, one by one"]
        best = options.images / min(seconds[f"plain loop, batches of {BATCH}"])
        print(f"{options.backbone}, {options.images} JPEG files of 640 x 480, best of {options.rounds} rounds")
        print(f"{'':32} images/s   ratio   CPU ms/image   largest difference   smallest cosine")
        for name, times in seconds.items():
            rate, cpu = options.images / min(times), 1000 * min(work[name]) / options.images
            difference = np.abs(features[name] - reference).max()
            cosine = (features[name] * reference).sum(axis=1).min()
            print(f"{name:32} {rate:8.1f} {rate / best:7.2f} {cpu:14.1f} {difference:20.1e} {cosine:17.6f}")
        for precision in make:
            one, seven = (
                ImageEmbedder(
                    options.backbone, weights="random:1", precision=precision, normalize=True, batch_size=size
                )
                for size in (1, 7)
            )
            difference = np.abs(one.embed(paths[:24]).features - seven.embed(paths[:24]).features).max()
            print(f"{precision}, batches of 1 against batches of 7: largest difference {difference:.1e}")


def peak_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_in_process(how: str, path: Path) -> None:
    """Read in a process of its own, and print how much its peak memory grew."""
    import braincorl.features.store.feature_files  # noqa: F401 - what is imported is not counted

    if path.suffix == ".h5":
        import h5py  # noqa: F401
    before, start = peak_mib(), time.perf_counter()
    table = load_features(path, mapped=False if how == "whole" else None)
    if how == "thousand rows":
        rows = np.random.default_rng(0).permutation(len(table.image_ids))[:1000]
        table = table.select(table.image_ids[rows])
    if how == "every row, in blocks":
        from braincorl.features.store.table import row_blocks

        np.sum([block.sum() for block in row_blocks(table.features)])
    print(f"{path.suffix:14}{how:24}{peak_mib() - before:10.0f} MiB {time.perf_counter() - start:8.2f} s")


def memory(_options: argparse.Namespace) -> None:
    """Write and read the features of 73,000 images, 1,152 each (321 MiB)."""
    n_images, n_features, block = 73_000, 1_152, 1_000
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        print("73,000 x 1,152 float32 (321 MiB): growth of peak memory")
        for ending in (".npz", ".h5", ".safetensors"):
            path = Path(folder) / f"features{ending}"
            before, start = peak_mib(), time.perf_counter()
            blocks = (rng.standard_normal((block, n_features), dtype=np.float32) for _ in range(n_images // block))
            write_matrix(path, blocks, (n_images, n_features), [f"image-{row:05}.png" for row in range(n_images)], {})
            grown, seconds = peak_mib() - before, time.perf_counter() - start
            print(f"{ending:14}{'written':24}{grown:10.0f} MiB {seconds:8.2f} s", flush=True)
            for how in ("checked", "thousand rows", "every row, in blocks", "whole"):
                subprocess.run([sys.executable, __file__, "read", how, str(path)], check=True)


def inputs(_options: argparse.Namespace) -> None:
    """Real small pictures from an array, files, a folder and an HDF5 brick, in two backbones."""
    source = SHARED / "data" / "clip_vitb32" / "cifar10_500.npz"
    if not source.is_file():
        print(f"the pictures are not at {source} (set BRAINCORL_SHARED to their folder)")
        return
    pictures = np.load(source)["images"]
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder) / "png"
        png.mkdir()
        for row, picture in enumerate(pictures):
            Image.fromarray(picture).save(png / f"{row:03}.png")
        with h5py.File(Path(folder) / "brick.hdf5", "w") as file:
            file["imgBrick"] = pictures
        ways = {"files": sorted(png.iterdir()), "folder": png, "HDF5 brick": Path(folder) / "brick.hdf5"}
        for backbone, weights in (("gabor", None), ("resnet18-squash", "random:0")):
            embedder = ImageEmbedder(backbone, weights=weights, precision="float32")
            start = time.perf_counter()
            expected = embedder.embed(pictures).features
            rate = len(pictures) / (time.perf_counter() - start)
            print(
                f"{backbone}: {len(pictures)} pictures of 32 x 32, {embedder.n_features} features, {rate:.0f} images/s"
            )
            for way, images in ways.items():
                difference = np.abs(embedder.embed(images).features - expected).max()
                print(f"  {way:12} against the array: largest difference {difference:.1e}")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    timed = parts.add_parser("speed")
    timed.add_argument("--backbone", default="open_clip:ViT-B-32/openai")
    timed.add_argument("--images", type=int, default=192)
    timed.add_argument("--rounds", type=int, default=3)
    parts.add_parser("memory")
    parts.add_parser("inputs")
    read = parts.add_parser("read")
    read.add_argument("how")
    read.add_argument("path", type=Path)
    options = parser.parse_args()
    if options.part == "read":
        read_in_process(options.how, options.path)
    else:
        {"speed": speed, "memory": memory, "inputs": inputs}[options.part](options)


if __name__ == "__main__":
    main()
