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

from matplotlib.figure import Figure
from PIL import Image

from braincorl.analysis import plot_mosaic, plot_surface
from braincorl.analysis.figures import save_figure
from braincorl.analysis.report.fit_report import write_report
from braincorl.cli.main import main as braincorl
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
            **options,
        )
        save(as_image(mosaic, scratch), "mosaic.png")
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
