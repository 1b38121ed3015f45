"""The attacks of torchattacks as perturbations, one class each, built from a table.

A class has the attack's name in torchattacks, and the parameters and defaults of the package's
signature, except that

- ``eps`` is the budget times the strength, and ``norm`` is linf or l2;
- a step's absolute length (``alpha``; ``lr`` of SPSA) is ``rel_step``, a share of the current eps;
- ``steps`` is ``max_steps`` where it is not the number of steps of a PGD;
- the number of classes is the model's, the seed comes from the generator, nothing is printed.
"""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, cast

import attrs
import torch
import torchattacks
from torch import Tensor, nn

from curricula.errors import UserError
from curricula.interfaces import Norm, NormBound, PerturbationKind, Strength, Victim
from curricula.perturbations.attacks.norm_ball import project
from curricula_torchattacks import patched
from curricula_torchattacks.adapters import DeviceTagged, groups, seeded
from curricula_torchattacks.parameters import (
    BIAS,
    MULTIPLIED,
    NEIGHBOURHOOD,
    NORM,
    PARAMETERS,
    RESTARTED_ITERATIONS,
    SWITCHED,
    Parameter,
    above_zero,
    losses,
    zero_or_more,
)
from curricula_torchattacks.plugin import ATTACKS

RGB = frozenset({3})
MAX_TARGETS = 9  # target classes of APGDT and FAB: all others of ten (Croce and Hein 2020)
UNITS = {
    "linf": "radius of the l-inf ball, in [0, 1] pixel units, from 0 to 1.",
    "l2": "radius of the l-2 ball, in [0, 1] pixel units, 0 or more.",
    "norm": "radius of the ball, in [0, 1] pixel units, 0 or more; in linf at most 1.",
    "std": "standard deviation of the noise, in [0, 1] pixel units, 0 or more.",
}
NORMS = {"linf": "Linf", "l2": "L2"}
CORRECTED = {"guassian": "gaussian"}  # noise_type of PGDRS and PGDRSL2, theirs to ours


@attrs.frozen(kw_only=True)
class AttackSpec:
    """A description of an attack of torchattacks as a perturbation: its unit, and the parameters
    that differ from the package's signature.

    Attributes:
        unit: unit of the budget: a norm; ``norm`` if the parameter of that name decides; ``std``;
            or ``switch`` for an attack without a budget.
        budget: the package's name of the budget.
        step: the package's name of a step's absolute length.
        rel_step: our default for it, as a share of eps, times the number of steps.
        steps: the package's name of the number of those steps; empty for one step.
        renamed: our names of parameters, by theirs.
        special: parameters with a meaning that differs from PARAMETERS, by our name.
        left_out: parameters that the package never reads, or that guard its divisions.
        channels: the channel counts that the attack works on, or None for any.
        passes: the number of passes of each step.
        patched: the class to use instead of the package's.
    """

    unit: str
    budget: str = "eps"
    step: str = "alpha"
    rel_step: float = 2.5
    steps: str = "steps"
    renamed: Mapping[str, str] = {}
    special: Mapping[str, Parameter] = {}
    left_out: frozenset[str] = frozenset()
    channels: frozenset[int] | None = None
    passes: int = 1
    patched: Callable[..., Any] | None = None


LINF, L2, EITHER = (AttackSpec(unit=unit) for unit in ("linf", "l2", "norm"))
SWITCH = AttackSpec(unit="switch", renamed={"steps": "max_steps"})
PATCHES = attrs.evolve(
    LINF, budget="max_epsilon", left_out=frozenset({"momentum", "prob"}), channels=RGB
)

