"""What a methods paragraph cites, as a line of a list of references and as an entry for BibTeX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One thing that is cited.

    Attributes
    ----------
    text
        Line of a list of references.
    bibtex
        Entry for BibTeX; its key is what LaTeX and Markdown cite it by.
    """

    text: str
    bibtex: str

    @property
    def key(self) -> str:
        """What LaTeX and Markdown cite it by."""
        return self.bibtex.partition("{")[2].partition(",")[0]


def _entry(kind: str, key: str, **fields: str) -> str:
    lines = "".join(f",\n  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key}{lines}\n}}"


# {version} stands for that of braincorl. Inner braces keep capitals and names of groups as they are.
REFERENCES = {
    "braincorl": Reference(
        "The braincorl contributors. braincorl: voxelwise encoders of visual cortex for a new person, from few images. "
        "Version {version}.",
        _entry(
            "software",
            "braincorl",
            title="{braincorl}: voxelwise encoders of visual cortex for a new person, from few images",
            author="{The braincorl contributors}",
            version="{version}",
        ),
    ),
    "in-context": Reference(
        "Yu, M., et al. (2025). Meta-learning an in-context transformer model of human higher visual cortex. "
        "arXiv:2505.15813.",
        _entry(
            "misc",
            "yu2025meta",
            title="Meta-learning an in-context transformer model of human higher visual cortex",
            author="Yu, Muquan and others",
            year="2025",
            eprint="2505.15813",
            archiveprefix="arXiv",
        ),
    ),
    "ridge": Reference(
        "Hoerl, A. E., & Kennard, R. W. (1970). Ridge regression: biased estimation for nonorthogonal problems. "
        "Technometrics, 12(1), 55-67.",
        _entry(
            "article",
            "hoerl1970ridge",
            title="Ridge regression: biased estimation for nonorthogonal problems",
            author="Hoerl, Arthur E. and Kennard, Robert W.",
            year="1970",
            journal="Technometrics",
            volume="12",
            number="1",
            pages="55--67",
        ),
    ),
    "evidence": Reference(
        "MacKay, D. J. C. (1992). Bayesian interpolation. Neural Computation, 4(3), 415-447.",
        _entry(
            "article",
            "mackay1992bayesian",
            title="{Bayesian} interpolation",
            author="MacKay, David J. C.",
            year="1992",
            journal="Neural Computation",
            volume="4",
            number="3",
            pages="415--447",
        ),
    ),
    "banded": Reference(
        "Dupré la Tour, T., Eickenberg, M., Nunez-Elizalde, A. O., & Gallant, J. L. (2022). Feature-space selection "
        "with banded ridge regression. NeuroImage, 264, 119728.",
        _entry(
            "article",
            "dupre2022banded",
            title="Feature-space selection with banded ridge regression",
            author="{Dupré la Tour}, Tom and Eickenberg, Michael and Nunez-Elizalde, Anwar O. and Gallant, Jack L.",
            year="2022",
            journal="NeuroImage",
            volume="264",
            pages="119728",
        ),
    ),
    "ceiling": Reference(
        "Allen, E. J., et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial "
        "intelligence. Nature Neuroscience, 25, 116-126.",
        _entry(
            "article",
            "allen2022massive",
            title="A massive {7T fMRI} dataset to bridge cognitive neuroscience and artificial intelligence",
            author="Allen, Emily J. and others",
            year="2022",
            journal="Nature Neuroscience",
            volume="25",
            pages="116--126",
        ),
    ),
    "discovery": Reference(
        "Benjamini, Y., & Hochberg, Y. (1995). Controlling the false discovery rate: a practical and powerful approach "
        "to multiple testing. Journal of the Royal Statistical Society B, 57(1), 289-300.",
        _entry(
            "article",
            "benjamini1995controlling",
            title="Controlling the false discovery rate: a practical and powerful approach to multiple testing",
            author="Benjamini, Yoav and Hochberg, Yosef",
            year="1995",
            journal="Journal of the Royal Statistical Society B",
            volume="57",
            number="1",
            pages="289--300",
        ),
    ),
    "open_clip": Reference(
        "Ilharco, G., et al. (2021). OpenCLIP. Zenodo. doi:10.5281/zenodo.5143773.",
        _entry(
            "software",
            "ilharco2021openclip",
            title="{OpenCLIP}",
            author="Ilharco, Gabriel and others",
            year="2021",
            publisher="Zenodo",
            doi="10.5281/zenodo.5143773",
        ),
    ),
    "timm": Reference(
        "Wightman, R. (2019). PyTorch image models. doi:10.5281/zenodo.4414861.",
        _entry(
            "software",
            "wightman2019timm",
            title="{PyTorch} image models",
            author="Wightman, Ross",
            year="2019",
            doi="10.5281/zenodo.4414861",
        ),
    ),
    "gabor": Reference(
        "Kay, K. N., Naselaris, T., Prenger, R. J., & Gallant, J. L. (2008). Identifying natural images from human "
        "brain activity. Nature, 452, 352-355.",
        _entry(
            "article",
            "kay2008identifying",
            title="Identifying natural images from human brain activity",
            author="Kay, Kendrick N. and Naselaris, Thomas and Prenger, Ryan J. and Gallant, Jack L.",
            year="2008",
            journal="Nature",
            volume="452",
            pages="352--355",
        ),
    ),
}
