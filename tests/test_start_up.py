"""Nobody waits for libraries that a command has no use for."""

import subprocess
import sys

import pytest
from people import make_person, make_pool

HEAVY = ("torch", "scipy", "sklearn", "nibabel", "nilearn", "pandas", "matplotlib", "open_clip", "timm")


def modules_after(code, *arguments):
    """Which heavy libraries a process of its own has imported in the end."""
    ending = f"\nimport sys; print('imported', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + ending, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_neither_the_import_nor_help_nor_version_needs_a_library():
    run = "import braincorl, contextlib\nfrom braincorl.cli.main import main\n"
    for option in ("--help", "--version"):
        run += f"with contextlib.suppress(SystemExit): main(['{option}'])\n"
    assert modules_after(run) == set()


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    import numpy as np

    from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder

    folder, pool, rng = tmp_path_factory.mktemp("fits"), make_pool(np.random.default_rng(1)), np.random.default_rng(2)
    X, y = make_person(pool, rng).pair
    memory = GroupPrior.fit([make_person(pool, rng).pair, make_person(pool, rng).pair])
    encoders = (RidgeEncoder(), BayesianRidgeEncoder(), InContextEncoder(), GroupPriorEncoder(memory))
    for encoder in encoders:
        encoder.fit(X, y).save(folder / f"{type(encoder).__name__}.safetensors")
    return folder


def test_predicting_and_the_verbs_that_do_need_no_torch(fits):
    code = (
        "import sys, numpy as np\n"
        "from braincorl.cli.fits import predict, query, report, score\n"
        "from braincorl import load_encoder\n"
        "for name in ('RidgeEncoder', 'BayesianRidgeEncoder', 'InContextEncoder', 'GroupPriorEncoder'):\n"
        "    load_encoder(f'{sys.argv[1]}/{name}.safetensors').predict(np.ones((2, 6)))\n"
    )
    assert "torch" not in modules_after(code, str(fits))


def test_a_network_of_a_checkpoint_needs_no_compiler(tmp_path):
    code = (
        "import sys, numpy as np, torch\n"
        "from braincorl import InContextEncoder\n"
        "from braincorl.checkpoint import save_checkpoint\n"
        "from braincorl.models import ReferenceConfig, ReferenceTransformer\n"
        "inputs = {'features': 'unit norm', 'responses': 'z-scored'}\n"
        "network = ReferenceTransformer(ReferenceConfig(6, 20, 1, 10, 8, 2))\n"
        "save_checkpoint(sys.argv[1], network, {'training': {}, 'backbone': 'unknown', 'inputs': inputs})\n"
        "rng = np.random.default_rng(0)\n"
        "X, y = rng.standard_normal((9, 6)), rng.standard_normal((9, 3))\n"
        "InContextEncoder(sys.argv[1], device='cpu').fit(X / np.linalg.norm(X, axis=1, keepdims=True), y)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    assert "torch" in modules_after(code, str(tmp_path / "network.safetensors"))