SPECS: Mapping[str, AttackSpec] = {
    "FGSM": LINF,
    "BIM": LINF,
    "RFGSM": LINF,
    "PGD": LINF,
    "PGDL2": attrs.evolve(L2, left_out=frozenset({"eps_for_division"})),
    "EOTPGD": LINF,
    "FFGSM": attrs.evolve(LINF, steps="", rel_step=1.25),  # as Wong et al. and the package
    "TPGD": LINF,
    "MIFGSM": LINF,
    "NIFGSM": LINF,
    "SINIFGSM": LINF,
    "VMIFGSM": attrs.evolve(LINF, special={"beta": NEIGHBOURHOOD}),
    "VNIFGSM": attrs.evolve(LINF, special={"beta": NEIGHBOURHOOD}),
    "DIFGSM": LINF,
    "TIFGSM": attrs.evolve(LINF, channels=RGB),
    "PIFGSM": PATCHES,
    "PIFGSMPP": PATCHES,
    "UPGD": attrs.evolve(
        LINF, special={"loss": losses("ce", "margin", "dlr")}, patched=patched.UPGD
    ),
    "Jitter": LINF,
    "PGDRS": LINF,
    "PGDRSL2": attrs.evolve(L2, left_out=frozenset({"eps_for_division"})),
    "SPSA": attrs.evolve(LINF, step="lr", steps="nb_iter", passes=2),
    "APGD": attrs.evolve(EITHER, special={"loss": losses("ce", "dlr")}),
    "APGDT": attrs.evolve(EITHER, passes=MAX_TARGETS),
    "FAB": attrs.evolve(EITHER, renamed={"steps": "max_steps"}, special={"beta": BIAS}),
    "Square": attrs.evolve(
        EITHER, special={"loss": losses("margin", "ce")}, patched=patched.Square
    ),
    "GN": AttackSpec(unit="std", budget="std", passes=0),
    "CW": attrs.evolve(SWITCH, patched=patched.CW),
    "DeepFool": SWITCH,
    "SparseFool": attrs.evolve(SWITCH, passes=50),  # the steps of its DeepFool
    "EADL1": SWITCH,
    "EADEN": SWITCH,
    "JSMA": SWITCH,
    "OnePixel": SWITCH,
    "Pixle": attrs.evolve(
        SWITCH, special={"max_iterations": RESTARTED_ITERATIONS}, patched=patched.Pixle
    ),
}


