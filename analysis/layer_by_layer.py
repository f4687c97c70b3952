# %% [markdown]
# # What does each layer know?
#
# A transformer that is trained to predict in context may compute in steps: each layer one step of gradient descent
# (von Oswald et al. 2023) or one iteration of Newton's method (Fu et al. 2024), toward ridge regression or the Bayes
# posterior. Here the published architecture is trained in small, and read out after every layer, beside such
# algorithms on the same contexts. All responses are a **simulation**.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from braincorl import RidgeEncoder, load_checkpoint
from braincorl.analysis.context.algorithms import difference, gradient_descent, nearest, newton, posterior_mean
from braincorl.analysis.context.layers import LayerReadouts, layer_states, read_layers
from braincorl.analysis.figures import new_figure
from braincorl.models import ReferenceConfig
from braincorl.training.loop import train
from braincorl.training.recipe import Recipe, StageConfig
from braincorl.training.worlds import WorldConfig

# %% [markdown]
# ## A small network of the published architecture
#
# Six layers of 32 channels, on linear voxels with Gaussian weights and six features. How long it learns is up to you:
# 600 people take seconds, and the network then knows little. With 24,000 people, nine minutes on one free core, it has
# learned the task; what is said below of layers is of that network:
#
#     PEOPLE=24000 uv run python analysis/layer_by_layer.py

# %%
PEOPLE = int(os.environ.get("PEOPLE", "600"))
P, LAYERS = 6, 6
recipe = Recipe(
    network=ReferenceConfig(P, width=32, n_layers=LAYERS, n_heads=2, ffn_width=64, n_learned_tokens=1),
    stages=(
        StageConfig(
            "linear",
            people=PEOPLE,
            people_per_step=4,
            validate_every=200,
            world=WorldConfig((4, 32), n_query=32, n_voxels=(32, 32), brain_like=0.0),
        ),
    ),
    n_validation=24,
)
# Run again, it reads what it trained before.
run = Path(tempfile.gettempdir(), f"layer_by_layer-{recipe.digest[:8]}")
network = load_checkpoint(train(recipe, run, n_workers=0))


def draw_task(n, signal, rng, n_voxels=64, n_queries=64):
    """Context and queries of voxels whose true encoders are known, in the units that the network reads."""
    X = rng.standard_normal((n + n_queries, P))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    W = rng.standard_normal((P, n_voxels)) * np.sqrt(signal * P)  # images of unit norm: X w has variance `signal`
    y = X[:n] @ W + np.sqrt(1 - signal) * rng.standard_normal((n, n_voxels))
    mean, scale = y.mean(axis=0), y.std(axis=0)
    encoders = np.vstack([W / scale, -mean / scale]).T
    return X[:n], (y - mean) / scale, X[n:], (X[n:] @ W - mean) / scale, encoders


# %% [markdown]
# Each layer's state is read twice: by the network's own readout, as if the layers behind were not there, and by a
# linear readout fitted for that layer on other tasks, which finds what a layer knows in a code of its own.

# %%
rng = np.random.default_rng(1)
states, encoders = [], []
for _ in range(150):
    X, y, _, _, true = draw_task(int(rng.integers(4, 33)), rng.uniform(0.1, 0.9), rng, n_queries=2)
    states.append(layer_states(network, X, y.T).numpy())
    encoders.append(true)
readouts = LayerReadouts.fit(np.concatenate(states, axis=1), np.concatenate(encoders))
GRADIENT, NEWTON = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128), (0, 1, 2, 3, 4, 5, 6, 8, 10)


def study(n, signal, n_tasks=12):
    """Per layer: EV against the truth, and the nearest of each kind of algorithm, over several tasks together."""
    rng, parts = np.random.default_rng(2), []
    for _ in range(n_tasks):
        X, y, queries, truth, _ = draw_task(n, signal, rng)
        by_layer = layer_states(network, X, y.T)

        def linear(w, X=X, queries=queries):
            return (queries - X.mean(axis=0)) @ w

        known = {("descent", k): linear(w) for k, w in gradient_descent(X, y, GRADIENT).items()}
        known |= {("Newton", k): linear(w) for k, w in newton(X, y, NEWTON).items()}
        # λ = noise variance over the weights' variance, the same in standardised units.
        known["posterior", 0] = linear(posterior_mean(X, y, (1 - signal) / (signal * P)))
        known["ridge", 0] = RidgeEncoder().fit(X, y).predict(queries)
        for layer, (own, fitted) in enumerate(
            zip(read_layers(network, X, y.T), readouts.read(by_layer.numpy()), strict=True)
        ):
            known["own", layer] = queries @ own[:, :-1].T + own[:, -1]
            known["fitted", layer] = queries @ fitted[:, :-1].T + fitted[:, -1]
        parts.append(known | {("truth", 0): truth})
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


