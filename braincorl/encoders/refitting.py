"""A fit that fails leaves nothing of itself: the encoder is then as it was before, or unfitted, never half of each."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from braincorl.errors import InputError


def whole_or_not_at_all(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Make a `fit` that never leaves attributes of two fits in one encoder.

    What an earlier fit left (names that end in "_") is taken out before `fit` starts. Refused input puts it back; any
    other failure, such as too little memory or Ctrl-C, leaves an unfitted encoder.

    Parameters
    ----------
    fit
        An encoder's method.

    Returns
    -------
    callable
        With the same signature.
    """

    @wraps(fit)
    def fit_whole(encoder: Any, *arguments: Any, **options: Any) -> Any:
        state = vars(encoder)
        before = dict(state)
        unfitted = {name: value for name, value in before.items() if not name.endswith("_")}
        _replace(state, unfitted)
        try:
            return fit(encoder, *arguments, **options)
        except InputError:
            _replace(state, before)
            raise
        except BaseException:
            _replace(state, unfitted)
            raise

    return fit_whole


def _replace(state: dict[str, Any], content: dict[str, Any]) -> None:
    state.clear()
    state.update(content)
