"""What of LAION-fMRI and of MOSAIC a person needs, from their public buckets, which answer without an account."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from braincorl.datasets.download.bucket import Bucket, RemoteFile
from braincorl.datasets.download.downloads import Downloads
from braincorl.datasets.file_names import session_numbers
from braincorl.datasets.laion_fmri import CEILINGS, HELD_BACK, LaionFolder
from braincorl.datasets.mosaic import DATA_SETS, MosaicPerson
from braincorl.errors import InputError
from braincorl.storage.files import Progress

LAION_BUCKET, LAION_REGION = "laion-fmri", "us-west-2"

MOSAIC_BUCKET, MOSAIC_REGION = "mosaicfmri", "us-east-1"

MOSAIC_TERMS = """Terms of MOSAIC

MOSAIC gathers eight data sets, each with a licence and a publication of its own: those of the ones that you download
count, and whoever publishes with them cites them and MOSAIC. NSD asks everyone to accept its Data Access Agreement:
    https://naturalscenesdataset.org
    https://mosaic.csail.mit.edu
braincorl neither holds the data nor grants any right to them.
"""

LAION_TERMS = """Terms of LAION-fMRI

Brain data and what describes the participants are released under CC0 1.0: free for any purpose. The images are not:
their licence is closed, for non-commercial academic research alone, and braincorl does not download them. Terms, and
how to ask for the images:
    https://laion-fmri.hebartlab.com
What is written there counts; braincorl neither holds the data nor grants any right to them.
"""


def fetch_laion_fmri(
    root: str | Path,
    subjects: int | Iterable[int],
    *,
    sessions: Iterable[int] | None = None,
    accept_terms: bool = False,
    parallel: int = 4,
    endpoint_url: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Download what `load_laion_fmri` reads of some people: betas, tables, mask, noise ceilings, regions.

    What is complete is left alone, and a download that was stopped goes on where it was. Needs
    `pip install braincorl[fetch]`.

    Parameters
    ----------
    root
        Folder to mirror the bucket in.
    subjects
        1, 3, 5, 6 or 7, one or several.
    sessions
        Which sessions; by default all that are public.
    accept_terms
        That you have read and accepted the terms (`LAION_TERMS` of this module).
    parallel
        Files at a time, 1 to 16.
    endpoint_url
        Another server that speaks S3; by default Amazon's.
    progress
        Called with (bytes there, bytes in all).

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        If the terms are not accepted, boto3 is not installed, a session is held back or missing, or the bucket cannot
        be read.
    OutputError
        If the disk is too small, or a file is in the way.
    """
    if not accept_terms:
        raise InputError("read LAION-fMRI's terms (https://laion-fmri.hebartlab.com), and pass accept_terms=True.")
    people = [subjects] if isinstance(subjects, int) else sorted(set(subjects))
    downloads = plan_laion_fmri(root, people, sessions, parallel=parallel, endpoint_url=endpoint_url)
    return downloads.run(parallel=parallel, progress=progress)


def plan_laion_fmri(
    root: str | Path,
    subjects: Sequence[int],
    sessions: Iterable[int] | None = None,
    *,
    parallel: int = 4,
    endpoint_url: str | None = None,
) -> Downloads:
    """Look up what is to be downloaded, and what of it is there. Parameters and errors are those of the download."""
    folders = [LaionFolder("", subject) for subject in subjects]
    wanted = None if sessions is None else session_numbers(sessions)
    held = sorted(set(wanted or ()) & set(HELD_BACK))
    if held:
        raise InputError(
            f"sessions {', '.join(map(str, held))} of LAION-fMRI are held back by the data set, for everybody (403): "
            "leave them out."
        )
    bucket = Bucket(LAION_BUCKET, LAION_REGION, endpoint_url=endpoint_url, connections=parallel)
    files: list[RemoteFile] = []
    for folder in folders:
        listed = bucket.files(folder.betas.as_posix() + "/")
        files += _of_person(folder, listed, wanted, bucket.name)
        files += [
            file for key, file in bucket.files(folder.regions.as_posix() + "/").items() if key.endswith(".nii.gz")
        ]
    for name in ("dataset_description.json", "participants.tsv"):
        files += [file for key, file in bucket.files(name).items() if key == name]
    return Downloads(bucket, list(dict.fromkeys(files)), Path(root))


def fetch_mosaic(
    root: str | Path,
    people: Sequence[str],
    *,
    accept_terms: bool = False,
    parallel: int = 4,
    endpoint_url: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Download what `load_mosaic` reads of some people: their files, and the tables of stimuli.

    Parameters
    ----------
    root, parallel, endpoint_url, progress
        As for `fetch_laion_fmri`.
    people
        As their files are called: "sub-01_NSD".
    accept_terms
        That you have read and accepted the terms (`MOSAIC_TERMS` of this module).

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        If the terms are not accepted, boto3 is not installed, a person is unknown, or the bucket cannot be read.
    OutputError
        If the disk is too small, or a file is in the way.
    """
    if not accept_terms:
        raise InputError(
            "read the terms of MOSAIC's data sets (https://mosaic.csail.mit.edu), and pass accept_terms=True."
        )
    downloads = plan_mosaic(root, people, parallel=parallel, endpoint_url=endpoint_url)
    return downloads.run(parallel=parallel, progress=progress)


def plan_mosaic(
    root: str | Path, people: Sequence[str], *, parallel: int = 4, endpoint_url: str | None = None
) -> Downloads:
    """Look up what is to be downloaded, and what of it is there. Parameters and errors are those of the download."""
    if not people:
        raise InputError("people is empty: name at least one, as in sub-01_NSD.")
    wanted = [MosaicPerson.of_label(label) for label in people]
    bucket = Bucket(MOSAIC_BUCKET, MOSAIC_REGION, endpoint_url=endpoint_url, connections=parallel)
    files: list[RemoteFile] = []
    for person in wanted:
        table = f"stimulus_info/{DATA_SETS[person.dataset][2]}_stiminfo.tsv"
        listed = bucket.files(person.key) | bucket.files(table)
        if person.key not in listed:
            raise InputError(f"the bucket {bucket.name} has no {person.key}: is it a mirror of MOSAIC's?")
        files += [listed[key] for key in (person.key, table) if key in listed]
    return Downloads(bucket, list(dict.fromkeys(files)), Path(root))


def _of_person(
    folder: LaionFolder, listed: dict[str, RemoteFile], wanted: list[int] | None, bucket: str
) -> list[RemoteFile]:
    """Mask, ceilings, and every session's betas and table."""
    there = {int(found.group(1)) for key in listed if (found := re.search(r"/ses-(\d+)/func/", key))}
    numbers = sorted(there - set(HELD_BACK)) if wanted is None else wanted
    whole = [folder.mask, *(folder.ceiling(desc) for desc in CEILINGS)]
    files = [listed[path.as_posix()] for path in whole if path.as_posix() in listed]
    missing = []
    for number in numbers:
        keys = [path.as_posix() for path in folder.session(number)]
        if all(key in listed for key in keys):
            files += [listed[key] for key in keys]
        else:
            missing.append(number)
    if missing or not numbers:
        raise InputError(
            f"the bucket {bucket} has no betas of {folder.label}'s sessions {', '.join(map(str, missing)) or '(any)'}: "
            "choose others."
        )
    return files