class Attack:
    """Run an attack of torchattacks on the victim, and project its result into the ball.

    The attack gets a frozen module, one eps for each group of images of equal strength, and seeded
    random state. The other classes of this module are its subclasses; their fields are the
    parameters of their attacks.

    Example:
        >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 2])
        >>> victim = ModelVictim(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval())
        >>> strength, generator = torch.tensor([0.0, 0.5, 1.0]), torch.Generator()
        >>> attack = CLASSES["PGD"](budget=0.1, steps=5)
        >>> adversarial = attack(x, y, strength=strength, victim=victim, generator=generator)
        >>> (adversarial - x).abs().amax((1, 2, 3))
        tensor([0.0000, 0.0500, 0.1000])
    """

    __slots__ = ()

    kind: ClassVar[PerturbationKind] = "pixel"
    training_only: ClassVar[bool] = False
    channels: ClassVar[frozenset[int] | None]
    spec: ClassVar[AttackSpec]
    theirs: ClassVar[Callable[..., Any]]
    takes: ClassVar[frozenset[str]]
    passed: ClassVar[Mapping[str, str]]

    budget: float

    def __attrs_post_init__(self) -> None:
        """Check that the values of several fields do not contradict each other.

        Raises:
            ValueError: two values contradict each other.
        """
        given = cast(Any, self)
        if "abort_early" in self.passed and given.abort_early and given.max_iterations < 10:
            raise ValueError(
                f"max_iterations must be 10 or more, not {given.max_iterations}; or write "
                "abort_early=false"
            )
        if "batch_max" in self.passed and given.batch_max < given.noise_batch_size:
            raise ValueError(
                f"batch_max must be noise_batch_size or more, {given.noise_batch_size}, not "
                f"{given.batch_max}"
            )

    @property
    def passes(self) -> int:
        """Number of passes for an image that is not fooled: the product of the attack's counts,
        which is right within a factor of about two."""
        counts = (getattr(self, name) for name in MULTIPLIED if name in self.passed.values())
        targets = MAX_TARGETS if getattr(self, "multi_targeted", False) else 1
        return math.prod(counts) * targets * self.spec.passes

    @property
    def unit(self) -> str:
        norm: str = cast(Any, self).norm
        return norm

    @property
    def norm_bound(self) -> NormBound | None:
        if self.unit not in NORMS:
            return None
        return NormBound(norm=cast(Norm, self.unit), radius=self.budget)

    def __call__(
        self,
        x_NCHW: Tensor,
        y_N: Tensor,
        *,
        strength: Strength,
        victim: Victim,
        generator: torch.Generator,
    ) -> Tensor:
        if self.unit == "switch":
            strength = torch.as_tensor(strength, device=x_NCHW.device).ceil()
        # Some attacks call `view` on the images.
        result = x_NCHW.detach().clone(memory_format=torch.contiguous_format)
        if self.budget == 0:
            return result
        with seeded(generator) as seed, torch.enable_grad():
            for value, group in groups(strength, x_NCHW):
                module = DeviceTagged(victim.subset(group).as_module(), x_NCHW.device)
                result[group] = self._attacked(
                    result[group], y_N[group], value * self.budget, module, seed
                )
        return result

    def _attacked(
        self, x_NCHW: Tensor, y_N: Tensor, eps: float, module: nn.Module, seed: int
    ) -> Tensor:
        """Return adversarial images NCHW at one eps, in [0, 1] and, where the unit is a norm,
        within the eps-ball."""
        attack = self.construct(module, x_NCHW, eps=eps, seed=seed)
        adversarial = attack(x_NCHW, y_N).detach()
        # Where the gradient is exactly zero, some attacks divide zero by zero.
        adversarial = torch.where(adversarial.isfinite(), adversarial, x_NCHW)
        if self.unit in NORMS:
            eps_N111 = x_NCHW.new_full((len(x_NCHW), 1, 1, 1), eps)
            return project(adversarial, x_NCHW, eps_N111, cast(Norm, self.unit))
        return adversarial.clamp(0, 1)

    def construct(self, module: nn.Module, x_NCHW: Tensor, *, eps: float, seed: int) -> Any:
        """Return an object of torchattacks' attack class, with this perturbation's parameters and
        one eps.

        Raises:
            UserError: the attack needs more classes than the model has.
        """
        keywords = {theirs: getattr(self, ours) for theirs, ours in self.passed.items()}
        if "norm" in self.takes:
            keywords["norm"] = NORMS[self.unit]
        if "noise_type" in self.takes:
            theirs_by_ours = {ours: theirs for theirs, ours in CORRECTED.items()}
            noise_type = keywords["noise_type"]
            keywords["noise_type"] = theirs_by_ours.get(noise_type, noise_type)
        if self.spec.budget in self.takes:
            keywords[self.spec.budget] = eps
        if _has_steps(self.spec, self.takes):
            keywords[self.spec.step] = eps * cast(Any, self).rel_step
        if "seed" in self.takes:
            keywords["seed"] = seed
        name = type(self).__name__
        if name != "JSMA" and "n_classes" not in self.takes and keywords.get("loss") != "dlr":
            return self.theirs(module, **keywords)
        with torch.no_grad():
            classes = module(x_NCHW[:1]).shape[1]
        min_classes = 4 if name == "APGDT" else 3 if keywords.get("loss") == "dlr" else 2
        if classes < min_classes:
            raise UserError(
                f"torchattacks-{name.lower()} needs {min_classes} classes or more here, not "
                f"{classes}: its loss compares that many logits; torchattacks-apgd(loss=ce) takes "
                "any number"
            )
        if "n_classes" in self.takes:
            keywords["n_classes"] = min(classes, MAX_TARGETS + 1)
        attack = self.theirs(module, **keywords)
        if name == "JSMA":  # by default it targets the next of ten classes
            attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % classes, quiet=True)
        return attack


