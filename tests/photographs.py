"""Photographs that Python packages ship, and the categories of ImageNet that each shows.

Those of a category that ImageNet has: an astronaut, coins or a brick wall are none. Packages that are not installed are
passed over.
"""

from importlib.util import find_spec
from pathlib import Path

# Package, file in it -> categories.
SHOWN = {
    ("sklearn", "datasets/images/flower.jpg"): {985},  # daisy
    ("sklearn", "datasets/images/china.jpg"): {698},  # palace
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"): {652},  # military uniform
    ("skimage", "data/coffee.png"): {967},  # espresso
    ("skimage", "data/camera.png"): {872},  # tripod
    ("skimage", "data/chelsea.png"): {281, 282, 285},  # cats
    ("skimage", "data/rocket.jpg"): {657, 812},  # missile, space shuttle
    ("skimage", "data/motorcycle_left.png"): {665, 670},  # moped, motor scooter
    ("skimage", "data/clock_motion.png"): {892},  # wall clock, blurred
    ("gradio", "media_assets/images/lion.jpg"): {291},
    ("gradio", "media_assets/images/cheetah.jpg"): {293},
    ("gradio", "media_assets/images/cheetah1.jpg"): {293},
}


def photographs():
    """Path -> categories, of those that are installed."""
    found = {}
    for (package, file), categories in SHOWN.items():
        spec = find_spec(package)
        for folder in [] if spec is None else spec.submodule_search_locations or ():
            if (Path(folder) / file).is_file():
                found[Path(folder) / file] = categories
    return found
