"""Speed, memory and precision of the published network, as published and in braincorl's engine.

    python benchmarks/reference_speed.py accuracy                  # float32 against float64, bfloat16 against float32
    python benchmarks/reference_speed.py speed                     # 30, 100, 500 images, four ways
    python benchmarks/reference_speed.py memory                    # peak memory by number of voxels
    python benchmarks/reference_speed.py long                      # 1,000 images, 1,000 voxels
    python benchmarks/reference_speed.py speed --device cuda       # 20,000 voxels, host to host

Weights are random (Gaussian, variance 1 / fan-in), which changes neither speed nor memory. Every row is a process of
its own, so that peak memory is its own: the largest resident set, with the interpreter, PyTorch and the weights. The
rate of a square matrix product in the same precision is measured in the same process, before and after. On a machine
that is busy otherwise, `--busy` takes one thread and its processor time, which other processes hardly touch.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from braincorl.models import InferenceEngine, ReferenceConfig, ReferenceTransformer

WAYS = {
    "published": "as published, float32",
    "autocast": "as published, bfloat16 autocast",
    "float32": "engine, float32",
    "bfloat16": "engine, bfloat16",
    "compiled": "engine, bfloat16, compiled",
}
ROWS = 1664  # voxels x tokens of a batch of the published way: where it is fastest on two cores


def make_network(config: ReferenceConfig, seed: int = 0) -> ReferenceTransformer:
    """Network with random weights: matrices of variance 1 / fan-in, LayerNorms around 1, small biases."""
    random = torch.Generator().manual_seed(seed)
    network = ReferenceTransformer(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(generator=random)
            if parameter.ndim > 1:
                parameter.mul_(parameter.shape[-1] ** -0.5)
            else:
                parameter.mul_(0.1 if name.endswith("weight") else 0.02).add_(1.0 if name.endswith("weight") else 0.0)
    return network.eval().requires_grad_(False)


def make_context(n_features: int, n_context: int, n_voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit-norm features (n_context, n_features) and z-scored responses (n_voxels, n_context)."""
    random = np.random.default_rng(0)
    features = random.standard_normal((n_context, n_features), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, random.standard_normal((n_voxels, n_context), dtype=np.float32)


def published_way(network: ReferenceTransformer, features: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """Plain forward pass: the features copied for every voxel, unfused attention, every attention map kept."""
    shared = features.repeat(len(responses), 1, 1)
    tokens = network.early_layers(torch.cat([shared, responses[:, :, None]], dim=-1))
    tokens = torch.cat([network.cls_token.expand(len(responses), -1, -1), tokens], dim=1)
    maps = []
    for block in network.transformer:
        normed = block.layer_norm_1(tokens)
        attended, attention = block.attn(math.log(tokens.shape[1]) * normed, normed, normed, average_attn_weights=False)
        maps.append(attention)
        tokens = tokens + attended
        tokens = tokens + block.ffn(block.layer_norm_2(tokens))
    return network.weight_pred(tokens[:, 0])


def count_flops(config: ReferenceConfig, n_context: int, *, engine: bool) -> float:
    """Floating-point operations of all matrix products for one voxel: those that each way does, not a common count."""
    tokens, width, ffn = n_context + config.n_learned_tokens, config.width, config.ffn_width
    n_in = config.n_features + 1
    bypass = 0 if engine else n_in * width
    embedding = n_context * (n_in * 2 * width + 2 * width * width + bypass)
    rest = 2 * width * width + 3 * ffn * width  # queries and output projection; feed-forward
    attention = 2 * tokens * width  # logits and weighted values, per query
    block = tokens * (2 * width * width + rest + attention)
    last = tokens * 3 * width * width + width * width + 3 * ffn * width + attention if engine else block
    readout = width * 2 * width + 2 * width * n_in + width * n_in
    return 2.0 * (embedding + (config.n_layers - 1) * block + last + readout)


def matrix_rate(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of a large square matrix product."""
    size = 8192 if device == "cuda" else 4096
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / best_time(lambda: a @ b, 5, device)


def best_time(function: Callable[[], Any], n_times: int, device: str) -> float:
    """Shortest of some runs, after one to warm up; processor time if there is one thread."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(n_times + 1):
        start = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[1:])


def measure(
    way: str, size: str, n_context: int, n_voxels: int, device: str, repeats: int, busy: bool = False
) -> dict[str, float]:
    """One row: seconds per voxel, rates, peak memory."""
    if busy:
        torch.set_num_threads(1)
    config = getattr(ReferenceConfig, size)()
    network = make_network(config)
    features, responses = make_context(config.n_features, n_context, n_voxels)
    plain = way in ("published", "autocast")
    dtype = torch.float32 if way in ("published", "float32") else torch.bfloat16
    peak = matrix_rate(dtype, device)
    if plain:
        inputs = torch.from_numpy(features), torch.from_numpy(responses)

        def run() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
                published_way(network, *inputs)
    else:
        precision = "float32" if way == "float32" else "bfloat16"
        engine = InferenceEngine(network, device=device, precision=precision, compile_blocks=way == "compiled")
        del network

        def run() -> None:
            engine(features, responses)

    # A single pass is not warmed up: what one pass costs is the question then.
    start = time.perf_counter()
    run()
    seconds = best_time(run, repeats - 1, device) if repeats > 1 else time.perf_counter() - start
    peak = max(peak, matrix_rate(dtype, device))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device == "cuda":
        memory = torch.cuda.max_memory_allocated()
    rate = count_flops(config, n_context, engine=not plain) * n_voxels / seconds
    return {"seconds": seconds, "n_voxels": n_voxels, "rate": rate, "peak": peak, "memory": memory}


def measure_apart(**arguments: Any) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "row", "--row", json.dumps(arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row: dict[str, float] = json.loads(output.splitlines()[-1])
    return row


def show_speed(options: argparse.Namespace) -> None:
    """Voxels per second, rates and memory of every way."""
    print(
        "| images | way | voxels | ms per voxel | voxels/s | GFLOP/s | matrix GFLOP/s | share | peak MiB | speed-up |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    cuda = options.device == "cuda"
    ways = ("float32", "bfloat16", "compiled") if cuda else ("published", "autocast", "float32", "bfloat16")
    for n_context in options.n_context or ((100, 500) if cuda else (30, 100, 500)):
        reference = None
        for way in ways:
            batch = max(1, ROWS // (n_context + 4))
            n_voxels = 20000 if cuda else batch * (1 if way in ("published", "autocast") else 4)
            row = measure_apart(
                way=way,
                size=options.size,
                n_context=n_context,
                n_voxels=n_voxels,
                device=options.device,
                repeats=3,
                busy=options.busy,
            )
            per_voxel = row["seconds"] / row["n_voxels"]
            reference = reference or per_voxel
            print(
                f"| {n_context} | {WAYS[way]} | {n_voxels} | {1e3 * per_voxel:.2f} | {1 / per_voxel:.1f} "
                f"| {row['rate'] / 1e9:.0f} | {row['peak'] / 1e9:.0f} | {row['rate'] / row['peak']:.2f} "
                f"| {row['memory'] / 2**20:.0f} | {reference / per_voxel:.1f} |",
                flush=True,
            )


def show_memory(options: argparse.Namespace) -> None:
    """Peak memory of the engine for few and many voxels."""
    print("| 30 images, engine in bfloat16: voxels | peak MiB | of which results |\n|---|---|---|")
    for n_voxels in (96, 384, 1536):
        row = measure_apart(way="bfloat16", size=options.size, n_context=30, n_voxels=n_voxels, device="cpu", repeats=1)
        results = n_voxels * (getattr(ReferenceConfig, options.size)().n_features + 1) * 4
        print(f"| {n_voxels} | {row['memory'] / 2**20:.0f} | {results / 2**20:.1f} |", flush=True)


def show_long(options: argparse.Namespace) -> None:
    """Measure a long context."""
    row = measure_apart(
        way="bfloat16", size=options.size, n_context=1000, n_voxels=options.n_voxels, device=options.device, repeats=1
    )
    print("| images | voxels | seconds | GFLOP/s | matrix GFLOP/s | peak MiB |\n|---|---|---|---|---|---|")
    print(
        f"| 1000 | {options.n_voxels} | {row['seconds']:.0f} | {row['rate'] / 1e9:.0f} | {row['peak'] / 1e9:.0f} "
        f"| {row['memory'] / 2**20:.0f} |"
    )


def show_accuracy(options: argparse.Namespace) -> None:
    """Relative error of weights and predictions, and what it does to explained variance.

    Explained variance is against responses whose signal is the float32 prediction and whose noise ceiling is 0.3.
    """
    print("| size | compared | weights | predictions | EV of .300 becomes |\n|---|---|---|---|---|")
    for size in ("vis", "clip", "dino", "siglip"):
        network = make_network(getattr(ReferenceConfig, size)())
        features, responses = make_context(network.config.n_features, 100, 8)
        queries, _ = make_context(network.config.n_features, 1000, 1)
        weights = {
            p: InferenceEngine(network, device=options.device, precision=p)(features, responses).astype(float)
            for p in ("float64", "float32", "bfloat16")
        }
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            plain = published_way(network, torch.from_numpy(features), torch.from_numpy(responses))
        weights["autocast"] = plain.float().numpy().astype(float)
        single = InferenceEngine(network, device=options.device, precision="bfloat16", voxel_batch_size=1)
        weights["bfloat16, voxel by voxel"] = single(features, responses).astype(float)
        predictions = {p: w[:, :-1] @ queries.T + w[:, -1:] for p, w in weights.items()}
        signal = predictions["float32"]
        noise = np.random.default_rng(1).standard_normal(signal.shape)
        centred = signal - signal.mean(axis=1, keepdims=True)
        noise -= noise.mean(axis=1, keepdims=True)
        noise -= centred * np.sum(noise * centred, axis=1, keepdims=True) / np.sum(centred**2, axis=1, keepdims=True)
        noise *= np.sqrt(0.7 / 0.3 * signal.var(axis=1, keepdims=True) / noise.var(axis=1, keepdims=True))
        pairs = (
            ("float32", "float64"),
            ("bfloat16", "float32"),
            ("autocast", "float32"),
            ("bfloat16, voxel by voxel", "bfloat16"),
        )
        for name, reference in pairs:
            residual = signal + noise - predictions[name]
            explained = 1 - residual.var(axis=1) / (signal + noise).var(axis=1)
            print(
                f"| {size} | {name} against {reference} | {distance(weights[name], weights[reference]):.1e} "
                f"| {distance(predictions[name], predictions[reference]):.1e} | {explained.mean():.4f} |",
                flush=True,
            )


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Relative distance in the Euclidean norm."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def main() -> None:
    """Measure what is asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "memory", "accuracy", "long", "row"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("vis", "clip", "dino", "siglip"), default="clip")
    parser.add_argument("--n-context", type=int, nargs="+", help="numbers of context images")
    parser.add_argument("--n-voxels", type=int, default=1000, help="voxels of the long context")
    parser.add_argument("--busy", action="store_true", help="one thread, processor time: for a machine in use")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here")
    if options.part == "row":
        print(json.dumps(measure(**json.loads(options.row))))
        return
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, {options.device}\n")
    shows = {"speed": show_speed, "memory": show_memory, "accuracy": show_accuracy, "long": show_long}
    shows[options.part](options)


if __name__ == "__main__":
    main()
