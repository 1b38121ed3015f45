"""Baselines for the speed of training: plain loops around other libraries' attacks.

They use float32, put the network in eval mode during the attack, and rotate images one at a time
with Pillow in a DataLoader with one worker.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms.functional import InterpolationMode, to_pil_image

from curricula.data.dataset import DataSet
from curricula.errors import UserError
from curricula.expressions.syntax import Call, Chain
from curricula.perturbations.attacks.pgd import PGD
from curricula.perturbations.geometric.affine import Rotation
from curricula.plugins.names import CLEAN
from curricula.training.plan import Plan
from curricula.training.step import build_optimizer

Attack = Callable[[Tensor, Tensor], Tensor]


@attrs.frozen(kw_only=True)
class _PGDArguments:
    """The arguments of l-inf PGD that all compared libraries have.

    Attributes:
        eps: radius of the ball, in [0, 1] pixel units.
        step: length of a step, in [0, 1] pixel units.
        steps: number of steps.
        random_start: whether to start at a random image of the ball.
    """

    eps: float
    step: float
    steps: int
    random_start: bool


def _torchattacks(library: ModuleType, model: nn.Module, pgd: _PGDArguments, plan: Plan) -> Attack:
    attack: Attack = library.PGD(
        model, eps=pgd.eps, alpha=pgd.step, steps=pgd.steps, random_start=pgd.random_start
    )
    return attack


def _foolbox(library: ModuleType, model: nn.Module, pgd: _PGDArguments, plan: Plan) -> Attack:
    attack = library.attacks.LinfPGD(
        abs_stepsize=pgd.step, steps=pgd.steps, random_start=pgd.random_start
    )

    def run(x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        wrapped = library.PyTorchModel(model.eval(), bounds=(0, 1), device=x_NCHW.device)
        adversarial: Tensor = attack(wrapped, x_NCHW, y_N, epsilons=pgd.eps)[1]
        model.train()
        return adversarial

    return run


def _art(library: ModuleType, model: nn.Module, pgd: _PGDArguments, plan: Plan) -> Attack:
    estimators = importlib.import_module("art.estimators.classification")
    evasion = importlib.import_module("art.attacks.evasion")
    wrapped = estimators.PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=plan.data.image_shape,
        nb_classes=plan.data.num_classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if plan.device.type == "cuda" else "cpu",
    )
    attack = evasion.ProjectedGradientDescentPyTorch(
        wrapped,
        eps=pgd.eps,
        eps_step=pgd.step,
        max_iter=pgd.steps,
        num_random_init=int(pgd.random_start),
        batch_size=plan.config.batch_size,
        verbose=False,
    )

    def run(x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        adversarial = attack.generate(x_NCHW.cpu().numpy(), y_N.cpu().numpy())
        model.train()
        return torch.from_numpy(adversarial).to(x_NCHW.device)

    return run


BASELINES: Mapping[
    str, tuple[str, Callable[[ModuleType, nn.Module, _PGDArguments, Plan], Attack]]
] = {
    "torchattacks": ("torchattacks", _torchattacks),
    "foolbox": ("foolbox", _foolbox),
    "art": ("adversarial-robustness-toolbox", _art),
}
"""The distribution to install and the function that builds the attack, by module name."""


class BaselineLoop:
    """A plain training loop with another library's attack, which does the same updates as training
    under a plan.

    Args:
        name: one of `BASELINES`.
        plan: a plan whose curriculum is ``rot+pgd``, in l-inf and without restarts, whose objective
            is ``at``, and which has no augmentation.
        model: the model to train; by default the plan's.

    Raises:
        UserError: the library is not installed, or the plan has a different curriculum.
    """

    def __init__(self, name: str, plan: Plan, model: nn.Module | None = None) -> None:
        distribution, make = BASELINES[name]
        rotation, pgd = _links(plan, name)
        try:
            library = importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"against {name}: it is not installed ({error}); pip install {distribution}"
            ) from error
        if model is None:
            with torch.random.fork_rng(devices=[]):
                model = plan.build_model()
        self.device = plan.device
        self.model = model.to(plan.device).to(memory_format=torch.contiguous_format)
        self.attack = make(library, self.model, pgd, plan)
        self.optimizer = build_optimizer(plan, self.model)
        images = PILDataset(plan.data, rotation.budget)
        self.loader: torch.utils.data.DataLoader[tuple[Tensor, int]] = torch.utils.data.DataLoader(
            images,
            batch_size=plan.config.batch_size,
            shuffle=True,
            num_workers=1,
            drop_last=True,
            persistent_workers=True,
            pin_memory=plan.device.type == "cuda",
        )
        self.batches: Iterator[Any] | None = None

    def _batches(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def update(self) -> None:
        """Attack the next batch and train on it, with one step of the optimiser."""
        self.batches = self.batches or self._batches()
        x, y = (tensor.to(self.device, non_blocking=True) for tensor in next(self.batches))
        with _tf32(self.device):
            adversarial = self.attack(x, y)
            self.model.train()
            loss = F.cross_entropy(self.model(adversarial), y)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

    def close(self) -> None:
        """Stop the worker process that reads the images."""
        self.batches = None
        del self.loader


def _tf32(device: torch.device) -> Any:
    """Return a context manager that allows TF32 and cuDNN's autotuning on a GPU, as a plain loop
    usually does."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=cudnn.enabled, benchmark=True, deterministic=False, allow_tf32=True)


def _links(plan: Plan, name: str) -> tuple[Rotation, _PGDArguments]:
    """Return the rotation of a plan ``rot+pgd`` and the arguments of its PGD.

    Raises:
        UserError: a plain loop cannot train under this plan.
    """
    tree, config = plan.curriculum.tree, plan.config
    match tree.expression, [leaf.perturbation for leaf in tree.leaves.values()]:
        case Chain((Call(), Call())), [Rotation() as rotation, PGD() as pgd] if (
            pgd.norm,
            pgd.restarts,
            pgd.tau,
        ) == ("linf", 1, None) and (config.objective, config.augmentation) == ("at", CLEAN):
            step = pgd.step if pgd.step is not None else (pgd.rel_step or 0) * pgd.budget
            return rotation, _PGDArguments(
                eps=pgd.budget, step=step, steps=pgd.full_steps, random_start=pgd.random_start
            )
    raise UserError(
        f"against {name}: only rot+pgd (l-inf, one restart, objective at, no augmentation) can be "
        f"compared, not {plan.curriculum} (objective {config.objective}, augmentation "
        f"{config.augmentation})"
    )


class PILDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Training images as Pillow images, from which each access returns a randomly rotated tensor
    CHW and a label."""

    def __init__(self, data: DataSet, degrees: float) -> None:
        pixels_NCHW = data.images(data.train.load().pixels).mul(255).round().to("cpu", torch.uint8)
        self.images = [to_pil_image(pixels_CHW) for pixels_CHW in pixels_NCHW]
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomRotation(degrees, interpolation=InterpolationMode.BILINEAR),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]
