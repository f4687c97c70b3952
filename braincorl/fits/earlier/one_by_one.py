"""Many fits with room for one: a sequence that reads a member from disk each time that it is asked for.

fits = load_fits(["sub-01", "sub-02"])
prior = GroupPrior.fit(each(fits, lambda fit: fit.encoder))
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, overload

from braincorl.fits.fit import Fit

S = TypeVar("S")
T = TypeVar("T")


class OneByOne(Sequence[T]):
    """A sequence of which the member that was asked for last is kept, and made again once another was asked for.

    Parameters
    ----------
    n
        Of members.
    make
        Gives the member of a number from 0.
    """

    def __init__(self, n: int, make: Callable[[int], T]) -> None:
        self._n, self._make = n, make
        self._kept: dict[int, T] = {}

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[T]:
        """Give the members in turn; an IndexError while one is made ends nothing early."""
        return (self[number] for number in range(self._n))

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "OneByOne[T]": ...
    def __getitem__(self, index: int | slice) -> "T | OneByOne[T]":
        """Give a member, or some that are yet to be made."""
        numbers = range(self._n)[index]
        if isinstance(numbers, range):
            return OneByOne(len(numbers), lambda number: self[numbers[number]])
        if numbers not in self._kept:
            self._kept.clear()  # before the next is made: there is room for one
            self._kept[numbers] = self._make(numbers)
        return self._kept[numbers]


def load_fits(folders: Sequence[str | Path]) -> Sequence[Fit]:
    """Give the fits in folders, each read when it is asked for, and again when it is asked for once more.

    Parameters
    ----------
    folders
        Of `Fit.save` or `braincorl fit`; mistakes in one are raised when it is read, as by `Fit.load`.

    Returns
    -------
    sequence of Fit
    """
    return OneByOne(len(folders), lambda number: Fit.load(folders[number]))


def each(members: Sequence[S], function: Callable[[S], T]) -> Sequence[T]:
    """Give something of each member, made when it is asked for."""
    return OneByOne(len(members), lambda number: function(members[number]))
