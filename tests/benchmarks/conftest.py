"""Fixtures of the benchmarks: the folder of MNIST, and a robust model of it."""

from pathlib import Path

import pytest

from curricula.data.dataset import load_data
from curricula.training.loading import load_model
from curricula.training.loop import train_plan
from curricula.training.plan import make_plan


def pytest_addoption(parser):
    parser.addoption("--data-root", default="data", help="Folder of MNIST's files.")


@pytest.fixture(scope="session")
def mnist_root(request):
    root = Path(request.config.getoption("--data-root")).resolve()
    if not (root / "MNIST").is_dir():
        pytest.skip(f"MNIST is not in {root}; name its folder with --data-root")
    return str(root)


@pytest.fixture(scope="session")
def robust(mnist_root, tmp_path_factory):
    """Return MNIST, and a smallcnn in eval mode trained under rotation and PGD on 20,000 images."""
    run = tmp_path_factory.mktemp("robust") / "run"
    setting = {"data": "mnist(images=20000)", "data_root": mnist_root, "epochs": 5}
    train_plan(make_plan({**setting, "perturb": "rot:30+pgd:0.3"}), run, threats={})
    data = load_data("mnist", root=mnist_root)
    return data, load_model(run, data=data)
