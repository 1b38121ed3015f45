"""Compare the logits of exported networks with ours on 1,000 images, in ONNX Runtime and as a
program of torch.export: stdcnn, resnet18, p4cnn and a network of timm.

    python tests/tools/export_parity.py --colour npz --data-root cifar10.npz
"""

import tempfile
from pathlib import Path

import click
import onnxruntime
import torch
from script import Script

import curricula
from curricula.plugins import registry

PLUGIN = Path(__file__).parents[2] / "plugins" / "curricula-timm" / "curricula_timm" / "plugin.py"
NETWORKS = {"stdcnn": 1, "p4cnn": 1, "resnet18": 3, "timm(test_resnet)": 3, "timm(test_vit)": 3}
"""The number of channels of each network's images: grey ones are digits."""
TOLERANCE = 1e-4  # largest difference of a logit


def images_of(data: curricula.DataSet, count: int) -> torch.Tensor:
    """Return the first images of a data set, test images first."""
    found = [data.images(split[slice(count)].load().pixels) for split in (data.test, data.train)]
    return torch.cat(found)[:count]


def trained(text: str, data: curricula.DataSet) -> torch.nn.Module:
    """Return a network after a few updates, so that its batch norms have statistics and its logits
    depend on the images."""
    torch.manual_seed(0)
    network = curricula.build_model(text, data).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    labels = data.train.labels[:320]
    for begin in range(0, 320, 64):
        chosen = slice(begin, begin + 64)
        x = data.images(data.train[chosen].load().pixels)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), labels[chosen]).backward()
        optimizer.step()
    return network.eval()


def logits_of(path: Path, x_NCHW: torch.Tensor) -> torch.Tensor:
    """Return the logits that an exported file computes, without curricula."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            return torch.export.load(path).module()(x_NCHW)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": x_NCHW.numpy()})[0])


@click.command(cls=Script)
@click.option("--colour", default="cifar10", help="Colour images.", show_default=True)
@click.option("--data-root", default="data", help="Folder or file of them.", show_default=True)
@click.option("--images", default=1000, help="Images to compare.", show_default=True)
@click.option("--network", "networks", multiple=True, help="One of the networks; repeatable.")
def main(colour: str, data_root: str, images: int, networks: tuple[str, ...]) -> None:
    """Print the largest difference of the logits of each network and format; exit with 1 if one is
    above 1e-4."""
    if "timm" not in registry.current().records("model"):
        registry.use(registry.build_registry([PLUGIN]))
    apart = False
    for text in networks or NETWORKS:
        data = curricula.load_data("digits" if NETWORKS[text] == 1 else colour, root=data_root)
        x_NCHW = images_of(data, images)
        network = trained(text, data)
        with torch.no_grad():
            expected = torch.cat([network(batch) for batch in x_NCHW.split(100)])
        for ending in ("onnx", "pt2"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"model.{ending}")
                curricula.api.export(network, path, data=data)
                found = torch.cat([logits_of(path, batch) for batch in x_NCHW.split(250)])
            difference = float((found - expected).abs().max())
            apart |= not difference <= TOLERANCE
            spread = float(expected.abs().max())
            click.echo(
                f"{text:20} {ending:5} {len(x_NCHW):,} images of {data.name}: largest logit "
                f"{spread:.3g}, largest difference {difference:.2g}"
            )
    raise SystemExit(int(apart))


if __name__ == "__main__":
    main()
