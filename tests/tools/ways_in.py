"""Bring one foreign network in by every way there is, and compare what is measured.

    python tests/tools/ways_in.py --data-root cifar10.npz [--train 4000] [--epochs 3] [--images 500]

A small timm network is trained by a loop of plain torch on normalised images. Then it is measured
under clean, rot:30 and pgd:8/255 as a module, as ``--model FILE.py:NAME`` with a ``.pt`` and with a
safetensors file, and as ``timm(NAME)`` with ``--weights``; and its clean images are classified by
plain torch. All counts must be equal. The exit status is 1 on any difference.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import curricula

NAME = "resnet10t"
THREATS = ["clean", "rot:30", "pgd:8/255"]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
NORMALISE = "/".join(",".join(map(str, values)) for values in (MEAN, STD))
BATCH = 100  # images
FILE = f"""
import timm

def make(num_classes):
    return timm.create_model("{NAME}", num_classes=num_classes)
"""


def normalised(x_NHWC: "np.ndarray") -> Tensor:
    """Return uint8 images as float32 images NCHW, normalised channel by channel."""
    x_NCHW = torch.from_numpy(x_NHWC).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (x_NCHW - mean) / std


def trained(x_NHWC: "np.ndarray", y_N: "np.ndarray", epochs: int) -> nn.Module:
    """Return a timm network after a plain training on the images."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(NAME, num_classes=10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for epoch in range(epochs):
        losses = []
        for index in torch.randperm(len(x_NHWC)).split(BATCH):
            logits = network(normalised(x_NHWC[index.numpy()]))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(y_N[index.numpy()]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}", flush=True)
    return network


def measured(data: Path, images: int, *flags: str) -> list[tuple[int, int]]:
    """Return (correct, fooled) under each threat, as the command line prints it."""
    words = ["--data", "npz", "--data-root", str(data), "--limit", str(images), "--format", "json"]
    threats = [word for threat in THREATS for word in ("--threat", threat)]
    command = ["evaluate", *flags, *words, "--normalise", NORMALISE, *threats]
    done = subprocess.run(
        [sys.executable, "-m", "curricula", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"curricula {' '.join(command)}\n{done.stderr}")
    return [(found["correct"], found["fooled"]) for found in json.loads(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    with np.load(options.data_root) as arrays:
        x, y = (arrays[f"train_{what}"][: options.train] for what in ("images", "labels"))
        x_test, y_test = (arrays[f"test_{what}"] for what in ("images", "labels"))
    network = trained(x, y.astype(np.int64), options.epochs)
    found = {}
    results = curricula.evaluate(
        network, (x_test, y_test), THREATS, normalise=NORMALISE, limit=options.images
    )
    found["module"] = [(result.correct, result.fooled) for result in results]
    with tempfile.TemporaryDirectory() as folder:
        file, pt, safe = (Path(folder, name) for name in ("net.py", "net.pt", "net.safetensors"))
        file.write_text(FILE)
        torch.save(network.state_dict(), pt)
        save_file(network.state_dict(), safe)
        own = f"{file}:make"
        for name, model, weights in (
            ("FILE.py:NAME, .pt", own, pt),
            ("FILE.py:NAME, safetensors", own, safe),
            ("timm(NAME), .pt", f"timm({NAME})", pt),
            ("timm(NAME), safetensors", f"timm({NAME})", safe),
        ):
            flags = ("--model", model, "--weights", str(weights))
            found[name] = measured(options.data_root, options.images, *flags)
    network.eval()
    with torch.no_grad():
        images = normalised(x_test[: options.images])
        predicted = [network(batch).argmax(1) for batch in images.split(BATCH)]
    correct = int((torch.cat(predicted).numpy() == y_test[: options.images].reshape(-1)).sum())
    print(f"plain torch: clean {correct} of {options.images}")
    for name, counts in found.items():
        print(
            f"{name}: "
            + ", ".join(f"{t} {c} ({f} fooled)" for t, (c, f) in zip(THREATS, counts, strict=True))
        )
    same = all(counts == found["module"] for counts in found.values())
    if not same or found["module"][0][0] != correct:
        sys.exit(1)


if __name__ == "__main__":
    main()
