# %% [markdown]
# # What attention shows
#
# With a group prior, the encoder of a new voxel is written by attention over remembered voxels. What it attended to can
# be looked at: which remembered voxels, in which regions, under which supposition. People are a **simulation**; two are
# remembered, the third is new, and none of the third's region labels are used.

# %%
import numpy as np
import pandas as pd

from braincorl import GroupPrior, GroupPriorEncoder, simulate_people
from braincorl.closed_forms.bases import Metric, context_basis
from braincorl.models.attention import AttentionConfig
from braincorl.priors.regions import label_voxels

world = simulate_people(n_people=3, n_own=120, n_shared=60, n_features=32, voxel_size_mm=7, random_state=4)
new, *earlier = world.people
subject = new.subject()
own = subject.image_ids[~np.isin(subject.image_ids, world.shared)]
scanned = [person.subject() for person in earlier]
prior = GroupPrior.fit(
    [(world.features_of(s.image_ids), s.responses) for s in scanned],
    [label_voxels(s.rois, s.n_voxels) for s in scanned],
)
mine = label_voxels(subject.rois, subject.n_voxels)
regions = [name for name in prior.regions if (mine == name).any()]
print(prior)


def context(n):
    """Features and responses of n images."""
    return world.features_of(own[:n]).astype(float), subject.select_images(own[:n]).responses.astype(float)


# %% [markdown]
# ## To whom does a voxel attend?
#
# One head by hand: the equation at the top of `braincorl/models/attention.py`, for likeness .75 and a signal of .4. The
# table gives, for the voxels of each region of the new person (rows), the share of their attention that goes to
# remembered voxels of each region (columns); attention to voxels outside all regions makes up the rest.

# %%
X, y = context(30)
items = prior.items()
basis = context_basis(X - X.mean(axis=0), Metric(items.moment, AttentionConfig().attended_metric, prior.scale))
likeness, signal = 0.75, 0.4
gain = likeness * np.sqrt(signal)
marginal = signal * (1 - likeness**2) * basis.values + 1 - signal
keys = items.weights @ basis.rows.T
z = basis.vectors.T @ ((y - y.mean(axis=0)) / y.std(axis=0))
logits = (gain * z / marginal[:, None]).T @ keys.T - gain**2 / 2 * (keys**2 @ (1 / marginal)) + items.log_mass
attention = np.exp(logits - logits.max(axis=1, keepdims=True))
attention /= attention.sum(axis=1, keepdims=True)
to_region = np.stack([attention[:, items.region == prior.regions.index(name)].sum(axis=1) for name in regions], axis=1)
pd.DataFrame([to_region[mine == name].mean(axis=0) for name in regions], index=regions, columns=regions).round(2)

# %% [markdown]
# How many remembered voxels share a voxel's attention (exponential of its entropy).

# %%
entropy = -(attention * np.log(attention + 1e-300)).sum(axis=1)
print(f"30 images: {np.exp(np.median(entropy)):.0f} of {len(items.weights)} items (simulation)")

# %% [markdown]
# ## A localiser without a localiser
#
# All heads together give `region_probability_`. Among voxels that lie in a region, how often is the likeliest region of
# these the right one? Chance is the share of the largest region.

# %%
inside = np.isin(mine, regions)
truth = np.array([regions.index(name) for name in mine[inside]])
accuracy, attending, by_length = {}, {}, (10, 20, 50, 100)
for n in by_length:
    encoder = GroupPriorEncoder(prior).fit(*context(n))
    columns = [list(encoder.region_names_).index(name) for name in regions]
    accuracy[n] = float(np.mean(encoder.region_probability_[inside][:, columns].argmax(axis=1) == truth))
    heads = encoder.posterior_
    attends = heads.head_residual < heads.head_signal
    attending[n] = heads.probability[:, attends].sum(axis=1)
print(f"chance {np.bincount(truth).max() / truth.size:.2f} (simulation)")
pd.Series(accuracy, name="share of voxels in the right region (simulation)").round(2).to_frame()

# %% [markdown]
# ## Which heads are believed?
#
# Ridge heads suppose that nothing is alike (the rest), attending heads that a remembered voxel is. Each voxel's own
# responses weigh them. Shown is the probability of all attending heads, by the noise ceiling of the voxel.

# %%
ceiling = subject.noise_ceiling()
groups = {"ceiling < .2": ceiling < 0.2, "ceiling > .5": ceiling > 0.5}
pd.DataFrame(
    {name: [attending[n][members].mean() for n in by_length] for name, members in groups.items()},
    index=pd.Index(by_length, name="images (simulation)"),
).round(2)
