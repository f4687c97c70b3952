# %% [markdown]
# # Which images made this encoder?
#
# Two answers, side by side. **Attention** says where a network looked. **Influence** says what an image changed: leave
# it out, fit again, and see how far predictions move. Influence is defined for every encoder; attention alone can
# mislead, as the last part shows. The person is a **simulation**.

# %%
import numpy as np
import torch

from braincorl import BayesianRidgeEncoder, simulate_people
from braincorl.analysis import context_attention, context_by_roi, context_influence
from braincorl.analysis.figures import new_figure
from braincorl.models import InferenceEngine, ReferenceConfig, ReferenceTransformer

world = simulate_people(n_people=1, n_own=40, n_shared=40, n_features=32, voxel_size_mm=6, random_state=2)
person, subject = world.people[0], world.people[0].subject()
own = subject.select_images(subject.image_ids[~np.isin(subject.image_ids, world.shared)])
X, y, names = world.features_of(own.image_ids), own.responses.copy(), own.image_ids
pool = world.features_of(world.shared)

# %% [markdown]
# ## Influence
#
# Root mean square change of the predictions over a pool of images, in the units of the responses. Averaged over a
# region it says which images the region's encoders rest on.

# %%
influence = context_influence(BayesianRidgeEncoder(), X, y, pool)
table = context_by_roi({"influence": influence}, names, person.rois)
table.groupby("roi", sort=False).head(3).set_index("roi").round(3)

# %% [markdown]
# A spoilt trial shows at once: the person moved while the sixth image was shown, and all responses are off.

# %%
spoilt = y.copy()
spoilt[5] += 6.0 * y.std(axis=0)
after = context_influence(BayesianRidgeEncoder(), X, spoilt, pool)
print(f"image 6 had rank {(influence.mean(axis=0) > influence.mean(axis=0)[5]).sum() + 1} of {len(names)},")
print(f"spoilt it has rank {(after.mean(axis=0) > after.mean(axis=0)[5]).sum() + 1}")

# %% [markdown]
# ## Attention of the published network
#
# Of the architecture only: a small network with **random weights**, since no trained one is at hand here. With the
# authors' checkpoint, pass `InContextEncoder(checkpoint=…)` in place of the engine. Each voxel costs a pass through the
# network, so ten voxels of each region are asked.

# %%
torch.manual_seed(0)
network = ReferenceTransformer(ReferenceConfig(n_features=32, width=40, n_layers=3, n_heads=10, ffn_width=64))
engine = InferenceEngine(network, device="cpu", precision="float32")
asked = np.sort(np.concatenate([np.flatnonzero(members)[:10] for members in person.rois.values()]))
rois = {name: members[asked] for name, members in person.rois.items()}
X_unit = X / np.linalg.norm(X, axis=1, keepdims=True)
attention = context_attention(engine, X_unit, y[:, asked])
rollout = context_attention(engine, X_unit, y[:, asked], how="rollout")
layers = context_attention(engine, X_unit, y[:, asked], per_layer=True)
print("voxels, images:", attention.shape, "| voxels, layers, images:", layers.shape)

# %%
both = context_by_roi({"attention": attention, "rollout": rollout, "influence": influence[asked]}, names, rois)
both.query("roi == 'FFA'").head(5).round(4)

# %% [markdown]
# ## Attention alone can mislead
#
# An untrained network attends to something, too, and its maps look no less sure of themselves. What they have to do
# with the images that a good encoder rests on, a correlation over images tells.


# %%
def agreement(a, b):
    """Mean over voxels of the correlation over images."""
    return float(np.mean([np.corrcoef(row, other)[0, 1] for row, other in zip(a, b, strict=True)]))


{
    name: round(agreement(values, influence[asked]), 2)
    for name, values in {"attention": attention, "rollout": rollout}.items()
}

# %% [markdown]
# ## Another network
#
# Whatever has a method `attention(features, responses)` can be asked: features (n_context, n_features) and z-scored
# responses (n_voxels, n_context) in, one number per voxel and image out. Here kernel ridge in its dual form, a
# one-layer linear attention whose weights on the images are known exactly.


# %%
class DualRidge:
    """Kernel ridge: the encoder is a weighted sum of the context images."""

    def attention(self, features, responses):
        """Size of each image's weight in the sum."""
        centred = features - features.mean(axis=0)
        return np.abs(np.linalg.solve(centred @ centred.T + np.eye(len(features)), responses.T).T)


dual = context_attention(DualRidge(), X, y[:, asked])
print("agreement with the influence on Bayesian ridge:", round(agreement(dual, influence[asked]), 2))

# %%
figure = new_figure(9, 3)
for axes, (name, values) in zip(
    figure.subplots(1, 3),
    {"attention": attention, "dual ridge": dual, "influence": influence[asked]}.items(),
    strict=True,
):
    axes.imshow(values, aspect="auto", cmap="inferno")
    axes.set(title=f"{name} (simulation)", xlabel="context image", ylabel="voxel")
figure.tight_layout()
figure