def table(found):
    """One row per layer."""
    kinds = {kind: {k: v for (name, k), v in found.items() if name == kind} for kind in ("descent", "Newton")}
    truth, rows = found["truth", 0], []
    for layer in range(LAYERS + 1):
        own, fitted = found["own", layer], found["fitted", layer]
        row = {"EV, own readout": ev(truth, own), "EV, fitted readout": ev(truth, fitted)}
        for kind, candidates in kinds.items():
            best, how = nearest(fitted, candidates)
            row |= {f"{kind}: nearest k": best, f"{kind}: difference": how}
        row["posterior: difference"] = difference(fitted, found["posterior", 0])
        rows.append(row)
    return pd.DataFrame(rows).rename_axis("layer")


def ev(truth, predicted):
    """Mean over voxels of 1 - Var(error) / Var(truth), voxels pooled: no voxel of small variance decides it."""
    return 1 - (truth - predicted).var(axis=0).mean() / truth.var(axis=0).mean()


found = study(16, 0.6)
by_depth = table(found)
print(by_depth.round(2).to_string())

# %% [markdown]
# ## By depth
#
# Left: how far each layer's encoders predict the truth. Right: how far each layer's predictions are from the nearest of
# each kind of algorithm; 0 is the same.

# %%
by_length = {n: table(study(n, 0.6)) for n in (6, 16, 32)}
figure = new_figure(10, 3.6)
left, right = figure.subplots(1, 2)
for n, rows in by_length.items():
    (line,) = left.plot(rows["EV, fitted readout"], "o-", label=f"{n} images")
    left.plot(rows["EV, own readout"].clip(lower=-0.2), "--", color=line.get_color())
left.set(xlabel="layer", ylabel="EV against the truth", title="solid: fitted readout, dashed: the network's own")
for column, label in {"descent: difference": "gradient descent, best k", "Newton: difference": "Newton, best k",
                      "posterior: difference": "Bayes posterior"}.items():  # fmt: skip
    right.plot(by_depth[column][1:], "o-", label=label)
right.set(xlabel="layer", ylabel="difference", title="16 images, signal share .6", ylim=(0, None))
for axes in (left, right):
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
figure

# %% [markdown]
# ## By context length and noise
#
# The whole network beside the algorithms, and beside ridge whose penalty is chosen by cross-validation.


# %%
def whole(n, signal):
    """Figures of the last layer, as the network itself reads it out."""
    found = study(n, signal)
    network, truth = found["own", LAYERS], found["truth", 0]
    row = {"images": n, "signal share": signal, "EV of network": ev(truth, network)}
    row |= {"EV of posterior": ev(truth, found["posterior", 0]), "EV of ridge": ev(truth, found["ridge", 0])}
    for kind in ("descent", "Newton"):
        best, how = nearest(network, {k: v for (name, k), v in found.items() if name == kind})
        row |= {f"{kind}: nearest k": best, f"{kind}: difference": how}
    for kind in ("posterior", "ridge"):
        row[f"{kind}: difference"] = difference(network, found[kind, 0])
    return row


by_task = pd.DataFrame([whole(n, signal) for n in (6, 16, 32) for signal in (0.2, 0.6)])
print(by_task.round(2).to_string(index=False))

# %% [markdown]
# ## What the longer training gives
#
# Of the network trained on 24,000 people, in linear voxels that it has not seen (16 images, signal share .6):
#
# | layer | EV, own readout | EV, fitted readout | nearest gradient descent | nearest Newton | from posterior |
# |---|---|---|---|---|---|
# | 1 | .18 | .63 | 2 steps (.13) | 3 iterations (.14) | .43 |
# | 2 | .33 | .74 | 3 (.09) | 4 (.10) | .27 |
# | 3 | .49 | .77 | 3 (.05) | 4 (.06) | .21 |
# | 4 | .53 | .79 | 3 (.05) | 4 (.06) | .18 |
# | 5 | .62 | .80 | 4 (.04) | 4 (.05) | .16 |
# | 6 | .69 | .81 | 4 (.03) | 4 (.05) | .14 |
#
# Later layers are like more steps: gradient descent, stopped after two to four. Newton's method is hardly further off,
# so these figures do not tell the two apart. Most of what the network knows is there after two layers, in a code that
# only the fitted readout reads. The whole network, by its own readout:
#
# | images, signal share | EV, network / posterior / ridge | nearest gradient descent | from posterior | from ridge |
# |---|---|---|---|---|
# | 6, .2 | .22 / .28 / .12 | 1 step (.32) | .39 | .86 |
# | 6, .6 | .27 / .50 / .35 | 1 (.33) | 1.01 | .81 |
# | 16, .2 | .58 / .65 / .55 | 2 (.10) | .18 | .34 |
# | 16, .6 | .69 / .90 / .89 | 2 (.07) | .40 | .38 |
# | 32, .2 | .79 / .83 / .81 | 2 (.04) | .07 | .08 |
# | 32, .6 | .89 / .96 / .96 | 2 (.02) | .10 | .10 |
#
# With more images it is nearer to everything. With much noise it is close to the posterior and ahead of ridge (not with
# 32 images); with little noise, which its training rarely had, it stops too early and ridge is better. The posterior is
# told the noise; the network is not. Nine minutes do not make it a Bayesian.
