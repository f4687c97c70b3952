# %% [markdown]
# # What encoders are asked
#
# Is a voxel predicted better than chance? Which features explain it, and which of that is theirs alone? Is one backbone
# better than another? Which image was seen? The person is a **simulation**, and so are all numbers here.

# %%
import numpy as np
import pandas as pd

from braincorl import BandedRidgeEncoder, BayesianRidgeEncoder, simulate_people
from braincorl.analysis import (
    compare_predictions,
    context_noise,
    identify,
    partition_variance,
    permutation_test,
    plot_mosaic,
)
from braincorl.analysis.colours import space_colours
from braincorl.analysis.question_figures import plot_comparison, plot_identification, plot_partition

world = simulate_people(
    n_people=1, n_own=60, n_shared=60, n_features=48, voxel_size_mm=8, layout="sheet", random_state=1
)
subject = world.people[0].subject()
test = subject.select_images(world.shared)
context = subject.select_images([name for name in subject.image_ids if name not in set(world.shared)])

# %% [markdown]
# ## Several feature spaces
#
# Two halves of the features that made the responses, and a space of noise that is wider than the number of images.
# Every voxel has its own share of signal for each space, averaged by the evidence of its own responses: nothing is
# cross-validated.

# %%
noise = np.random.default_rng(0).standard_normal((len(world.image_ids), 200))
row = {name: number for number, name in enumerate(world.image_ids.tolist())}


def spaces_of(images):
    """Features of images in each space."""
    features, rows = world.features_of(images), [row[name] for name in images.tolist()]
    return {"first half": features[:, :24], "second half": features[:, 24:], "noise": noise[rows]}


encoder = BandedRidgeEncoder().fit(spaces_of(context.image_ids), context.responses)
pd.DataFrame(encoder.shares_, columns=encoder.spaces_).describe().loc[["mean", "min", "max"]].round(3)

# %% [markdown]
# ## What each explains
#
# On new images: what is lost without a space (unique), what more than one could explain, and the product measure, whose
# parts sum to the whole. Intervals are a bootstrap over images.

# %%
parts = partition_variance(encoder, spaces_of(test.image_ids), test.responses, rois=subject.rois, n_bootstrap=100)
plot_partition(parts.regions, parts.spaces)

# %% [markdown]
# The space with the largest part, in the colours of the bars; grey where nothing is explained.

# %%
winner = np.where(parts.winner > 0, parts.winner, np.nan)
plot_mosaic(
    winner, subject.space, levels=space_colours(parts.spaces), label="largest part (simulation)", rois=subject.rois
)

# %% [markdown]
# ## Better than chance?
#
# The images are permuted, and voxels counted with a false discovery rate. The same orders serve all voxels, so that the
# p of a region takes the dependence between its voxels as it is.

# %%
predicted = encoder.predict(spaces_of(test.image_ids))
chance = permutation_test(test.responses, predicted, 100, strata=test.n_repeats, rois=subject.rois)
print(f"{np.mean(chance.q < 0.05):.0%} of the voxels at q < .05")
plot_mosaic(-np.log10(chance.q), subject.space, label="-log10 q (simulation)", signed=False, rois=subject.rois)

# %%
pd.Series(chance.p_regions, name="p of the region").to_frame()

# %% [markdown]
# ## One encoder beside another
#
# A paired test over images: the two change places at random in every image.

# %%
half = BayesianRidgeEncoder().fit(spaces_of(context.image_ids)["first half"], context.responses)
of_half = half.predict(spaces_of(test.image_ids)["first half"])
paired = compare_predictions(test.responses, predicted, of_half, rois=subject.rois, n_permutations=100, n_bootstrap=100)
plot_comparison(paired.ev_a, paired.ev_b, paired.regions, ["all spaces", "first half"])

# %% [markdown]
# ## Which image was seen?
#
# Candidates are ranked by how likely they make the measured responses of all voxels. Noise that voxels share says how
# sure to be of that; correlation of patterns is what most studies do.

# %%
few = context.select_images(context.image_ids[:15])
small = BayesianRidgeEncoder().fit(world.features_of(few.image_ids), few.responses)
shared = context_noise(small, world.features_of(few.image_ids), few.responses)
candidates = world.features_of(test.image_ids)
found = {
    ranking: identify(small, test.responses, candidates, noise=shared, ranking=ranking)
    for ranking in ("independent", "shared", "correlation")
}
plot_identification({ranking: result.table(n_bootstrap=100) for ranking, result in found.items()})

# %%
best = found["independent"]
for trial in range(3):
    names = ", ".join(test.image_ids[best.best(3)[trial]])
    print(f"seen {test.image_ids[trial]}, rank {best.ranks[trial]}: {names}")
