# %% [markdown]
# # What do voxels respond to? Ask in words
#
# In spaces like CLIP's, a text is a point among images, so it can be put to a voxel's encoder like an image. The person
# here is a **simulation** with regions that prefer categories, and the texts are **made up**: where the images of a
# category lie, moved away from all images as CLIP's texts are. With your own data, `braincorl embed --text` makes them,
# and `braincorl query` does what follows.

# %%
import numpy as np

from braincorl import BayesianRidgeEncoder, RidgeEncoder, simulate_people
from braincorl.analysis import (
    cluster_voxels,
    compare_encoders,
    embed_voxels,
    encoder_components,
    localizer_accuracy,
    preferred_images,
    scaling_curve,
    selection_by_roi,
    summarize_rois,
    text_selectivity,
)
from braincorl.analysis.figures import new_figure, plot_scaling
from braincorl.metrics import explained_variance

world = simulate_people(n_people=2, n_own=100, n_shared=60, n_features=64, voxel_size_mm=6, random_state=0)
category = np.array([name.rsplit("-", 1)[0] for name in world.image_ids])
words = sorted(set(category.tolist()))
gap = np.full(world.features.shape[1], 0.3)
texts = np.stack([world.features[category == word].mean(axis=0) for word in words]) + gap
# Texts of all kinds, so that what all texts share can be told from what one says: random images, moved like the texts.
others = world.features[np.random.default_rng(0).permutation(len(world.features))[:60]] + gap
pool = world.features[~np.isin(world.image_ids, world.shared)]


def fit(person, n_images):
    """Fit an encoder of a simulated person from some of the images that this person alone saw."""
    subject = person.subject()
    own = subject.select_images(subject.image_ids[~np.isin(subject.image_ids, world.shared)][:n_images])
    return BayesianRidgeEncoder().fit(world.features_of(own.image_ids), own.responses, X_pool=pool)


person = world.people[0]
encoder = fit(person, 80)

# %% [markdown]
# ## Selectivity
#
# How far the predicted response moves from its mean over images when an image becomes more like the text, in standard
# deviations of the voxel's predicted responses. `z` says how sure the encoder is of the sign, and a voxel is selected
# where the posterior probability of the other sign is below `q`.

# %%
result = text_selectivity(encoder, texts, pool, background=others, texts=words)
table = selection_by_roi(result, person.rois)
table.pivot_table(index="roi", columns="text", values="share").round(2)

# %% [markdown]
# A contrast asks what tells faces from places, rather than from texts in general.

# %%
face, place = texts[words.index("face")][None], texts[words.index("place")][None]
contrast = text_selectivity(encoder, face, pool, versus=place, background=others, texts=["face"])
selection_by_roi(contrast, person.rois).round(2)

# %% [markdown]
# ## Do the words find the localisers' regions?
#
# `accuracy` is the share of a category's voxels that its word excites most among these words; `auc` compares the
# category's voxels with those of the other categories.

# %%
localizers = {"face": ["FFA"], "body": ["EBA"], "place": ["PPA", "OPA", "RSC"], "food": ["Food"]}
localizer_accuracy(result, localizers, person.rois).round(2)

# %% [markdown]
# `specificity` is selectivity relative to the person's other voxels: it says what a voxel responds to more than others
# do, and finds the words of single voxels better. It depends on which voxels were fitted.

# %%
{name: words[int(result.specificity[members].mean(axis=0).argmax())] for name, members in person.rois.items()}

# %% [markdown]
# ## Images that drive a region most

# %%
best = preferred_images(encoder, pool, world.image_ids[~np.isin(world.image_ids, world.shared)], person.rois, n=4)
best.pivot_table(index="rank", columns="roi", values="image", aggfunc="first")

# %% [markdown]
# ## Encoders as data
#
# Principal components in the metric of the images' features: what counts is how predictions differ, not weights along
# directions in which no image varies. A component is an encoder too, so images can be ranked along it.

# %%
parts = encoder_components(encoder, pool, n_components=3)
along = world.features @ parts.weights.T
print("share of predicted variance:", parts.explained.round(2))
{
    f"component {k + 1}": {
        word: round(float(along[category == word, k].mean() - along[:, k].mean()), 1) for word in words
    }
    for k in range(3)
}

# %%
labels, _ = cluster_voxels(encoder, pool, n_clusters=6)
{name: np.bincount(labels[members], minlength=6).tolist() for name, members in person.rois.items()}

# %% [markdown]
# A map lays voxels with like predictions side by side. Principal components keep distances and show two directions;
# t-SNE keeps neighbours and nothing else. With `reducer=umap.UMAP()` it is UMAP (`pip install umap-learn`).

# %%
plane = embed_voxels(encoder, pool)
figure = new_figure(10, 4.2)
for axes, points, title in zip(
    figure.subplots(1, 2), (parts.scores, plane), ("principal components 1 and 2", "t-SNE"), strict=True
):
    axes.scatter(*points[:, :2].T, s=4, color="lightgrey", linewidths=0)
    for name, members in person.rois.items():
        axes.scatter(*points[members, :2].T, s=8, linewidths=0, label=name)
    axes.set(title=f"{title} (simulation)", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
axes.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
figure.tight_layout()
figure

# %% [markdown]
# ## Another person, the same regions
#
# `mean_r` correlates the mean predictions of the two regions over images, `cka` the whole patterns of all their voxels.

# %%
other = world.people[1]
compare_encoders(encoder, fit(other, 80), pool, person.rois, other.rois).round(2)

# %% [markdown]
# ## How many images does it take?
#
# Explained variance against the noise-free truth of the **simulation**, three draws of the context; then a table per
# region with bootstrap intervals over voxels and draws. Voxels are not independent, so these intervals say how much the
# mean hangs on which voxels were counted; they say nothing on other people.

# %%
subject = person.subject()
own = subject.select_images(subject.image_ids[~np.isin(subject.image_ids, world.shared)])
X, T = world.features_of(own.image_ids), world.features_of(world.shared)
truth = person.true_responses(T)
encoders = {"ridge": RidgeEncoder(), "Bayesian ridge": BayesianRidgeEncoder()}
curve = scaling_curve(encoders, X, own.responses, [10, 30, 100], n_draws=3, X_test=T, y_test=truth, X_pool=pool)
figure = new_figure(6, 4)
plot_scaling(figure.subplots(), curve.rename(columns={"ev": "score"}), "EV against the truth (simulation)")
figure

# %%
draws = [np.random.default_rng(draw).permutation(len(X))[:30] for draw in range(3)]
ev = [
    explained_variance(truth, BayesianRidgeEncoder().fit(X[rows], own.responses[rows], X_pool=pool).predict(T))
    for rows in draws
]
summarize_rois({"ev": np.stack(ev)}, person.rois, n_bootstrap=500)[["roi", "n_voxels", "ev_mean", "ev_low", "ev_high"]]
