"""A fit that fails leaves nothing of itself: the encoder is then as it was before, or unfitted, never half of each."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from braincorl.errors import InputError

# Attribute of an encoder while it is being fitted.
_FITTING = "_fitting"


def whole_or_not_at_all(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Make a `fit` that never leaves attributes of two fits in one encoder.

    What an earlier fit left (names that end in "_") is taken out before `fit` starts. Refused input puts it back; any
    other failure, such as too little memory or Ctrl-C, leaves an unfitted encoder. A `fit` that calls its base class's
    is one fit.

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
        if _FITTING in state:
            return fit(encoder, *arguments, **options)
        before = dict(state)
        unfitted = {name: value for name, value in before.items() if not name.endswith("_")}
        _replace(state, {**unfitted, _FITTING: True})
        try:
            fitted = fit(encoder, *arguments, **options)
            del state[_FITTING]
            return fitted
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
