"""What the parameters of torchattacks' attacks mean: type, range and a sentence for each name.

Their defaults are the package's own; `attacks` reads them from its signatures.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt

LARGEST = 1e6  # far beyond any image, far below float32's end


@attrs.frozen
class Parameter:
    """``annotation``, ``validator`` and ``converter`` are the field's; ``sentence`` explains it."""

    annotation: Any
    validator: Any
    sentence: str
    converter: Callable[[Any], Any] | None = None

    def field(self, default: Any) -> Any:
        """The attrs field with a default."""
        return attrs.field(default=default, validator=self.validator, converter=self.converter)


def _odd(instance: Any, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 1 or value % 2 == 0:
        raise ValueError(f"{attribute.name} must be odd and 1 or more, not {value}")


def _theta(instance: Any, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 < abs(value) <= 1:
        raise ValueError(f"theta must be in [-1, 1] and not 0, not {value}")


def _one(instance: Any, attribute: "attrs.Attribute[float]", value: float) -> None:
    if value != 1:
        name = type(instance).__name__.lower()
        raise ValueError(f"budget must be 1, not {value:g}: torchattacks-{name} has no eps")


def _bounds(instance: Any, attribute: "attrs.Attribute[tuple[float, float]]", value: Any) -> None:
    low, high = value
    pixels = all(isinstance(bound, int) for bound in value)
    shares = all(isinstance(bound, float) for bound in value)
    if not ((pixels or shares) and 0 < low <= high):
        raise ValueError(
            f"{attribute.name} must be LOW:HIGH, both whole numbers of pixels or both shares of "
            f"the side below 1, and LOW above 0, not {low:g}:{high:g}"
        )


def pixels_or_shares(bounds: tuple[float, float]) -> tuple[float, ...]:
    """Whole numbers are pixels, fractions are shares: torchattacks tells them apart by type."""
    return tuple(int(bound) if float(bound).is_integer() else bound for bound in bounds)


def _whole(sentence: str) -> Parameter:
    return Parameter(int, ge(1), sentence)


def _flag(sentence: str) -> Parameter:
    return Parameter(bool, attrs.validators.instance_of(bool), sentence)


def number(validator: Any, sentence: str) -> Parameter:
    return Parameter(float, validator, sentence, _float)


def _float(value: float) -> float:
    return float(value)


def above_zero(sentence: str) -> Parameter:
    return number(and_(gt(0), le(LARGEST)), sentence)


def zero_or_more(sentence: str) -> Parameter:
    return number(and_(ge(0), le(LARGEST)), sentence)


def _word(*words: str, sentence: str) -> Parameter:
    return Parameter(Literal[words], attrs.validators.in_(words), sentence)


PARAMETERS: Mapping[str, Parameter] = {
    "steps": _whole("gradient steps, 1 or more."),
    "max_steps": _whole(
        "iterations at most, 1 or more; torchattacks calls it steps, which here are those of a "
        "PGD, for which a data set has a custom."
    ),
    "random_start": _flag("start at a random image of the ball."),
    "n_restarts": _whole("independent runs, 1 or more; each attacks what the others left."),
    "decay": zero_or_more("momentum: the share of the last direction that stays, 0 or more."),
    "eot_iter": _whole("gradients averaged at each step, 1 or more."),
    "m": _whole("scaled copies, 1 or more: the image over 1, 2, 4, and so on."),
    "N": _whole("neighbours whose gradients are averaged at each step, 1 or more."),
    "resize_rate": number(
        and_(gt(0), lt(1)), "side of the smallest copy, as a share of the image's width."
    ),
    "diversity_prob": number(and_(ge(0), le(1)), "probability that a step sees a shrunk copy."),
    "kernel_name": _word(
        "gaussian", "linear", "uniform", sentence="what smooths the gradient: the kernel's shape."
    ),
    "len_kernel": Parameter(int, _odd, "side of the kernel in pixels, odd."),
    "nsig": above_zero("standard deviations from a Gaussian kernel's centre to its edge."),
    "amplification": above_zero("a step's length, in shares of eps / num_iter_set."),
    "num_iter_set": _whole("gradient steps, 1 or more."),
    "project_factor": zero_or_more("weight of the part that leaves the ball, spread nearby."),
    "scale": above_zero("factor on the normalised logits."),
    "std": zero_or_more("standard deviation of the noise on the probabilities, 0 or more."),
    "noise_type": _word(
        "gaussian", "uniform", sentence="the noise that the smoothed classifier averages over."
    ),
    "noise_sd": zero_or_more("that noise's standard deviation, or its half range if uniform."),
    "noise_batch_size": _whole("noisy copies of each image, 1 or more."),
    "batch_max": _whole("noisy copies at once, noise_batch_size or more."),
    "delta": above_zero("length of the two-sided differences, in [0, 1] pixel units."),
    "nb_iter": _whole("steps, 1 or more."),
    "nb_sample": _whole("random directions for each estimate, 1 or more."),
    "max_batch_size": _whole("random directions at once, 1 or more."),
    "rho": number(
        and_(gt(0), le(1)), "share of steps that must raise the loss, or the step is halved."
    ),
    "alpha_max": number(and_(ge(0), le(1)), "greatest pull back towards the image."),
    "eta": above_zero("how far over the boundary each step goes; 1 is onto it."),
    "multi_targeted": _flag(
        "attack towards up to nine other classes in turn, the likeliest first; otherwise towards "
        "the nearest of all."
    ),
    "n_queries": _whole("queries for each image, 1 or more."),
    "p_init": number(and_(gt(0), le(1)), "share of the pixels in the first square."),
    "resc_schedule": _flag("shrink the squares in proportion to n_queries, not as for 10,000."),
    "c": above_zero("weight of the misclassification against the change."),
    "kappa": zero_or_more("confidence: by how much the wrong logit must lead, 0 or more."),
    "lr": above_zero("learning rate of the search."),
    "overshoot": zero_or_more("how far beyond the boundary each step goes, as a share."),
    "lam": above_zero("how far beyond DeepFool's image the boundary is taken, as a factor."),
    "binary_search_steps": _whole("times that the penalty's weight is set anew, 1 or more."),
    "max_iterations": _whole("gradient steps at each weight, 1 or more."),
    "abort_early": _flag("give a weight up when the loss stops falling."),
    "initial_const": above_zero("the first weight of the misclassification."),
    "beta": zero_or_more("weight of the l-1 norm against the l-2 norm, 0 or more."),
    "theta": number(_theta, "change of a value, in [-1, 1], not 0."),
    "gamma": number(and_(gt(0), le(1)), "share of the values that may change."),
    "pixels": _whole("pixels that may change, 1 or more."),
    "popsize": _whole("candidates in a generation, 1 or more; torchattacks takes 5 at least."),
    "inf_batch": _whole("images at once, 1 or more."),
    "x_dimensions": Parameter(
        tuple,
        _bounds,
        "LOW:HIGH, width of the patch whose pixels move, in pixels, or as shares.",
        pixels_or_shares,
    ),
    "y_dimensions": Parameter(
        tuple,
        _bounds,
        "LOW:HIGH, height of the patch whose pixels move, in pixels, or as shares.",
        pixels_or_shares,
    ),
    "pixel_mapping": _word(
        "random",
        "similarity",
        "similarity_random",
        "distance",
        "distance_random",
        sentence="where a pixel moves to: anywhere, or by the likeness of what is there.",
    ),
    "restarts": _whole("times that the search sets out from its best image, 1 or more."),
    "update_each_iteration": _flag("keep each improvement at once, in a single run."),
}
"""By name, ours where it differs. Of several meanings, `attacks.DESCRIBED` has the rarer ones."""

NORM = _word("linf", "l2", sentence="linf or l2.")
SWITCHED = number(_one, "1: the attack has no eps; it is off at strength 0 and on at any other.")
NEIGHBOURHOOD = above_zero("how far neighbours lie, in shares of eps.")
BIAS = number(and_(ge(0), le(1)), "share of the change kept after a success.")
RESTARTED_ITERATIONS = _whole("moves tried in each run, 1 or more.")


def losses(*names: str) -> Parameter:
    """The parameter ``loss`` of an attack that knows these."""
    need = "; dlr needs three classes" if "dlr" in names else ""
    return _word(*names, sentence=f"what it ascends: {' or '.join(names)}{need}.")
