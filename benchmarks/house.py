"""How hard the house is to enter: what a reader follows for five calls, and how much there is to read.

    python benchmarks/house.py               # both tables
    python benchmarks/house.py calls         # files, functions and hops of five calls
    python benchmarks/house.py size          # lines, folders, longest file and function, names, raises

Files, functions: of the package, entered while a call runs (imports and classes' bodies left out). Hops: pairs of a
function and one in another file that it calls, each counted once: what a reader jumps along. Data are simulated.
"""

import argparse
import ast
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent / "braincorl"


def trace(call: Callable[[], Any]) -> tuple[int, int, int]:
    """Files entered, functions run, and hops between files."""
    functions: set[CodeType] = set()
    hops: set[tuple[CodeType, CodeType]] = set()
    root = f"{PACKAGE}{os.sep}"

    def ours(frame: FrameType | None) -> bool:
        return frame is not None and frame.f_code.co_filename.startswith(root) and frame.f_code.co_name != "<module>"

    def follow(frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call" or not ours(frame) or frame.f_code.co_qualname.endswith(("<genexpr>", "<lambda>")):
            return
        functions.add(frame.f_code)
        caller = frame.f_back
        while caller is not None and not ours(caller):  # through a library that calls back, such as scikit-learn
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != frame.f_code.co_filename:
            hops.add((caller.f_code, frame.f_code))

    sys.setprofile(follow)
    try:
        call()
    finally:
        sys.setprofile(None)
    return len({code.co_filename for code in functions}), len(functions), len(hops)


def make_calls(folder: Path) -> dict[str, Callable[[], Any]]:
    """Five calls on simulated people whose files lie in a folder."""
    from PIL import Image

    from braincorl import GroupPrior, InContextEncoder, simulate_people
    from braincorl.cli.main import main
    from braincorl.features import FeatureTable, save_features

    world = simulate_people(2, random_state=0)
    table = FeatureTable(world.features, world.image_ids, {"backbone": "simulation", "normalized": True})
    save_features(folder / "features.npz", table)
    files = world.people[0].write(folder)
    person = world.people[0].subject()
    X, y = world.features_of(person.image_ids[:50]), person.responses[:50]
    other = world.people[1].subject()
    prior = GroupPrior.fit([(world.features_of(other.image_ids), other.responses)], X_pool=world.features)
    words = np.random.default_rng(0).standard_normal((20, world.features.shape[1]), dtype=np.float32)
    save_features(folder / "words.npz", FeatureTable(words, np.array([f"w{i}" for i in range(20)]), table.provenance))
    (folder / "pictures").mkdir()
    for number in range(4):
        picture = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "pictures" / f"{number}.png")

    def verb(*arguments: Any) -> Callable[[], Any]:
        def run() -> None:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                if main([str(argument) for argument in arguments]):
                    raise RuntimeError(said.getvalue())

        return run

    data = [part for name in ("betas", "trials", "mask") for part in (f"--{name}", files[name])]
    fit = ("fit", "--features", folder / "features.npz", *data, "--n-context", 50, "--output-dir", folder / "fit")
    return {
        "fit, from NIfTI to map": verb(*fit),
        "InContextEncoder().fit": lambda: InContextEncoder().fit(X, y),
        "with a prior": lambda: InContextEncoder(prior=prior).fit(X, y),
        "embed": verb("embed", folder / "pictures", "--backbone", "gabor", "--output", folder / "gabor.npz"),
        "query": verb(
            "query", folder / "fit", "w0", "--text-features", folder / "words.npz", "--output-dir", folder / "asked"
        ),
    }


def print_calls() -> None:
    """Print files, functions and hops of each call; the second run counts, as the first one imports."""
    print(f"{'call':26} files functions hops")
    for name in ("fit, from NIfTI to map", "InContextEncoder().fit", "with a prior", "embed", "query"):
        for warm in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                calls = make_calls(Path(folder))
                if name == "query":
                    calls["fit, from NIfTI to map"]()
                if warm:
                    calls[name]()
                else:
                    print("{:26} {:5} {:9} {:4}".format(name, *trace(calls[name])))


def print_size() -> None:
    """Print how much there is to read."""
    files = sorted(PACKAGE.rglob("*.py"))
    lengths = {path.relative_to(PACKAGE.parent): len(path.read_text().splitlines()) for path in files}
    folders: dict[Path, int] = {}
    for path in lengths:
        if path.name != "__init__.py":
            folders[path.parent] = folders.get(path.parent, 0) + 1
    functions: list[tuple[int, str]] = []
    public = raises = 0
    for path in files:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                functions.append((_code_lines(node), f"{path.stem}.{node.name}"))
            raises += isinstance(node, ast.Raise)
        tops = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
        public += sum(not node.name.startswith("_") for node in tops)
    total, longest = sum(lengths.values()), max(lengths, key=lambda path: lengths[path])
    print(f"lines: {total} in {len(files)} files")
    print(f"longest file: {lengths[longest]} ({longest})")
    print("longest function, without its docstring: {} ({})".format(*max(functions)))
    print(f"public functions and classes: {public}")
    print(f"raise per 1,000 lines: {1000 * raises / total:.1f}")
    print("files per folder, the most:")
    for folder in sorted(folders, key=lambda folder: -folders[folder])[:8]:
        print(f"  {folders[folder]:3} {folder}")


def _code_lines(node: ast.FunctionDef) -> int:
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and ast.get_docstring(node)
    start = (first.end_lineno or first.lineno) + 1 if documented else node.lineno
    return (node.end_lineno or start) - start + 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("calls", "size", "all"), nargs="?", default="all")
    what = parser.parse_args().what
    if what != "size":
        print_calls()
    if what != "calls":
        print_size()
