"""Many people: one folder of results each, on any number of workers, and what a group gives together.

    people = people_of_tree(BidsTree(Path("derivatives/betas")))
    options = FitOptions(features=Path("features.npz"), n_context=100)
    fit_cohort(people, options, "cohort")
    make_group("cohort", people, options)

The verb cohort of the command line, and the BIDS App `braincorl-bids`, do the same.
"""

from braincorl.cohort.few_shot import FewShot
from braincorl.cohort.group import Group, GroupOptions, make_group
from braincorl.cohort.people import BidsTree, Person, PersonFiles, people_of_table, people_of_tree
from braincorl.cohort.running import fit_cohort
from braincorl.cohort.task import FitOptions, FitTask, Outcome, fit_one
from braincorl.cohort.workers import Workers, read_queue_config

__all__ = [
    "BidsTree",
    "FewShot",
    "FitOptions",
    "FitTask",
    "Group",
    "GroupOptions",
    "Outcome",
    "Person",
    "PersonFiles",
    "Workers",
    "fit_cohort",
    "fit_one",
    "make_group",
    "people_of_table",
    "people_of_tree",
    "read_queue_config",
]
