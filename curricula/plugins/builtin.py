"""Register the built-in perturbations, models, schedules, objectives, optimisers, data sets and
commands, through the same hooks as any plugin."""

from collections.abc import Iterable

from curricula.plugins.hookspecs import Record, hookimpl


@hookimpl
def curricula_perturbations() -> Iterable[Record]:
    for name, (attribute, summary) in {
        "rot": ("geometric.affine:Rotation", "random rotation, budget in degrees"),
        "trans": ("geometric.affine:Translation", "random translation, budget in pixels"),
        "scale": ("geometric.affine:Scale", "random zoom, budget a share of the factor"),
        "shear": ("geometric.affine:Shear", "random shear along both axes, budget in degrees"),
        "flip": ("geometric.whole_pixels:Flip", "random mirror image, budget its probability"),
        "crop": (
            "geometric.whole_pixels:Crop",
            "random crop of the padded image, budget in whole pixels",
        ),
        "roll": ("geometric.whole_pixels:Roll", "random cyclic shift, budget in whole pixels"),
        "perspective": (
            "geometric.warps:Perspective",
            "random perspective, budget twice a share of the side",
        ),
        "elastic": ("geometric.warps:Elastic", "random smooth displacement, budget in pixels"),
        "brightness": (
            "intensity.colour:Brightness",
            "random or worst brightness, budget a share of the factor",
        ),
        "contrast": (
            "intensity.colour:Contrast",
            "random or worst contrast, budget a share of the factor",
        ),
        "saturation": (
            "intensity.colour:Saturation",
            "random or worst saturation, budget a share of the factor",
        ),
        "hue": ("intensity.colour:Hue", "random or worst shift of the hue, budget in turns"),
        "gaussian": ("intensity.noise:GaussianNoise", "white noise, budget its standard deviation"),
        "uniform": ("intensity.noise:UniformNoise", "uniform noise in the l-inf ball"),
        "cutout": ("intensity.noise:Cutout", "random square cut out, budget a share of the side"),
    }.items():
        yield Record(name=name, factory=f"curricula.perturbations.{attribute}", summary=summary)
    yield Record(
        name="pgd",
        factory="curricula.perturbations.attacks.pgd:PGD",
        summary="projected gradient descent in the l-inf, l-2 or l-1 ball",
    )
    yield Record(
        name="fgsm",
        factory="curricula.perturbations.attacks.single_step:FGSM",
        summary="one signed gradient step as long as the l-inf budget",
    )
    yield Record(
        name="rfgsm",
        factory="curricula.perturbations.attacks.single_step:RandomFGSM",
        summary="one signed step from a random start in the l-inf ball",
    )
    yield Record(
        name="nfgsm",
        factory="curricula.perturbations.attacks.single_step:NoisyFGSM",
        summary="strong noise and one signed step, unbounded; for training only",
    )
    yield Record(
        name="mim",
        factory="curricula.perturbations.attacks.mim:MIM",
        summary="signed gradient steps with momentum in the l-inf ball",
    )
    yield Record(
        name="apgd",
        factory="curricula.perturbations.attacks.apgd:APGD",
        summary="PGD with an adaptive step, in the l-inf, l-2 or l-1 ball",
    )
    yield Record(
        name="square",
        factory="curricula.perturbations.attacks.square:Square",
        summary="random squares in the l-inf, l-2 or l-1 ball, without gradients",
    )


