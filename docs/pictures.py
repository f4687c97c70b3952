"""Make the pictures of this folder again, all of them of a simulated person.

    uv run python docs/pictures.py

`demo.png` is the figure that `braincorl demo` writes. `report.png` needs a Chromium to look at the report with; without
one it is left as it is.
"""

import html
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from nilearn.datasets import load_mni152_template
from PIL import Image
from scipy.stats import norm

from braincorl import GroupPrior, InContextEncoder, simulate_people
from braincorl.analysis import plot_mosaic, plot_surface
from braincorl.analysis.colours import COLOURS
from braincorl.analysis.figures import new_figure, own_style, save_figure
from braincorl.analysis.report.fit_report import write_report
from braincorl.cli.main import main as braincorl
from braincorl.datasets import SubjectData
from braincorl.fits import Fit
from braincorl.fits.methods import collect_maps

FOLDER = Path(__file__).resolve().parent
HEIGHT = 1250  # pixels of the report that are shown


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        demo = Path(scratch, "demo")
        braincorl(["demo", "--output-dir", str(demo)])
        save(Image.open(demo / "figure.png"), "demo.png")
        fit = Fit.load(demo / "fit")
        maps = collect_maps(fit)
        regions = {name: fit.rois[name] for name in ("EarlyVis", "LOC", "FFA", "EBA", "PPA")}
        options = {"label": "EV", "signed": False, "rois": regions}
        surface = plot_surface(maps["ev"], fit.space, title="Explained variance, 100 images (simulation)", **options)
        save(as_image(surface, scratch), "surface.png")
        mosaic = plot_mosaic(
            maps["ev"],
            fit.space,
            title="The same where the noise ceiling is at least .3 (simulation)",
            ceiling=maps["noiseceiling"],
            min_ceiling=0.3,
            template=load_mni152_template(resolution=2),
            **options,
        )
        save(as_image(mosaic, scratch), "mosaic.png")
        save(as_image(draw_how_it_works(), scratch), "how.png")
        browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if browser is None:
            print("no Chromium: report.png is left as it is")
            return
        write_report(demo / "report.html", fit)
        wide, narrow = (screenshot(browser, demo / "report.html", width, HEIGHT, scratch) for width in (1100, 390))
        both = Image.new("RGB", (wide.width + narrow.width + 30, HEIGHT), "#8a949b")
        both.paste(wide, (0, 0))
        both.paste(narrow, (wide.width + 30, 0))
        save(both.resize((both.width * 2 // 3, both.height * 2 // 3), Image.Resampling.LANCZOS), "report.png")


@own_style
def draw_how_it_works() -> Figure:
    """Whom new voxels attend to, one voxel's predictions with intervals, and how often intervals hold (simulation)."""
    world = simulate_people(3, n_own=220, n_shared=80, layout="sheet", random_state=0)
    new, *others = (person.subject() for person in world.people)
    memory = GroupPrior.fit(
        [(world.features_of(other.image_ids), other.responses) for other in others],
        rois=[label_voxels(other) for other in others],
    )
    own = new.select_images(new.image_ids[~np.isin(new.image_ids, world.shared)])
    X, X_test = world.features_of(own.image_ids), world.features_of(world.shared)
    measured = world.people[0].trials[[list(world.people[0].trial_images).index(name) for name in world.shared]]
    lengths = (5, 10, 20, 50, 100, 200)
    shares = []
    for n in lengths:
        encoder = InContextEncoder(prior=memory).fit(X[:n], own.responses[:n], X_pool=X)
        shares.append(encoder.region_probability_[new.rois["FFA"]].mean(axis=0))
        if n == 50:
            predicted, std = encoder.predict(X_test, return_std=True)
    figure = new_figure(9.5, 3)
    whom, one, held = figure.subplots(1, 3)
    for name, share in zip(encoder.region_names_, np.transpose(shares), strict=True):
        ffa = name == "FFA"
        whom.plot(lengths, share, "o-", color=COLOURS[3] if ffa else "#999999", linewidth=2 if ffa else 1, markersize=3)
        if ffa:
            whom.text(lengths[-2], share[-1], "FFA", color=COLOURS[3], ha="right", va="top")
    whom.set_xscale("log")
    whom.set_xticks(lengths, [str(n) for n in lengths])
    whom.minorticks_off()
    whom.set(xlabel="context images", ylabel="attention of voxels of FFA", title="Whom it attends to")
    best = int(np.argmax(new.ncsnr))
    order = np.argsort(predicted[:, best])[::2]
    place = np.arange(order.size)
    one.errorbar(
        place, predicted[order, best], 1.96 * std[order, best], color=COLOURS[2], linestyle="", marker=".", elinewidth=1
    )
    one.plot(place, measured[order, best], "o", color="black", markersize=3)
    one.set(xlabel="new images, by prediction", ylabel="% signal change", title="One voxel, 95 % intervals")
    levels = np.linspace(0.05, 0.99, 30)
    z = np.abs(measured - predicted) / std
    held.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    held.plot(levels, [(z < norm.ppf(0.5 + level / 2)).mean() for level in levels], color=COLOURS[2], linewidth=2)
    held.set(xlabel="promised", ylabel="responses inside", title="Do intervals hold?", aspect="equal")
    for panel in (whom, one, held):
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def label_voxels(subject: SubjectData) -> np.ndarray:
    """Name of the region of each voxel (n_voxels,), "" for none."""
    labels = np.full(subject.responses.shape[1], "", dtype=object)
    for name, members in subject.rois.items():
        labels[members] = name
    return labels.astype(str)


def as_image(figure: Figure, scratch: str) -> Image.Image:
    """Picture of a figure."""
    path = Path(scratch, "figure.png")
    save_figure(figure, path)
    with Image.open(path) as image:
        return image.convert("RGB")


def screenshot(browser: str, page: Path, width: int, height: int, scratch: str) -> Image.Image:
    """Page in a frame of that width, since a browser's window has a least width."""
    frame, shot = Path(scratch, "frame.html"), Path(scratch, "shot.png")
    text = html.escape(page.read_text(encoding="utf-8"))
    frame.write_text(
        f'<body style="margin:0"><iframe width={width} height={height} style="border:0" srcdoc="{text}"></iframe>',
        encoding="utf-8",
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
    options += [f"--user-data-dir={scratch}/profile", f"--window-size={max(width, 500)},{height}"]
    options += ["--virtual-time-budget=5000", f"--screenshot={shot}"]
    subprocess.run([browser, *options, frame.as_uri()], check=True, capture_output=True, timeout=120)
    with Image.open(shot) as image:
        return image.convert("RGB").crop((0, 0, width, height))


def save(image: Image.Image, name: str) -> None:
    """Write a picture with 256 colours, which keeps it small."""
    path = FOLDER / name
    image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    print(f"{name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
