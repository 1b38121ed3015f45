"""A run: one folder with its configuration, metrics, checkpoints, environment and evaluation.

Only saving and loading weights, and recording the environment, import torch.
"""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from curricula.errors import UserError
from curricula.evaluation.results import ThreatResult
from curricula.plugins import registry
from curricula.plugins.hookspecs import KINDS
from curricula.runtime.files import check_folder, write_atomic
from curricula.runtime.records import from_json
from curricula.runtime.values import as_path
from curricula.training.config import SplitName, TrainConfig, merge, read_toml, to_toml

if TYPE_CHECKING:
    from torch import Tensor, nn

RUNS = Path("runs")
"""The folder that holds the runs and sweeps for which the caller names no folder."""
CONFIG = "config.toml"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
ENVIRONMENT = "environment.json"
RESULTS: Mapping[SplitName, str] = {"test": "evaluation.json", "validation": "validation.json"}
"""Files of the final accuracies, by the split that they were measured on."""
PROFILE = "profile.json"
AUDIT = "audit.json"
SWEEP = "sweep.toml"  # file in the folder of a sweep, not of a run
BEST = "best.safetensors"
LAST = "last.safetensors"


def _as_path(path: str | Path) -> Path:
    """Return the path of a run's folder."""
    return as_path("run", path)


@attrs.frozen
class Run:
    """A run: one training, whose files are in a folder.

    A second run of the same ``config.toml`` repeats ``metrics.jsonl`` bit for bit, but not
    ``timing.jsonl``.

    Attributes:
        path: the folder.
    """

    path: Path = attrs.field(converter=_as_path)

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> "Run":
        """Make the folder, write the configuration and the environment, and return the run.

        Raises:
            UserError: the folder already holds a run, or cannot be made.
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
    def open(cls, path: str | Path) -> "Run":
        """Return the run of an existing folder.

        Raises:
            UserError: the folder holds no run.
        """
        path = _as_path(path)
        if not holds(path, CONFIG):
            within = sorted(path.glob(f"*/{CONFIG}")) or sorted(path.glob(f"*/*/{CONFIG}"))
            fix = f"; name a run in it, such as {within[0].parent}" if within else ""
            raise UserError(f"{path} is not a run folder: it has no {CONFIG}{fix}")
        return cls(path)

    @property
    def config(self) -> TrainConfig:
        """The run's configuration, every value stated.

        Raises:
            UserError: the file is missing or damaged.
        """
        return merge(read_toml(self.path / CONFIG))

    def append(self, file: str, line: Mapping[str, Any]) -> None:
        """Append a line to one of the run's JSON-lines files."""
        with (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def write_json(self, file: str, value: Any) -> None:
        """Write a value into one of the run's JSON files, replacing an older one."""
        write_atomic(self.path / file, (json.dumps(value, indent=2) + "\n").encode())

    def lines(self, file: str) -> list[Any]:
        """Return the value of each line of a JSON-lines file; an empty list if there is no file.

        Raises:
            UserError: the file is damaged.
        """
        return self._parsed(file, str.splitlines)

    def read_json(self, file: str) -> Any:
        """Return the value of a JSON file; None if the file does not exist.

        Raises:
            UserError: the file is damaged.
        """
        return next(iter(self._parsed(file, lambda text: [text])), None)

    def _parsed(self, file: str, split: Callable[[str], list[str]]) -> list[Any]:
        """Return the JSON values of the parts into which ``split`` divides a file's text."""
        try:
            texts = split((self.path / file).read_text(encoding="utf-8"))
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
        """Turn errors inside the block, which reads the values of a file, into a user error.

        Raises:
            UserError: the values have a different shape from what curricula writes.
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

    def results(self, split: SplitName) -> list[ThreatResult]:
        """Return the results of the final evaluation on a split; an empty list if there are none.

        Raises:
            UserError: the file is damaged.
        """
        with self.reading(RESULTS[split]):
            return from_json(list[ThreatResult], self.read_json(RESULTS[split]) or [])

    def save(
        self, file: str, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a checkpoint of named tensors, completely or not at all."""
        from safetensors.torch import save

        on_cpu = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in tensors.items()
        }
        write_atomic(self.path / file, save(on_cpu, metadata=dict(metadata or {})))

    def load_weights(self, file: str, model: "nn.Module") -> None:
        """Load a checkpoint into a model: the averaged weights if the run averages them.

        Raises:
            UserError: the file is missing, damaged, or of a different model.
        """
        import torch
        from safetensors import SafetensorError, safe_open

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
    """Refuse a folder that already holds a run or a sweep.

    Raises:
        UserError: it holds one; as `check_folder` does.
    """
    for file, what in ((CONFIG, "run"), (SWEEP, "sweep")):
        if holds(path, file):
            raise UserError(
                f"run folder {path} already holds a {what}: choose another output "
                "(--output), or delete it"
            )
    check_folder(path)


def holds(folder: Path, file: str) -> bool:
    """Return whether a folder holds a file of the given name.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        return (folder / file).exists()
    except (OSError, ValueError) as error:
        raise UserError(f"folder {folder}: cannot be read ({error})") from error


def prefixed(prefix: str, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return tensors by their names in a checkpoint: ``PREFIX.NAME``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def environment() -> dict[str, Any]:
    """Return the command, hardware and versions with which a run's figures were computed."""
    import torch

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
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "providers": sorted(providers),
    }


def processor_name() -> str:
    """Return the name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