@hookimpl
def curricula_schedules() -> Iterable[Record]:
    summaries = {
        "constant": "the same strength throughout",
        "linear": "a straight line from start to end",
        "step": "stages, equal or listed",
        "cosine": "half a cosine wave: slow at both ends",
        "exponential": "fast at first",
        "root": "a root, the competence curve: fast at first",
        "sigmoid": "slow, fast, slow",
    }
    for name, summary in summaries.items():
        yield Record(name=name, factory=f"curricula.schedules.curves:{name}", summary=summary)
    for name, factory, summary in (
        ("anti", "controls:anti", "the reverse of linear: hard to easy, a control"),
        ("random", "controls:Random", "random for each epoch or update, a control"),
        (
            "gated",
            "adaptive:Gated",
            "grows when the accuracy under the current strength is high enough",
        ),
        (
            "self-paced",
            "adaptive:SelfPaced",
            "grows while the model learns at the current strength",
        ),
        ("fooling", "adaptive:Fooling", "holds the share of misclassified images at a target"),
        ("plateau", "adaptive:Plateau", "grows when the validation accuracy stops improving"),
        (
            "per-image",
            "adaptive:PerImage",
            "one strength per image: up when it is classified correctly, down when not",
        ),
    ):
        yield Record(name=name, factory=f"curricula.schedules.{factory}", summary=summary)


@hookimpl
def curricula_objectives() -> Iterable[Record]:
    yield Record(
        name="at",
        factory="curricula.objectives:AdversarialTraining",
        summary="cross-entropy on the perturbed view (adversarial training)",
    )
    yield Record(
        name="trades",
        factory="curricula.objectives:Trades",
        summary="cross-entropy on the transformed view plus beta times the KL to the perturbed one",
    )
    yield Record(
        name="mart",
        factory="curricula.objectives:Mart",
        summary="boosted cross-entropy plus a KL weighted by misclassification",
    )
    yield Record(
        name="gat",
        factory="curricula.objectives:gat",
        summary="cross-entropy on the transformed view plus the change of the probabilities",
    )
    yield Record(
        name="nuat",
        factory="curricula.objectives:nuat",
        summary="cross-entropy on the transformed view plus the nuclear norm of the logits' change",
    )
    yield Record(
        name="gradalign",
        factory="curricula.objectives:GradAlign",
        summary="cross-entropy on the perturbed view plus the misalignment of gradients near x",
    )
    yield Record(
        name="mix",
        factory="curricula.objectives:mix",
        summary="cross-entropy on the clean and on the perturbed view",
    )
    yield Record(
        name="alp",
        factory="curricula.objectives:alp",
        summary="mix plus the distance between the logits of its views (logit pairing)",
    )
    yield Record(
        name="consistency",
        factory="curricula.objectives:consistency",
        summary="mix plus the KL divergence between its views (invariance)",
    )


@hookimpl
def curricula_optimizers() -> Iterable[Record]:
    yield Record(
        name="sgd",
        factory="curricula.training.optimizers:sgd",
        summary="gradient descent with momentum",
    )
    yield Record(
        name="adamw",
        factory="curricula.training.optimizers:adamw",
        summary="Adam with decoupled weight decay",
    )


@hookimpl
def curricula_lr_schedules() -> Iterable[Record]:
    for name, summary in {
        "constant": "the same rate throughout",
        "step": "stages",
        "cosine": "half a cosine wave down to 0, once or with warm restarts",
        "one-cycle": "half a cosine wave up, another one down",
    }.items():
        attribute = name.replace("-", "_")
        yield Record(
            name=name, factory=f"curricula.training.learning_rate:{attribute}", summary=summary
        )


