"""Prompt templates: a phrase is embedded inside sentences like those of the backbone's training, and averaged.

An ensemble is the mean of the unit-length embeddings of all templates, as in CLIP's zero-shot classifiers (Radford et
al. 2021, arXiv:2103.00020, section 3.1.4).
"""

from collections.abc import Callable, Sequence

import numpy as np

from braincorl.errors import InputError
from braincorl.features.backbones.backbone import to_unit_length
from braincorl.validation import FloatArray

TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "photo": ("a photo of a {}.",),
    "ensemble": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a close-up photo of a {}.",
        "a photo of many {}.",
        "a picture of a {} in a scene.",
        "there is a {} in the photo.",
    ),
}

# Everyday things of all kinds that photographs show: their mean is what texts about pictures have in common.
_COMMON_WORDS = """
adult apple baby bag ball banana basket beach bear bed bench bicycle bird blanket boat book bottle bowl box boy
bread bridge building bus butterfly button cake camera car carpet castle cat chair cheese chicken child church clock
cloud coat computer cow crowd cup curtain desk dog door dress elephant eye farm fence field fish flower foot forest
fork fruit garden giraffe girl glass grass guitar hair hammer hand hat hill horse house island kitchen knife ladder
lake lamp leaf letter man meal mirror monkey mountain newspaper office painting person phone piano pizza plant road
room shoe tree window
"""
COMMON_WORDS = tuple(_COMMON_WORDS.split())


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Look up named sets of templates, and check the user's own.

    Parameters
    ----------
    templates
        A name in `TEMPLATES`, a template with exactly one `{}` where the text goes, or several of these.

    Returns
    -------
    tuple of str

    Raises
    ------
    InputError
        If a template has not exactly one `{}`.
    """
    given = [templates] if isinstance(templates, str) else templates
    # A sentence counts once, though two sets may share it.
    chosen = tuple(dict.fromkeys(sentence for item in given for sentence in TEMPLATES.get(item, (item,))))
    for template in chosen:
        if template.count("{}") != 1:
            raise InputError(
                f"template '{template}' must have exactly one {{}} where the text goes (or be one of "
                f"{', '.join(TEMPLATES)})."
            )
    if not chosen:
        raise InputError("templates is empty: pass one or more, such as 'a photo of a {}.'.")
    return chosen


def embed_prompts(
    encode: Callable[[list[str]], FloatArray], texts: Sequence[str], templates: Sequence[str], batch_size: int
) -> FloatArray:
    """Embed texts inside templates.

    Parameters
    ----------
    encode
        Texts -> (n_texts, n_features).
    texts
        What goes into the templates.
    templates
        Each with one `{}`.
    batch_size
        Prompts per call of `encode`.

    Returns
    -------
    ndarray of shape (n_texts, n_features), float32
        With one template its embedding as it is; with several the mean of the unit-length embeddings.
    """
    prompts = [template.replace("{}", text) for text in texts for template in templates]
    parts = [encode(prompts[start : start + batch_size]) for start in range(0, len(prompts), batch_size)]
    features = np.concatenate(parts).astype(np.float32, copy=False)
    if len(templates) == 1:
        return features
    mean: FloatArray = to_unit_length(features).reshape(len(texts), len(templates), -1).mean(axis=1)
    return mean
