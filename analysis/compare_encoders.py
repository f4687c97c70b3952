# %% [markdown]
# # Compare encoders
#
# The same new person, the same few images, every encoder. The people are a **simulation**, so the noise-free truth is
# known: explained variance (EV) here is against that truth, and a perfect encoder would reach 1. Draws of the context
# images differ, and so do scores; a comparison without their spread is worth little.

# %%
import time

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
from braincorl.analysis import summarize_rois
from braincorl.analysis.figures import new_figure, plot_scaling
from braincorl.metrics import explained_variance

world = simulate_people(n_people=3, n_own=110, n_shared=60, n_features=32, voxel_size_mm=7, random_state=2)
new, *earlier = world.people
subject = new.subject()
own = subject.image_ids[~np.isin(subject.image_ids, world.shared)]
queries = world.features_of(world.shared)
truth = new.true_responses(queries)
subject

# %% [markdown]
# ## Two earlier people
#
# A group prior remembers their voxels; the new person's voxels attend to them.

# %%
scanned = [person.subject() for person in earlier]
prior = GroupPrior.fit([(world.features_of(s.image_ids), s.responses) for s in scanned])
print(prior)

# %% [markdown]
# ## Few images to many

# %%
encoders = {
    "ridge": RidgeEncoder(),
    "Bayesian ridge": BayesianRidgeEncoder(),
    "in-context": InContextEncoder(),
    "group prior": GroupPriorEncoder(prior),
}
rows, seconds = [], dict.fromkeys(encoders, 0.0)
for draw in range(2):
    order = np.random.default_rng(draw).permutation(own)
    for n_context in (10, 20, 50, 100):
        context = subject.select_images(order[:n_context])
        X = world.features_of(context.image_ids)
        for name, encoder in encoders.items():
            start = time.perf_counter()
            predicted = encoder.fit(X, context.responses).predict(queries)
            seconds[name] += time.perf_counter() - start
            ev = explained_variance(truth, predicted)
            rows.append({"encoder": name, "n_context": n_context, "draw": draw, "score": float(np.mean(ev))})
scores = pd.DataFrame(rows)
scores.groupby(["encoder", "n_context"], sort=False)["score"].agg(["mean", "std"]).unstack().round(3)

# %%
figure = new_figure(6, 4)
plot_scaling(figure.subplots(), scores, "EV against the truth (simulation)")
figure

# %% [markdown]
# Seconds in all, on whatever runs this notebook:

# %%
pd.Series(seconds, name="seconds").round(2).to_frame()

# %% [markdown]
# ## Region by region
#
# From twenty images, where the encoders differ most.

# %%
context = subject.select_images(own[:20])
X = world.features_of(context.image_ids)
by_encoder = {
    name: explained_variance(truth, encoder.fit(X, context.responses).predict(queries))
    for name, encoder in encoders.items()
}
summarize_rois(by_encoder, subject.rois).filter(regex="roi|n_voxels|_mean").round(3)

# %% [markdown]
# ## Voxel by voxel
#
# A mean can hide that an encoder loses in some voxels. This is the share of voxels in which each encoder beats ridge.

# %%
better = {name: np.mean(ev > by_encoder["ridge"]) for name, ev in by_encoder.items() if name != "ridge"}
pd.Series(better, name="share of voxels").round(2).to_frame()
