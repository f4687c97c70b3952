# %% [markdown]
# # The paper's figures, on simulated people
#
# Yu et al. (NeurIPS 2025, arXiv 2505.15813) ask how well an encoder of a new person's voxels does from few images,
# against encoders trained on all of that person's images. Here the same figures are made with the encoders of this
# package. The people are a **simulation**: the figures show how such a study is run and read, not what brains do. With
# your own data, replace `world` by `load_nsd` or `load_subject` and a features file; with the published checkpoint, add
# `InContextEncoder(checkpoint=…)` to `encoders`.
#
# Protocol: one person is new, the others are the earlier people; images that everybody saw, three times each, are the
# test; the context is drawn from the new person's own images, one trial each.

# %%
import numpy as np
import pandas as pd

from braincorl import (
    BayesianRidgeEncoder,
    GroupPrior,
    GroupPriorEncoder,
    InContextEncoder,
    RidgeEncoder,
    simulate_people,
)
from braincorl.analysis import plot_surface
from braincorl.analysis.colours import encoder_colours
from braincorl.analysis.figures import new_figure, plot_scaling
from braincorl.metrics import explained_variance, pearson_r

world = simulate_people(
    n_people=3, n_own=200, n_shared=60, n_features=32, voxel_size_mm=7, layout="sheet", random_state=5
)
new, *earlier = world.people
subject = new.subject()
own = subject.image_ids[~np.isin(subject.image_ids, world.shared)]
test = subject.select_images(world.shared)
queries = world.features_of(test.image_ids)
ceiling = test.noise_ceiling()
scanned = [person.subject() for person in earlier]
prior = GroupPrior.fit([(world.features_of(s.image_ids), s.responses) for s in scanned])


def fit_and_score(encoder, images):
    """Explained variance (n_voxels,) of the test images' measured responses."""
    encoder.fit(world.features_of(images), subject.select_images(images).responses)
    return explained_variance(test.responses, encoder.predict(queries))


# %% [markdown]
# ## Explained variance against the number of context images
#
# The dotted line is the mean noise ceiling, which no encoder can pass. The dashed line is ridge regression trained on
# all of the person's own images.

# %%
encoders = {
    "ridge": RidgeEncoder(),
    "Bayesian ridge": BayesianRidgeEncoder(),
    "in-context": InContextEncoder(),
    "group prior": GroupPriorEncoder(prior),
}
fully_trained = fit_and_score(RidgeEncoder(), own)
rows, voxelwise = [], {}
for draw in range(2):
    order = np.random.default_rng(draw).permutation(own)
    for n_context in (10, 20, 50, 100):
        for name, encoder in encoders.items():
            ev = fit_and_score(encoder, order[:n_context])
            rows.append({"encoder": name, "n_context": n_context, "draw": draw, "score": float(ev.mean())})
            voxelwise[name, n_context] = ev
scores = pd.DataFrame(rows)
figure = new_figure(7.5, 4)
axes = figure.subplots()
plot_scaling(axes, scores, "mean EV of measured responses (simulation)", float(ceiling.mean()))
axes.axhline(fully_trained.mean(), color="black", linewidth=1.2, linestyle="--", label=f"ridge, all {own.size} images")
axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
figure.tight_layout()
figure

# %%
scores.groupby(["encoder", "n_context"], sort=False)["score"].agg(["mean", "std"]).unstack().round(3)

# %% [markdown]
# ## Voxel by voxel against the fully trained encoder
#
# Do the voxels that can be predicted from many images come out from few? One point per voxel.

# %%
figure = new_figure(10, 3)
for axes, (name, colour) in zip(figure.subplots(1, 4, sharey=True), encoder_colours(encoders).items(), strict=True):
    few = voxelwise[name, 100]
    axes.plot([0, 0.8], [0, 0.8], color="black", linewidth=0.8)
    axes.scatter(fully_trained, few, s=3, color=colour, alpha=0.5)
    r = pearson_r(fully_trained[:, None], few[:, None])[0]
    axes.set(title=f"{name}\nr = {r:.2f}", xlabel=f"EV, ridge on {own.size}", xlim=(-0.4, 0.9), ylim=(-0.4, 0.9))
    axes.spines[["top", "right"]].set_visible(False)
figure.axes[0].set_ylabel("EV, 100 images (simulation)")
figure.tight_layout()
figure

# %% [markdown]
# ## Regions
#
# Mean EV over each region's voxels from 100 images, beside the noise ceiling and the fully trained encoder.

# %%
regions = {name: members for name, members in subject.rois.items() if members.sum() >= 8}
bars = {name: voxelwise[name, 100] for name in encoders} | {"ridge, all images": fully_trained}
figure = new_figure(9, 3.6)
axes = figure.subplots()
position, width = np.arange(len(regions)), 0.8 / len(bars)
colours = encoder_colours(bars)
for number, (name, ev) in enumerate(bars.items()):
    heights = [ev[members].mean() for members in regions.values()]
    axes.bar(position + (number - (len(bars) - 1) / 2) * width, heights, width, color=colours[name], label=name)
for x, members in zip(position, regions.values(), strict=True):
    axes.plot([x - 0.42, x + 0.42], [ceiling[members].mean()] * 2, color="black", linewidth=1.5)
axes.set_xticks(position, list(regions))
axes.set_ylabel("mean EV (simulation); black: ceiling")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
figure.tight_layout()
figure

# %% [markdown]
# ## On the cortex
#
# The map from 100 images, voxels of low noise ceiling left out.

# %%
plot_surface(
    voxelwise["group prior", 100],
    subject.space,
    title="EV from 100 images, group prior (simulation)",
    label="EV",
    signed=False,
    ceiling=ceiling,
    views=["lateral", "ventral"],
)
