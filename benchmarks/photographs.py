"""What efficientnet-lite0 says of photographs that packages ship, and how many images a second it turns into features.

    uv run --with gradio python benchmarks/photographs.py

Without gradio, which ships three of the twelve, nine are looked at. One thread, images of 256 x 256 in memory,
their preparation included.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from timm.data import ImageNetInfo

from braincorl.features import ImageEmbedder
from braincorl.features.backbones.lite import lite_weights

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from photographs import photographs

N_IMAGES = 256


def main():
    torch.set_num_threads(1)
    state = torch.load(lite_weights(), weights_only=True)
    embedder = ImageEmbedder("efficientnet-lite0", precision="float32", normalize=False)
    shown, names = photographs(), ImageNetInfo()
    features = torch.from_numpy(embedder.embed(list(shown)).features)
    chances = (features @ state["_fc.weight"].T + state["_fc.bias"]).softmax(dim=1)
    right = 0
    for (path, categories), row in zip(shown.items(), chances, strict=True):
        values, best = row.topk(5)
        said = [names.index_to_description(number).split(",")[0] for number in best.tolist()]
        hit = bool(categories & set(best.tolist()))
        right += hit
        words = ", ".join(f"{word} {value:.2f}" for word, value in zip(said, values.tolist(), strict=True))
        print(f"{path.name:20} {'right' if hit else 'WRONG'}  {words}")
    print(f"{right} of {len(shown)} have a category that they show among the five likeliest")
    pixels = np.random.default_rng(0).integers(0, 255, (N_IMAGES, 256, 256, 3), dtype=np.uint8)
    embedder.embed(pixels[:32])
    wall, processor = time.perf_counter(), time.process_time()
    embedder.embed(pixels)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{N_IMAGES / processor:.1f} images a second of processor time, {N_IMAGES / wall:.1f} of wall time")


if __name__ == "__main__":
    main()
