"""The parameters of torchattacks' attacks: type, range and a sentence for each name.

Their defaults are the package's own; `attacks` reads them from its signatures.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, lt

from curricula.perturbations import validators

MAX_COUNT = 2**62  # steps, copies or images; an expression bounds the number of passes
MAX_PIXELS = 1000  # pixels that OnePixel may change
MAX_KERNEL = 101  # side in pixels of a kernel that smooths gradients; the usual one has 15


@attrs.frozen
class Parameter:
    """Type, range and meaning of one parameter of an attack.

    Attributes:
        annotation: the field's type.
        validator: the field's validator.
        sentence: the meaning and the range, for the docstring.
        converter: the field's converter, or None.
    """

    annotation: Any
    validator: Any
    sentence: str
    converter: Callable[[Any], Any] | None = None

    def field(self, default: Any) -> Any:
        """Return an attrs field with the given default and this parameter's validator."""
        return attrs.field(default=default, validator=self.validator, converter=self.converter)


def _odd(instance: Any, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 1 <= value <= MAX_KERNEL or value % 2 == 0:
        raise ValueError(f"{attribute.name} must be odd, from 1 to {MAX_KERNEL}, not {value}")


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
    """Return whole numbers as int (pixels) and fractions as float (shares of the side), by which
    torchattacks distinguishes them."""
    return tuple(int(bound) if float(bound).is_integer() else bound for bound in bounds)


def _whole(sentence: str, at_most: int = MAX_COUNT) -> Parameter:
    return Parameter(int, validators.between(1, at_most), sentence)


def _flag(sentence: str) -> Parameter:
    return Parameter(bool, attrs.validators.instance_of(bool), sentence)


def _number(validator: Any, sentence: str) -> Parameter:
    return Parameter(float, validator, sentence, _float)


def _float(value: float) -> float:
    return float(value)


def above_zero(sentence: str) -> Parameter:
    return _number(validators.above_zero(), sentence)


def zero_or_more(sentence: str) -> Parameter:
    return _number(validators.valid_budget, sentence)


def _word(*words: str, sentence: str) -> Parameter:
    return Parameter(Literal[words], attrs.validators.in_(words), sentence)


PARAMETERS: Mapping[str, Parameter] = {
    "steps": _whole("gradient steps, 1 or more."),
    "max_steps": _whole("maximum number of iterations, 1 or more (`steps` in torchattacks)."),
    "random_start": _flag("start at a random image of the ball."),
    "n_restarts": _whole(
        "number of independent runs, 1 or more; each attacks the images that are not yet fooled."
    ),
    "decay": zero_or_more("momentum: factor on the previous direction, 0 or more."),
    "eot_iter": _whole("number of gradients averaged at each step, 1 or more."),
    "m": _whole("number of scaled copies, 1 or more: the image divided by 1, 2, 4, and so on."),
    "N": _whole("number of neighbours whose gradients are averaged at each step, 1 or more."),
    "resize_rate": _number(
        and_(gt(0), lt(1)),
        "side of the smallest copy, as a share of the image's width, above 0 and below 1.",
    ),
    "diversity_prob": _number(
        and_(ge(0), le(1)), "probability that a step uses a shrunk copy, in [0, 1]."
    ),
    "kernel_name": _word(
        "gaussian", "linear", "uniform", sentence="shape of the kernel that smooths the gradient."
    ),
    "len_kernel": Parameter(int, _odd, f"side of the kernel in pixels, odd, 1 to {MAX_KERNEL}."),
    "nsig": above_zero("half width of the Gaussian kernel in standard deviations, above 0."),
    "amplification": above_zero("length of a step as a multiple of eps / num_iter_set, above 0."),
    "num_iter_set": _whole("gradient steps, 1 or more."),
    "project_factor": zero_or_more(
        "weight of the part outside the ball, which is spread nearby; 0 or more."
    ),
    "scale": above_zero("factor on the normalised logits, above 0."),
    "std": zero_or_more("standard deviation of the noise on the probabilities, 0 or more."),
    "noise_type": _word(
        "gaussian", "uniform", sentence="the noise that the smoothed classifier averages over."
    ),
    "noise_sd": zero_or_more(
        "standard deviation of that noise, or its half range if uniform; 0 or more."
    ),
    "noise_batch_size": _whole("number of noisy copies of each image, 1 or more."),
    "batch_max": _whole(
        "maximum number of noisy copies processed at once, noise_batch_size or more."
    ),
    "delta": above_zero("length of the two-sided differences, in [0, 1] pixel units, above 0."),
    "nb_iter": _whole("number of steps, 1 or more."),
    "nb_sample": _whole("number of random directions for each estimate, 1 or more."),
    "max_batch_size": _whole("maximum number of random directions processed at once, 1 or more."),
    "rho": _number(
        and_(gt(0), le(1)),
        "share of steps that must raise the loss, or the step is halved; above 0 to 1.",
    ),
    "alpha_max": _number(
        and_(ge(0), le(1)), "largest weight of the pull back towards the image, in [0, 1]."
    ),
    "eta": above_zero(
        "length of a step relative to the distance to the boundary, above 0; 1 ends on it."
    ),
    "multi_targeted": _flag(
        "attack towards up to nine other classes in turn, the likeliest first; otherwise towards "
        "the nearest class."
    ),
    "n_queries": _whole("number of queries per image, 1 or more."),
    "p_init": _number(and_(gt(0), le(1)), "share of the pixels in the first square, above 0 to 1."),
    "resc_schedule": _flag("shrink the squares in proportion to n_queries, not as for 10,000."),
    "c": above_zero("weight of the misclassification against the change, above 0."),
    "kappa": zero_or_more("confidence: the lead that the wrong logit must have, 0 or more."),
    "lr": above_zero("learning rate of the search, above 0."),
    "overshoot": zero_or_more("length of a step beyond the boundary, as a share, 0 or more."),
    "lam": above_zero("factor on DeepFool's change that estimates the boundary, above 0."),
    "binary_search_steps": _whole("number of weights of the penalty that are tried, 1 or more."),
    "max_iterations": _whole("gradient steps for each weight, 1 or more."),
    "abort_early": _flag("abandon a weight when the loss stops falling."),
    "initial_const": above_zero("first weight of the misclassification, above 0."),
    "beta": zero_or_more("weight of the l-1 norm against the l-2 norm, 0 or more."),
    "theta": _number(_theta, "change of a value, in [-1, 1], not 0."),
    "gamma": _number(and_(gt(0), le(1)), "share of the values that may change, above 0 to 1."),
    "pixels": _whole(f"number of pixels that may change, 1 to {MAX_PIXELS:,}.", MAX_PIXELS),
    "popsize": _whole(
        "number of candidates in a generation, 1 or more; torchattacks uses at least 5."
    ),
    "inf_batch": _whole("number of images processed at once, 1 or more."),
    "x_dimensions": Parameter(
        tuple,
        _bounds,
        "LOW:HIGH, width of the patch whose pixels move, in pixels or as shares.",
        pixels_or_shares,
    ),
    "y_dimensions": Parameter(
        tuple,
        _bounds,
        "LOW:HIGH, height of the patch whose pixels move, in pixels or as shares.",
        pixels_or_shares,
    ),
    "pixel_mapping": _word(
        "random",
        "similarity",
        "similarity_random",
        "distance",
        "distance_random",
        sentence="where a pixel moves to: a random place, or one chosen by the value there.",
    ),
    "restarts": _whole(
        "number of times that the search starts again from its best image, 1 or more."
    ),
    "update_each_iteration": _flag("keep each improvement at once, in a single run."),
}
"""Parameters by our name. If a name has several meanings, `attacks.SPECS` has the rarer ones."""

MULTIPLIED = (
    "steps",
    "max_steps",
    "num_iter_set",
    "nb_iter",
    "n_queries",
    "max_iterations",
    "binary_search_steps",
    "popsize",
    "eot_iter",
    "m",
    "N",
    "nb_sample",
    "noise_batch_size",
    "n_restarts",
    "restarts",
)
"""The parameters whose product is about the number of passes of an attack."""

NORM = _word("linf", "l2", sentence="linf or l2.")
SWITCHED = _number(_one, "1: the attack has no eps; it is off at strength 0 and on at any other.")
NEIGHBOURHOOD = above_zero("range of the neighbours as a multiple of eps, above 0.")
BIAS = _number(and_(ge(0), le(1)), "share of the change that is kept after a success, in [0, 1].")
RESTARTED_ITERATIONS = _whole("number of moves tried in each run, 1 or more.")


def losses(*names: str) -> Parameter:
    """Return a parameter ``loss`` whose choices are the given names."""
    need = "; dlr needs three classes or more" if "dlr" in names else ""
    return _word(*names, sentence=f"the loss to ascend: {' or '.join(names)}{need}.")
