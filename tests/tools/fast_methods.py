"""Train with fast methods that curricula lacks, beside N-FGSM, at an equal number of passes.

    python tests/tools/fast_methods.py --data-root data/cifar10.npz

CIFAR-10, rotations within 30 degrees at full strength from the start, eps 8/255; each epoch draws
new rotations, and the method attacks the rotated images. The script prints a line of Markdown for
each method: clean and joint accuracy of held-out validation images in %, the latter of each seed
too, and the one-way passes per training image. Each training takes about two minutes of one core.
"""

import itertools
from collections.abc import Callable, Iterator

import attrs
import click
import torch
import torch.nn.functional as F
from markdown_tables import head, line
from script import Script
from torch import Tensor, nn

import curricula
from curricula.sweeps.comparison import mean_and_deviation
from curricula.training.at_precision import AtPrecision
from curricula.training.learning_rate import one_cycle

EPS = 8 / 255
BATCH_SIZE = 128
JOINT = "rot:30+pgd(8/255, steps=40, rel_step=1/10)"


@attrs.define(kw_only=True, eq=False)
class Trainer:
    """A network with its optimiser and generator, which counts forward and backward passes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    passes: int = 0

    def logits(self, x_NCHW: Tensor) -> Tensor:
        """Return the logits (N, K) in bf16's precision, as float32."""
        self.passes += len(x_NCHW)
        logits: Tensor = AtPrecision(self.model, "bf16")(x_NCHW)
        return logits

    def gradient(self, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        """Return the gradient of the summed cross-entropy in eval mode, (N, C, H, W)."""
        self.model.eval()
        x = x_NCHW.detach().requires_grad_()
        entropy = F.cross_entropy(self.logits(x), y_N, reduction="sum")
        self.passes += len(x)
        return torch.autograd.grad(entropy, x)[0]

    def noise(self, x_NCHW: Tensor, radius: float) -> Tensor:
        """Return uniform noise in [-radius, radius], (N, C, H, W)."""
        return radius * (2 * torch.rand(x_NCHW.shape, generator=self.generator) - 1)

    def descend(self, loss: Tensor, images: int) -> None:
        """Take a step of the optimiser; ``images`` went forward for this loss."""
        self.optimizer.zero_grad()
        loss.backward()
        self.passes += images
        self.optimizer.step()


Method = Callable[[Trainer, Tensor, Tensor, float], None]
"""Updates a trainer on rotated images (N, C, H, W) with their labels (N,), at a fraction of
training."""


def within(x_NCHW: Tensor, moved_NCHW: Tensor) -> Tensor:
    """Return the nearest images within eps of x, in [0, 1]."""
    return (x_NCHW + (moved_NCHW - x_NCHW).clamp(-EPS, EPS)).clamp(0, 1)


def nfgsm(trainer: Trainer, x: Tensor, y: Tensor, fraction: float) -> None:
    """Update on images of N-FGSM (de Jorge et al. 2022)."""
    noisy = (x + trainer.noise(x, 2 * EPS)).clamp(0, 1)
    adversarial = (noisy + EPS * trainer.gradient(noisy, y).sign()).clamp(0, 1)
    trainer.model.train()
    trainer.descend(F.cross_entropy(trainer.logits(adversarial), y), len(x))


def zero_grad(trainer: Trainer, x: Tensor, y: Tensor, fraction: float) -> None:
    """Update on images of ZeroGrad (Golgooni et al. 2021): a step of twice eps from a random start,
    which leaves the 35 % of each image's values with the smallest gradients where they are."""
    start = (x + trainer.noise(x, EPS)).clamp(0, 1)
    gradient = trainer.gradient(start, y)
    size = gradient.abs()
    least = size.flatten(1).quantile(0.35, dim=1)[:, None, None, None]
    step = torch.where(size < least, 0.0, gradient.sign())
    trainer.model.train()
    trainer.descend(F.cross_entropy(trainer.logits(within(x, start + 2 * EPS * step)), y), len(x))


def free(replays: int) -> Method:
    """Return the method that updates on each batch several times, and lets the change of the images
    grow along the gradients of these updates (Shafahi et al. 2019). The first change of a batch is
    the last of the batch before."""
    change: Tensor | None = None

    def method(trainer: Trainer, x: Tensor, y: Tensor, fraction: float) -> None:
        nonlocal change
        change = torch.zeros_like(x) if change is None else change
        trainer.model.train()
        for _ in range(replays):
            adversarial = (x + change).clamp(0, 1).requires_grad_()
            trainer.descend(F.cross_entropy(trainer.logits(adversarial), y), len(x))
            assert adversarial.grad is not None
            change = (change + EPS * adversarial.grad.sign()).clamp(-EPS, EPS)

    return method


def liet(smoothing: float = 0.6, weight: float = 100.0, refresh: int = 20) -> Method:
    """Return the method LIET of the FastAT Benchmark (Pan and Yao 2026), from its code: a start
    along the gradient of a grey image of the label, mixed with noise; cross-entropy against labels
    smoothed at random; and the Jensen-Shannon divergence between the predictions at the start and
    after the step, with a weight that rises over training."""
    updates = itertools.count()
    towards: Tensor | None = None

    def entropy(trainer: Trainer, logits: Tensor, y: Tensor) -> Tensor:
        labels = F.one_hot(y, logits.shape[1]).float()
        others = torch.rand(logits.shape, generator=trainer.generator) * (1 - labels)
        smooth = (1 - smoothing) * labels + smoothing * others / others.sum(1, keepdim=True)
        return -(smooth * logits.log_softmax(1)).sum(1).mean()

    def method(trainer: Trainer, x: Tensor, y: Tensor, fraction: float) -> None:
        nonlocal towards
        if next(updates) % refresh == 0:
            grey = torch.full((10, *x.shape[1:]), 0.5)
            towards = EPS * trainer.gradient(grey, torch.arange(10)).sign()
        assert towards is not None
        share, sign = torch.rand(2, generator=trainer.generator)
        noisy = torch.rand(x.shape, generator=trainer.generator) < 0.1 + 0.4 * share
        change = torch.where(noisy, trainer.noise(x, EPS), towards[y])
        start = (x + (change if sign < 0.5 else -change)).clamp(0, 1).requires_grad_()
        trainer.model.train()
        before = trainer.logits(start)
        (gradient,) = torch.autograd.grad(entropy(trainer, before, y), start, retain_graph=True)
        trainer.passes += len(x)
        after = trainer.logits(within(x, start.detach() + EPS * gradient.sign()))
        p, q = before.softmax(1), after.softmax(1)
        middle = ((p + q) / 2).log()
        divergence = F.kl_div(middle, p, reduction="batchmean")
        divergence = (divergence + F.kl_div(middle, q, reduction="batchmean")) / 2
        loss = entropy(trainer, after, y) + weight * fraction * divergence
        trainer.descend(loss, 2 * len(x))

    return method


METHODS: dict[str, tuple[Callable[[], Method], float]] = {
    "N-FGSM, 5 epochs": (lambda: nfgsm, 5),
    "ZeroGrad, 5 epochs": (lambda: zero_grad, 5),
    "LIET, 4 epochs": (liet, 4),
    "free, 5 epochs of 2 updates": (lambda: free(2), 5),
    "free, 3.3 epochs of 3 updates": (lambda: free(3), 10 / 3),
    "free, 2.5 epochs of 4 updates": (lambda: free(4), 2.5),
}
"""A new form of each method for a training, with the epochs that make 20 passes per image."""


def batches(data: curricula.DataSet, updates: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a number of batches of rotated images, with their labels, from reshuffled epochs."""
    curriculum = curricula.Curriculum.parse("rot:30", ["constant"])
    victim = curricula.ModelVictim(nn.Identity())
    order, draws = (torch.Generator().manual_seed(seed) for _ in range(2))
    at = curricula.Progress(step=0, total_steps=1, epoch=0, total_epochs=1)
    while True:
        for _, batch in curricula.batches(data.train, BATCH_SIZE, generator=order):
            views = curriculum(
                data.images(batch.pixels),
                batch.labels,
                strengths=curriculum.strengths(at),
                victim=victim,
                generator=draws,
            )
            yield views.transformed, batch.labels
            updates -= 1
            if not updates:
                return


def trained(data: curricula.DataSet, method: Method, epochs: float, seed: int) -> Trainer:
    """Return a trainer that a method has trained for a number of epochs."""
    torch.manual_seed(seed)
    model = curricula.build_model("smallcnn", data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.0001)
    generator = torch.Generator().manual_seed(seed)
    trainer = Trainer(model=model, optimizer=optimizer, generator=generator)
    updates, rate = int(epochs * (len(data.train) // BATCH_SIZE)), one_cycle()
    for step, (x, y) in enumerate(batches(data, updates, seed)):
        now = curricula.Progress(step=step, total_steps=updates, epoch=0, total_epochs=1)
        optimizer.param_groups[0]["lr"] = 0.003 * rate(now)
        method(trainer, x, y, now.fraction)
    return trainer


@click.command(cls=Script)
@click.option("--data-root", default="data/cifar10.npz", show_default=True, help="CIFAR-10, npz.")
@click.option(
    "--seeds",
    default=2,
    type=click.IntRange(1),
    show_default=True,
    help="Number of seeds, from 10 on.",
)
@click.option("--method", "names", multiple=True, help="Start of a method's name; repeatable.")
def main(data_root: str, seeds: int, names: tuple[str, ...]) -> None:
    """Train with each method and print its accuracy."""
    chosen = {name: found for name, found in METHODS.items() if name.startswith(names or "")}
    if not chosen:
        raise click.ClickException(f"no method begins so: {', '.join(names)}")
    torch.set_num_threads(1)
    whole = curricula.load_data("npz(images=10000)", root=data_root)
    data, _ = whole.with_validation()
    print("\n".join(head("method", "clean", "joint", "joint of each seed", "passes per image")))
    for name, (method, epochs) in chosen.items():
        found = []
        for seed in range(10, 10 + seeds):
            trainer = trained(data, method(), epochs, seed)
            results = curricula.evaluate(trainer.model, whole, ["clean", JOINT], split="validation")
            found.append([result.accuracy for result in results])
        shown = map(mean_and_deviation, zip(*found, strict=True))
        each = ", ".join(f"{100 * joint:.1f}" for _, joint in found)
        print(line(name, *shown, each, f"{trainer.passes / len(data.train):.1f}"), flush=True)


if __name__ == "__main__":
    main()
