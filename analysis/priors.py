# %% [markdown]
# # Group priors
#
# What do earlier people teach about a new one? A group prior is a memory of their voxels' weights. A new person's
# voxels attend to it, and what attention leaves of their responses is ridge's. All people here are a **simulation**
# with known truth.

# %%
import numpy as np
import pandas as pd

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, simulate_people
from braincorl.analysis import plot_mosaic
from braincorl.metrics import explained_variance
from braincorl.priors.image_selection import select_images
from braincorl.priors.regions import label_voxels

world = simulate_people(
    n_people=3, n_own=120, n_shared=60, n_features=32, voxel_size_mm=6, layout="sheet", random_state=4
)
new, *earlier = world.people
subject = new.subject()
own = subject.image_ids[~np.isin(subject.image_ids, world.shared)]
queries = world.features_of(world.shared)
truth = new.true_responses(queries)

# %% [markdown]
# ## Remember
#
# People may have seen different images and have different numbers of voxels. Given region labels, the prior
# also remembers which region each voxel lies in. Nothing is learned beyond one closed-form fit per person.

# %%
scanned = [person.subject() for person in earlier]
data = [(world.features_of(s.image_ids), s.responses) for s in scanned]
labels = [label_voxels(s.rois, s.n_voxels) for s in scanned]
prior = GroupPrior.fit(data, labels)
print(prior)
pd.Series(prior.summary).to_frame("")

# %% [markdown]
# ## A new person, from ten images
#
# `rois` names the new person's regions, as an atlas or a localiser would.

# %%
mine = label_voxels(subject.rois, subject.n_voxels)
labelled = mine != ""


def mean_ev(encoder, n_images, rois=None):
    """Mean EV against the truth, of all voxels and of those in a region."""
    context = subject.select_images(own[:n_images])
    more = {} if rois is None else {"rois": rois}
    encoder.fit(world.features_of(context.image_ids), context.responses, **more)
    ev = explained_variance(truth, encoder.predict(queries))
    return float(ev.mean()), float(ev[labelled].mean())


rows = []
for n_images in (10, 20, 50):
    results = {
        "Bayesian ridge": mean_ev(BayesianRidgeEncoder(), n_images),
        "group prior": mean_ev(GroupPriorEncoder(prior), n_images),
        "group prior, regions known": mean_ev(GroupPriorEncoder(prior), n_images, mine),
    }
    rows += [(n_images, name, *ev) for name, ev in results.items()]
table = pd.DataFrame(rows, columns=["images", "encoder", "EV, all voxels", "EV, in regions"])
table.round(3)

# %% [markdown]
# ## Which region is this?
#
# Without labels of the new person, attention tells where the remembered voxels lie that a voxel resembles. More
# of this, and from how many images: [what_it_learned.py](what_it_learned.py).

# %%
encoder = GroupPriorEncoder(prior).fit(world.features_of(own[:50]), subject.select_images(own[:50]).responses)
early = subject.rois["EarlyVis"]
share = encoder.region_probability_[:, list(encoder.region_names_).index("EarlyVis")]
plot_mosaic(
    share,
    subject.space,
    title=f"Probability of EarlyVis: {share[early].mean():.2f} in it, {share[~early].mean():.2f} outside (simulation)",
    signed=False,
    rois={"EarlyVis": early},
)

# %% [markdown]
# ## How sure is it?
#
# Share of measured responses to other images, one trial each as in the context, inside the predictive intervals.

# %%
test = subject.select_images(own[50:])
mean, std = encoder.predict(world.features_of(test.image_ids), return_std=True)
inside = {
    f"{level:.0%}": np.mean(np.abs(test.responses - mean) < width * std)
    for level, width in ((0.5, 0.674), (0.8, 1.282), (0.95, 1.96))
}
pd.Series(inside, name="share inside").round(3).to_frame()

# %% [markdown]
# ## Which images to show?
#
# The prior knows which images would tell most. Greedy choice of twenty, against random ones.

# %%
chosen = own[select_images(world.features_of(own).astype(float), 20, prior)]
drawn = [np.random.default_rng(seed).choice(own, 20, replace=False) for seed in range(3)]


def ev_from(images):
    """Mean EV of the group prior encoder from these images."""
    fitted = GroupPriorEncoder(prior).fit(world.features_of(images), subject.select_images(images).responses)
    return float(explained_variance(truth, fitted.predict(queries)).mean())


print(f"chosen {ev_from(chosen):.3f}; random {', '.join(f'{ev_from(images):.3f}' for images in drawn)}")