NOT_PARAMETERS = frozenset({"model", "norm", "seed", "n_classes", "verbose"})


def _has_steps(spec: AttackSpec, takes: Collection[str]) -> bool:
    """Return whether torchattacks' attack has a parameter for the absolute length of a step."""
    return spec.unit in ("linf", "l2") and spec.step in takes


def _class(name: str, spec: AttackSpec) -> type[Attack]:
    """Return a perturbation class for the attack of torchattacks with this name."""
    signature = inspect.signature(getattr(torchattacks, name)).parameters
    has_steps = _has_steps(spec, signature)
    own = NOT_PARAMETERS | spec.left_out | {spec.budget}
    own |= {spec.step} if has_steps else set()
    passed = {theirs: spec.renamed.get(theirs, theirs) for theirs in signature if theirs not in own}

    parameters = {"budget": _budget(spec, signature)}
    if spec.unit == "norm":
        parameters["norm"] = (NORM, "linf")
    for theirs, ours in passed.items():
        default = signature[theirs].default
        parameter = spec.special.get(ours) or PARAMETERS[ours]
        parameters[ours] = (parameter, CORRECTED.get(default, default))
        if has_steps and theirs == spec.steps:
            parameters["rel_step"] = _rel_step(spec)
    if has_steps and not spec.steps:
        parameters["rel_step"] = _rel_step(spec)

    body = {
        "__module__": __name__,
        "__qualname__": name,
        "__doc__": _docstring(
            name, spec, {ours: p.sentence for ours, (p, _) in parameters.items()}
        ),
        "__annotations__": {ours: p.annotation for ours, (p, _) in parameters.items()},
        **{ours: parameter.field(default) for ours, (parameter, default) in parameters.items()},
        "channels": spec.channels,
        "spec": spec,
        "theirs": spec.patched or getattr(torchattacks, name),
        "takes": frozenset(signature),
        "passed": passed,
    }
    if spec.unit != "norm":
        body["unit"] = spec.unit
    return cast(type[Attack], attrs.frozen(kw_only=True)(type(name, (Attack,), body)))


def _budget(spec: AttackSpec, signature: Mapping[str, inspect.Parameter]) -> tuple[Parameter, Any]:
    if spec.unit == "switch":
        return SWITCHED, 1.0
    # No data set states a standard budget for noise, so the package's default is ours.
    default = signature[spec.budget].default if spec.unit == "std" else attrs.NOTHING
    return zero_or_more(UNITS[spec.unit]), default


def _rel_step(spec: AttackSpec) -> tuple[Parameter, Any]:
    def default(instance: Any) -> float:
        steps = getattr(instance, spec.steps) if spec.steps else 1
        return spec.rel_step / max(steps, 1)  # steps are not yet validated

    share = " / ".join(filter(None, (f"{spec.rel_step:g}", spec.steps)))
    sentence = f"length of a step as a share of the current eps, above 0; by default {share}."
    return above_zero(sentence), attrs.Factory(default, takes_self=True)


def _docstring(name: str, spec: AttackSpec, sentences: Mapping[str, str]) -> str:
    arguments = "\n".join(f"    {ours}: {sentence}" for ours, sentence in sentences.items())
    if spec.unit in ("linf", "l2", "norm"):
        norm = "linf" if spec.unit == "norm" else spec.unit
        example = f">>> {name}(budget=0.1).norm_bound\n    NormBound(norm='{norm}', radius=0.1)"
    else:
        example = f">>> {name}().norm_bound is None\n    True"
    return (
        f"Run torchattacks' {name}: {ATTACKS[name]}.\n\n"
        f"Args:\n{arguments}\n\nExample:\n    {example}\n"
    )


CLASSES: Mapping[str, Callable[..., Attack]] = {
    name: _class(name, spec) for name, spec in SPECS.items()
}
globals().update(CLASSES)
