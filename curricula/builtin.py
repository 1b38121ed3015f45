"""What curricula itself offers, through the same hooks as any plugin."""

from collections.abc import Iterable

from curricula.hooks import Record, hookimpl


@hookimpl
def curricula_perturbations() -> Iterable[Record]:
    yield Record(
        name="rot",
        factory="curricula.perturbations.spatial:Rotation",
        summary="random rotation, budget in degrees",
    )
    yield Record(
        name="trans",
        factory="curricula.perturbations.spatial:Translation",
        summary="random translation, budget in pixels",
    )
    yield Record(
        name="pgd",
        factory="curricula.perturbations.pgd:PGD",
        summary="projected gradient descent in the l-inf, l-2 or l-1 ball",
    )
    yield Record(
        name="fgsm",
        factory="curricula.perturbations.single_step:FGSM",
        summary="one signed gradient step of the whole l-inf budget",
    )
    yield Record(
        name="rfgsm",
        factory="curricula.perturbations.single_step:RandomFGSM",
        summary="one signed step from a random start in the l-inf ball",
    )
    yield Record(
        name="nfgsm",
        factory="curricula.perturbations.single_step:NoisyFGSM",
        summary="strong noise and one signed step, no ball; for training alone",
    )
    yield Record(
        name="mim",
        factory="curricula.perturbations.mim:MIM",
        summary="signed gradient steps with momentum in the l-inf ball",
    )
    yield Record(
        name="apgd",
        factory="curricula.perturbations.apgd:APGD",
        summary="PGD that finds its own step, in the l-inf or l-2 ball",
    )
    yield Record(
        name="square",
        factory="curricula.perturbations.square:Square",
        summary="random squares in the l-inf ball, without gradients",
    )


@hookimpl
def curricula_schedules() -> Iterable[Record]:
    summaries = {
        "constant": "the same strength throughout",
        "linear": "in a straight line",
        "step": "in stages, equal ones or named ones",
        "cosine": "half a cosine wave: gentle at both ends",
        "exponential": "fast at first",
        "root": "the competence curve: fast at first, a root",
        "sigmoid": "slow, fast, slow",
    }
    for name, summary in summaries.items():
        yield Record(name=name, factory=f"curricula.schedules.curves:{name}", summary=summary)


@hookimpl
def curricula_objectives() -> Iterable[Record]:
    yield Record(
        name="at",
        factory="curricula.objectives:AdversarialTraining",
        summary="cross-entropy at the perturbed view (adversarial training)",
    )
    yield Record(
        name="trades",
        factory="curricula.objectives:Trades",
        summary="cross-entropy at the natural view plus beta KL to the perturbed one",
    )


@hookimpl
def curricula_models() -> Iterable[Record]:
    yield Record(
        name="smallcnn",
        factory="curricula.models.small:smallcnn",
        summary="four convolutions, the MNIST network of TRADES",
    )
    yield Record(
        name="stdcnn",
        factory="curricula.models.small:stdcnn",
        summary="seven layers, the Z2CNN of Cohen and Welling",
    )
    yield Record(
        name="resnet18",
        factory="curricula.models.resnet:resnet18",
        summary="ResNet-18 in its form for 32x32 images",
    )


@hookimpl
def curricula_datasets() -> Iterable[Record]:
    yield Record(
        name="digits",
        factory="curricula.data.digits:digits",
        summary="1,797 handwritten digits, embedded; 28x28 grey",
    )
    for name, summary in {
        "mnist": "70,000 handwritten digits; 28x28 grey",
        "fashion-mnist": "70,000 pieces of clothing; 28x28 grey",
        "cifar10": "60,000 photographs in 10 classes; 32x32 colour",
        "cifar100": "60,000 photographs in 100 classes; 32x32 colour",
    }.items():
        attribute = name.replace("-", "_")
        yield Record(
            name=name, factory=f"curricula.data.torchvision_sets:{attribute}", summary=summary
        )
    yield Record(
        name="folder",
        factory="curricula.data.folder:folder",
        summary="your images: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png",
    )


@hookimpl
def curricula_commands() -> Iterable[Record]:
    for name, summary in {
        "train": "train a classifier under a curriculum of perturbations",
        "evaluate": "measure a run under threats",
        "plugins": "list what is registered, and by whom",
        "recipes": "list the shipped configurations",
    }.items():
        yield Record(name=name, factory=f"curricula.cli.{name}:command", summary=summary)
