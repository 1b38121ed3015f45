"""The hooks of this distribution. Importing them imports neither torch nor torchattacks."""

from collections.abc import Iterable, Mapping

from curricula.plugins.hookspecs import Record, hookimpl

INSTALL = "pip install ./plugins/curricula-torchattacks in a clone of curricula"

ATTACKS: Mapping[str, str] = {
    # Within a norm ball.
    "FGSM": "one step along the sign of the gradient, l-inf (Goodfellow et al. 2015)",
    "BIM": "iterated FGSM, l-inf (Kurakin et al. 2017)",
    "RFGSM": "FGSM after a random step, l-inf (Tramer et al. 2018)",
    "PGD": "projected gradient descent, l-inf (Madry et al. 2018)",
    "PGDL2": "projected gradient descent, l-2 (Madry et al. 2018)",
    "EOTPGD": "PGD on averaged gradients, l-inf (Zimmermann 2019)",
    "FFGSM": "FGSM from a random start, l-inf (Wong et al. 2020)",
    "TPGD": "PGD on the KL divergence of TRADES, l-inf (Zhang et al. 2019)",
    "MIFGSM": "BIM with momentum, l-inf (Dong et al. 2018)",
    "NIFGSM": "BIM with Nesterov momentum, l-inf (Lin et al. 2020)",
    "SINIFGSM": "NIFGSM over scaled copies, l-inf (Lin et al. 2020)",
    "VMIFGSM": "MIFGSM with tuned variance, l-inf (Wang and He 2021)",
    "VNIFGSM": "NIFGSM with tuned variance, l-inf (Wang and He 2021)",
    "DIFGSM": "MIFGSM on shrunk copies, l-inf (Xie et al. 2019)",
    "TIFGSM": "DIFGSM with smoothed gradients, l-inf (Dong et al. 2019)",
    "PIFGSM": "patch-wise FGSM, l-inf (Gao et al. 2020)",
    "PIFGSMPP": "patch-wise FGSM with smoothed gradients, l-inf (Gao et al. 2020)",
    "UPGD": "PGD with a choice of loss and momentum, l-inf",
    "Jitter": "PGD on a noisy, rescaled loss, l-inf (Schwinn et al. 2021)",
    "PGDRS": "PGD for randomised smoothing, l-inf (Salman et al. 2019)",
    "PGDRSL2": "PGD for randomised smoothing, l-2 (Salman et al. 2019)",
    "SPSA": "gradients estimated from queries, l-inf (Uesato et al. 2018)",
    "APGD": "PGD with its own step length, l-inf or l-2 (Croce and Hein 2020)",
    "APGDT": "APGD towards the other classes in turn, l-inf or l-2 (Croce and Hein 2020)",
    "FAB": "smallest change over the boundary, l-inf or l-2 (Croce and Hein 2020)",
    "Square": "random search with squares, l-inf or l-2 (Andriushchenko et al. 2020)",
    # Without a norm ball.
    "GN": "Gaussian noise; the budget is its standard deviation",
    "CW": "smallest l-2 change by a penalty, without a ball (Carlini and Wagner 2017)",
    "DeepFool": "smallest l-2 change by linearising, without a ball (Moosavi-Dezfooli et al. 2016)",
    "SparseFool": "few pixels by linearising, without a ball (Modas et al. 2019)",
    "EADL1": "small l-1 change by an elastic net, without a ball (Chen et al. 2018)",
    "EADEN": "small elastic-net change, without a ball (Chen et al. 2018)",
    "JSMA": "few pixels by a saliency map, without a ball (Papernot et al. 2016)",
    "OnePixel": "one pixel by differential evolution, without a ball (Su et al. 2019)",
    "Pixle": "pixels moved about the image, without a ball (Pomponi et al. 2022)",
}
"""The summary of each attack, by its name in torchattacks."""

NOT_OFFERED: Mapping[str, str] = {
    "VANILA": "it returns the image; write clean",
    "AutoAttack": "its parts take 10 steps, not the published 100; autoattack is the published one",
    "MultiAttack": "a wrapper of other attacks; write A|B as a threat",
    "LGV": "it trains its own networks, on a loader of training images",
}
"""The other exports of torchattacks, and why they are not offered."""


@hookimpl
def curricula_perturbations() -> Iterable[Record]:
    for name, summary in ATTACKS.items():
        yield Record(
            name=f"torchattacks-{name.lower()}",
            factory=f"curricula_torchattacks.attacks:{name}",
            summary=summary,
            install=INSTALL,
        )
    yield Record(
        name="autoattack",
        factory="curricula_torchattacks.autoattack:AutoAttack",
        summary="AutoAttack, l-inf, l-2 or l-1, standard or for random networks (Croce et al.)",
        install=INSTALL,
    )
