# %% [markdown]
# # What algorithm is attention?
#
# A transformer that is trained to predict in context may learn an algorithm: steps of gradient descent, Newton
# iterations, ridge regression, Bayesian averaging (Garg et al. 2022; von Oswald et al. 2023; Fu et al. 2024). In the
# native transformer nothing is trained: its heads are hypotheses, and evidence weighs them. Here its predictions are
# laid beside those of such algorithms, on the same contexts. Responses are a **simulation**. The layers of the
# published architecture are looked at in [layer_by_layer.py](layer_by_layer.py).

# %%
import numpy as np
import pandas as pd

from braincorl import BayesianRidgeEncoder, InContextEncoder, RidgeEncoder, simulate_people
from braincorl.analysis.algorithms import difference, gradient_descent, newton
from braincorl.metrics import explained_variance

world = simulate_people(n_people=1, n_own=120, n_shared=60, voxel_size_mm=6, random_state=2)
person = world.people[0]
subject = person.subject()
own = np.array([name for name in subject.image_ids if name not in set(world.shared)])
queries = world.features_of(world.shared)
truth = person.true_responses(queries)
pool = world.features_of(own)


def context(n, draw=0):
    """Features and responses of n images."""
    chosen = subject.select_images(np.random.default_rng(draw).permutation(own)[:n])
    return world.features_of(chosen.image_ids).astype(float), chosen.responses.astype(float)


# %% [markdown]
# ## Beside known algorithms
#
# Gradient descent starts from zero weights, with the largest stable step; a Newton iteration refines an approximate
# inverse of the covariance (Schulz), which squares its error every time. The number is the mean squared difference of
# the predictions from the network's, over the mean variance of the two: 0 is the same, 2 unrelated.


# %%
def compare(n):
    """Difference from the network, and EV against the truth, of every algorithm."""
    X, y = context(n)

    def linear(weights):
        return (queries - X.mean(axis=0)) @ weights + y.mean(axis=0)

    network = InContextEncoder().fit(X, y, X_pool=pool).predict(queries)
    others = {"network": network, "true encoders": truth}
    descent, schulz = gradient_descent(X, y, (1, 3, 10, 30, 100)), newton(X, y, (1, 3, 6, 10))
    others |= {f"gradient descent, {k} steps": linear(weights) for k, weights in descent.items()}
    others |= {f"Newton, {k} iterations": linear(weights) for k, weights in schulz.items()}
    others["ridge"] = RidgeEncoder().fit(X, y).predict(queries)
    others["Bayesian ridge"] = BayesianRidgeEncoder().fit(X, y, X_pool=pool).predict(queries)
    return {name: (difference(network, p), explained_variance(truth, p).mean()) for name, p in others.items()}


found = {n: compare(n) for n in (10, 30, 100)}
distance = pd.DataFrame({n: {name: pair[0] for name, pair in rows.items()} for n, rows in found.items()})
accuracy = pd.DataFrame({n: {name: pair[1] for name, pair in rows.items()} for n, rows in found.items()})
pd.concat({"difference from the network": distance, "EV against the truth": accuracy}, axis=1).round(2)

# %% [markdown]
# It is nearest to Bayesian ridge, which its first layer is, then to gradient descent stopped after very few
# steps; how many are nearest grows with the context, because a longer context supports less shrinkage. Many steps, and
# Newton iterations, run toward interpolation, which few noisy images do not support.

# %%
steps = [name for name in distance.index if name.startswith("gradient")]
{n: distance.loc[steps, n].idxmin() for n in distance.columns}

# %% [markdown]
# ## With context length, and with noise
#
# How much of a response the heads take for signal, by the number of images, and by the noise ceiling of the voxel with
# thirty images.

# %%
ceiling = subject.noise_ceiling()
kinds = {"all voxels": ceiling >= 0, "ceiling < .2": ceiling < 0.2, "ceiling > .5": ceiling > 0.5}
signal = {}
for n in (4, 10, 30, 100):
    fraction = InContextEncoder().fit(*context(n), X_pool=pool).signal_fraction_
    signal[f"{n} images"] = {kind: fraction[inside].mean() for kind, inside in kinds.items()}
pd.DataFrame(signal).T.round(2)