@hookimpl
def curricula_models() -> Iterable[Record]:
    for name, factory, summary in (
        ("smallcnn", "small:smallcnn", "four convolutions, the MNIST network of TRADES"),
        ("stdcnn", "small:stdcnn", "seven layers, the Z2CNN of Cohen and Welling"),
        ("lenet", "small:lenet", "LeNet-5 with ReLU and max pooling"),
        ("madry-mnist", "small:madry_mnist", "two convolutions, the MNIST network of Madry et al."),
        ("vgg11", "vgg:vgg11", "VGG-11 with batch norm, variant for 32x32 images"),
        ("vgg13", "vgg:vgg13", "VGG-13 with batch norm, variant for 32x32 images"),
        ("vgg16", "vgg:vgg16", "VGG-16 with batch norm, variant for 32x32 images"),
        ("vgg19", "vgg:vgg19", "VGG-19 with batch norm, variant for 32x32 images"),
        ("resnet18", "resnet:resnet18", "ResNet-18, variant for 32x32 images"),
        ("resnet34", "resnet:resnet34", "ResNet-34, variant for 32x32 images"),
        ("resnet50", "resnet:resnet50", "ResNet-50, variant for 32x32 images"),
        ("preact-resnet18", "resnet:preact_resnet18", "ResNet-18 with pre-activation blocks"),
        ("wrn-28-10", "wide:wrn_28_10", "wide residual network, 28 layers, 10 times as wide"),
        ("wrn-34-10", "wide:wrn_34_10", "wide residual network, 34 layers, 10 times as wide"),
        ("wrn", "wide:wrn", "wide residual network of depth 6n + 4 and any width"),
        ("randomised", "randomised:randomised", "a network behind a random perturbation"),
        ("smoothed", "randomised:smoothed", "the majority vote of a network on noisy images"),
        (
            "file",
            "file_models:file_model",
            'a class or function of a Python file that you name: file("mynet.py", MyNet)',
        ),
    ):
        yield Record(name=name, factory=f"curricula.models.{factory}", summary=summary)
    yield Record(
        name="torchvision",
        factory="curricula.models.torchvision_models:classifier",
        summary="any torchvision classifier, untrained or pretrained: torchvision(convnext_tiny)",
        choices="curricula.models.torchvision_names:names",
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
        summary="your photos: ROOT/train/CLASS/* and ROOT/test/CLASS/*, or a split of ROOT/CLASS/*",
    )
    yield Record(
        name="npz",
        factory="curricula.data.npz:npz",
        summary="arrays in a file, as MedMNIST has them: --data-root FILE.npz",
    )
    yield Record(
        name="random",
        factory="curricula.data.random_pixels:random_pixels",
        summary="random pixels of any shape, for speed measurements",
    )


@hookimpl
def curricula_callbacks() -> Iterable[Record]:
    yield Record(
        name="tensorboard",
        factory="curricula.training.tensorboard:TensorBoard",
        summary="writes scalars, images and results for TensorBoard",
        install="pip install tensorboard",
    )


@hookimpl
def curricula_suites() -> Iterable[Record]:
    for name, attribute, summary in (
        ("standard", "standard", "clean, spatial, adversarial and joint, as after a training"),
        ("spatial", "spatial", "rotations and translations: random, worst of 10, and a grid"),
        ("all", "every_suite", "every other registered suite"),
    ):
        yield Record(name=name, factory=f"curricula.evaluation.suites:{attribute}", summary=summary)


@hookimpl
def curricula_commands() -> Iterable[Record]:
    for name, summary in {
        "train": "train a classifier under a curriculum of perturbations",
        "evaluate": "measure the accuracy of a run under threats",
        "profile": "measure the robustness profile of a run: accuracy over growing ranges",
        "audit": "check a run for gradient masking",
        "certify": "certify l-2 radii of the images of a run by randomised smoothing",
        "predict": "classify images by the network of a run",
        "export": "write the network of a run as ONNX or for torch.export",
        "sweep": "train and evaluate many runs that differ in stated values",
        "search": "search ranges of values for the best trade-off of two accuracies",
        "compare": "compare runs and sweeps, with their Pareto frontier",
        "report": "write the page of a run or a sweep, with its figures",
        "bench": "measure the speed of training on this machine, and its limit",
        "preview": "draw what a curriculum does to real images",
        "schedule": "draw schedules as curves",
        "plugins": "list everything registered and its provider; `plugins new` starts a plugin",
        "recipes": "list the shipped configurations and sweeps",
    }.items():
        yield Record(name=name, factory=f"curricula.cli.{name}:command", summary=summary)
