"""A run: one folder with its configuration, metrics, checkpoints, environment and evaluation."""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from curricula.errors import UserError
from curricula.evaluation.results import ThreatResult
from curricula.plugins import registry
from curricula.plugins.hookspecs import KINDS
from curricula.runtime.files import write_atomic
from curricula.runtime.records import from_json
from curricula.training.config import SplitName, TrainConfig, merge, read_toml, to_toml

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
ENVIRONMENT = "environment.json"
RESULTS: Mapping[SplitName, str] = {"test": "evaluation.json", "validation": "validation.json"}
"""The final accuracies, by the split of the data set that they were measured on."""
PROFILE = "profile.json"
AUDIT = "audit.json"
SWEEP = "sweep.toml"  # of a folder that holds a sweep, and no run
BEST = "best.safetensors"
LAST = "last.safetensors"


@attrs.frozen
class Run:
    """The folder of a run.

    ``metrics.jsonl`` holds what a second run with the same ``config.toml`` repeats bit for bit;
    ``timing.jsonl`` what it does not.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> "Run":
        """Make the folder and write down what is about to run and where.

        Raises:
            UserError: when the folder holds a run already, or cannot be made.
        """
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(path / ENVIRONMENT, (json.dumps(environment(), indent=2) + "\n").encode())
            write_atomic(path / CONFIG, to_toml(config).encode())
        except (OSError, ValueError) as error:
            raise UserError(f"run folder {path}: cannot be made ({error})") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """A run that is there.

        Raises:
            UserError: when the folder holds no run.
        """
        if not holds(path, CONFIG):
            within = sorted(path.glob(f"*/{CONFIG}")) or sorted(path.glob(f"*/*/{CONFIG}"))
            mend = f"; name a run in it, such as {within[0].parent}" if within else ""
            raise UserError(f"{path} is not a run folder: it has no {CONFIG}{mend}")
        return cls(path)

    @property
    def config(self) -> TrainConfig:
        """Its configuration, every value stated.

        Raises:
            UserError: when the file is no longer one.
        """
        return merge(read_toml(self.path / CONFIG))

    def append(self, file: str, line: Mapping[str, Any]) -> None:
        """Add a line to one of its JSON-lines files."""
        with (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def write_json(self, file: str, value: Any) -> None:
        """Write one of its JSON files."""
        write_atomic(self.path / file, (json.dumps(value, indent=2) + "\n").encode())

    def lines(self, file: str) -> list[Any]:
        """What each line of one of its JSON-lines files holds; none where there is no file.

        Raises:
            UserError: when the file is damaged.
        """
        return self._parsed(file, str.splitlines)

    def read_json(self, file: str) -> Any:
        """What one of its JSON files holds; None where there is none.

        Raises:
            UserError: when the file is damaged.
        """
        return next(iter(self._parsed(file, lambda text: [text])), None)

    def _parsed(self, file: str, parts: Callable[[str], list[str]]) -> list[Any]:
        try:
            texts = parts((self.path / file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / file}: cannot be read ({error})") from error
        found = []
        for number, text in enumerate(texts, start=1):
            try:
                found.append(json.loads(text))
            except ValueError as error:
                at = f"cannot be read in line {number}" if len(texts) > 1 else "cannot be read"
                reason = str(error).replace("line 1 column", "column")
                raise UserError(
                    f"{self.path / file}: {at} ({reason}); run again what wrote it"
                ) from error
        return found

    @contextmanager
    def reading(self, file: str) -> Iterator[None]:
        """Whoever takes apart what `lines` or `read_json` gave does it within.

        Raises:
            UserError: when it is not of the shape that was looked for.
        """
        try:
            yield
        except UserError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.path / file}: not of the shape that curricula writes "
                f"({type(error).__name__}: {error}); measure again"
            ) from error

    def measured(self, split: SplitName) -> list[ThreatResult]:
        """Its final accuracies on a split of the data set; none where they were not measured.

        Raises:
            UserError: when the file is damaged.
        """
        with self.reading(RESULTS[split]):
            return from_json(list[ThreatResult], self.read_json(RESULTS[split]) or [])

    def save(
        self, file: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        on_cpu = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in tensors.items()
        }
        write_atomic(self.path / file, save(on_cpu, metadata=dict(metadata or {})))

    def load_weights(self, file: str, model: nn.Module) -> None:
        """Load a checkpoint's weights into a model: those that are measured, which are the average
        where one is taken.

        Raises:
            UserError: when the file is missing, damaged, or another model's.
        """
        path = self.path / file
        try:
            with safe_open(path, framework="pt") as stream:
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise UserError(
                f"checkpoint {path}: no such file; let its training finish, or train again"
            ) from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"checkpoint {path}: damaged ({error}); train again") from error
        averaged = int(tensors.get("average.n_averaged", torch.zeros(()))) > 0
        prefix = "average.module." if averaged else "model."
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                f"checkpoint {path}: not of this model ({' '.join(str(error).split())})"
            ) from error


def check_free(path: Path) -> None:
    """Refuse a folder that holds a run or a sweep, before anything is written."""
    for file, what in ((CONFIG, "run"), (SWEEP, "sweep")):
        if holds(path, file):
            raise UserError(
                f"run folder {path} already holds a {what}: choose another with --output, "
                "or delete it"
            )
    if path.exists() and not path.is_dir():
        raise UserError(f"run folder {path}: there is a file of that name; choose another")


def holds(folder: Path, file: str) -> bool:
    """Whether a folder has a file of a name.

    Raises:
        UserError: a place out of bounds.
    """
    try:
        return (folder / file).exists()
    except (OSError, ValueError) as error:
        raise UserError(f"folder {folder}: cannot be read ({error})") from error


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with a prefix to their names, for a checkpoint."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def environment() -> dict[str, Any]:
    """What the figures of a run were computed on."""
    cuda = torch.cuda.is_available()
    providers = {
        str(registered.provider)
        for kind in KINDS
        for registered in registry.current().records(kind).values()
    }
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "providers": sorted(providers),
    }


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
