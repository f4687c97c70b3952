import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from braincorl.features import ImageEmbedder


class NetworkUsedError(AssertionError):
    pass


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test of this folder may use the network; whatever tries, fails."""

    def refuse(*_args, **_kwargs):
        raise NetworkUsedError("a test tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)

    def unknown_host(*_args, **_kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown_host)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small gain nothing from threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """Name of an open_clip architecture small enough for tests; its text vocabulary is CLIP's."""
    import open_clip

    path = tmp_path_factory.mktemp("architecture") / "tiny-clip.json"
    vision = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    return "tiny-clip"


@pytest.fixture(scope="session")
def clip_embedder(tiny_clip):
    return ImageEmbedder(f"open_clip:{tiny_clip}", weights="random:3", precision="float32")


@pytest.fixture
def pixels():
    """Eleven smooth pictures, 40 x 52, uint8."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (11, 5, 7, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((52, 40), Image.Resampling.BICUBIC)) for image in coarse])


@pytest.fixture
def picture_folder(tmp_path, pixels):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for row, image in enumerate(pixels):
        name = f"more/img{row}.png" if row >= 9 else f"img{row}.png"
        Image.fromarray(image).save(folder / name)
    return folder
