"""A run: one folder with its configuration, metrics, checkpoints, environment and evaluation.

Only saving and loading weights, and recording the environment, import torch.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from curricula.errors import UnknownNameError, UserError, message_of
from curricula.evaluation.results import ThreatResult, check_results, results_html
from curricula.expressions.model_files import model_flags
from curricula.plugins import registry
from curricula.plugins.registry import DISABLE_VARIABLE, command_line
from curricula.runtime.files import (
    append_line,
    check_folder,
    check_output,
    inside,
    read_file,
    similar_path,
    write_atomic,
)
from curricula.runtime.parsing import parse_json, read_text
from curricula.runtime.records import from_json, to_json
from curricula.runtime.tables import frame_of_rows, html_values
from curricula.runtime.tensor_files import read_arrays
from curricula.runtime.values import as_path, check_printable
from curricula.training.config import (
    FIELDS,
    MODEL_FIELDS,
    ModelConfig,
    SplitName,
    TrainConfig,
    is_measured,
    measured_config,
    merge,
    read_toml,
    read_values,
    to_toml,
)
from curricula.training.environment import (
    Environment,
    environment,
    providers,
    providers_by_name,
    registered_names,
)
from curricula.training.metrics import (
    EpochMetrics,
    EpochTimes,
    EvaluationTime,
    flat,
    metrics_of,
    times_of,
)

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from curricula.data.dataset import DataSet
    from curricula.data.identity import DataIdentity

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Elsewhere:
    """The contents of ``elsewhere.json``: where the weights of a run are, of which a folder has
    only the results.

    Attributes:
        host: name of the machine.
        path: path of the run's folder on it.
    """

    host: str = attrs.field(validator=check_printable)
    path: str = attrs.field(validator=check_printable)


@attrs.frozen(kw_only=True)
class MeasuredWeights:
    """The weights that a file of measurements is of.

    Attributes:
        checkpoint: ``best`` or ``last``.
        weights: digest of the checkpoint then; empty if the file does not say it.
    """

    checkpoint: str = attrs.field(default="best", validator=check_printable)
    weights: str = attrs.field(default="", validator=check_printable)


RUNS = Path("runs")
"""The folder that holds the runs and sweeps for which the caller names no folder."""

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
ENVIRONMENT = "environment.json"
DATA = "data.json"
RESULTS: Mapping[SplitName, str] = {"test": "evaluation.json", "validation": "validation.json"}
"""Files of the final accuracies, by the split that they were measured on."""
PREDICTIONS: Mapping[SplitName, str] = {
    "test": "predictions.safetensors",
    "validation": "validation-predictions.safetensors",
}
"""Files of the labels and predictions behind the final accuracies, by the split."""
PROFILE = "profile.json"
AUDIT = "audit.json"
CERTIFICATES = "certificates.json"
CERTIFYING = "certify-"  # beginning of the files of finished images, until all are certified
SUITES = "suites.json"
BASELINE = "baseline"  # folder of the baseline of a run, inside its own
REPORT, FIGURES = "report.html", "figures"  # the page and the folder of its figures
SWEEP = "sweep.toml"  # file in the folder of a sweep, not of a run
ELSEWHERE = "elsewhere.json"  # file that says where the weights of a run are
BEST = "best.safetensors"
LAST = "last.safetensors"
GOOD = "good.safetensors"  # the last checkpoint before a collapse, to go back to
PREVIOUS = "previous.safetensors"  # the last checkpoint before it, while the training runs
WRITTEN_BY_TRAINING = (
    CONFIG,
    DATA,
    METRICS,
    TIMING,
    ENVIRONMENT,
    *RESULTS.values(),
    *PREDICTIONS.values(),
    BEST,
    LAST,
    GOOD,
)
SHOWN = ("data", "model", "perturb", "schedule", "objective", "seed")  # fields in a notebook


def _as_path(path: str | Path) -> Path:
    """Return the path of a run's folder as a `Path`."""
    return as_path("run", path)


@attrs.frozen(repr=False)
class Run:
    """One training, whose configuration, metrics and checkpoints are files in a folder.

    A second run of the same ``config.toml`` repeats ``metrics.jsonl`` bit for bit, but not
    ``timing.jsonl``.

    Attributes:
        path: the folder.
        model: the network without its weights, or its expression, for a run whose model was given
            in Python; all that measures or uses the run takes it.
    """

    path: Path = attrs.field(converter=_as_path)
    model: "nn.Module | str | None" = attrs.field(default=None, kw_only=True, eq=False)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        try:
            config, results = self.model_config, self.results("test")
            values = {name: getattr(config, name) for name in SHOWN if hasattr(config, name)}
            if isinstance(config, TrainConfig):
                values["epochs done"] = f"{len(self.metrics)} of {config.epochs}"
        except UserError as error:
            return html_values(f"Run {self.path}", {"damaged": error})
        table = html_values(f"Run {self.path}", values)
        return table + (results_html("Test accuracy in %", results) if results else "")

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the metrics of each epoch as a data frame, one row per epoch.

        Raises:
            UserError: pandas is not installed; the file is damaged.
        """
        return frame_of_rows([flat(line) for line in self.metrics])

    @classmethod
    def create(cls, path: Path, config: ModelConfig, identity: "DataIdentity") -> "Run":
        """Write the configuration, the environment and the identity of the data set into a folder,
        and return the run.

        Raises:
            UserError: the folder already holds a run, or cannot be written to.
        """
        check_free(path)
        run = cls(path)
        run.write_json(ENVIRONMENT, to_json(environment(config)))
        run.write_json(DATA, to_json(identity))
        run._write(CONFIG, to_toml(config).encode())
        return run

    @classmethod
    def open(cls, path: str | Path, *, model: "nn.Module | str | None" = None) -> "Run":
        """Return the run whose files an existing folder holds.

        Args:
            path: the folder.
            model: the network again, for a run whose model was given in Python: a module, which is
                copied, or an expression such as ``mynet.py:MyNet``.

        Raises:
            UserError: there is no such folder, or it holds no run.
        """
        path = _as_path(path)
        if not holds(path, CONFIG):
            if flags := model_flags(path):
                raise UserError(
                    f"{path} is not a run folder; measure a model of your own with "
                    f"{command_line('evaluate', *flags, '--data', 'DATA')}"
                )
            if not path.exists():
                existing = (
                    file.parent
                    for folder in (RUNS, path.parent)
                    for name in (CONFIG, SWEEP)
                    for file in folder.glob(f"*/{name}")
                )
                fix = similar_path(path, existing)
                raise UserError(f"{path} is not a run folder: there is no such folder{fix}")
            if path.is_file():
                fix = f"; did you mean {path.parent}?" if holds(path.parent, CONFIG) else ""
                raise UserError(f"{path} is not a run folder: it is a file{fix}")
            within = sorted(path.glob(f"*/{CONFIG}")) or sorted(path.glob(f"*/*/{CONFIG}"))
            fix = f"; name a run in it, such as {within[0].parent}" if within else ""
            raise UserError(f"{path} is not a run folder: it has no {CONFIG}{fix}")
        return cls(path, model=model)

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run's training, every value stated.

        Raises:
            UserError: the file is missing or damaged, or the run's model was only measured.
        """
        path = self.path / CONFIG
        values = read_toml(path)
        try:
            return merge(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @property
    def model_config(self) -> ModelConfig:
        """The run's data set and model: the `TrainConfig` of a training, or the `MeasuredConfig` of
        a model from elsewhere.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = self.path / CONFIG
        values = read_values(path)
        try:
            return measured_config(values) if is_measured(values) else merge(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @property
    def environment(self) -> Environment | None:
        """The command, hardware and versions of the run's training; None if there is no such file.

        Raises:
            UserError: the file is damaged.
        """
        return self.read(ENVIRONMENT, Environment)

    @property
    def metrics(self) -> list[EpochMetrics]:
        """The metrics of each epoch done, from the lines of ``metrics.jsonl``.

        Raises:
            UserError: the file is damaged.
        """
        with self.reading(METRICS):
            return metrics_of(self.lines(METRICS))

    @property
    def times(self) -> list[EpochTimes | EvaluationTime]:
        """The wall times of each epoch and of the evaluation, from the lines of ``timing.jsonl``.

        Raises:
            UserError: the file is damaged.
        """
        with self.reading(TIMING):
            return times_of(self.lines(TIMING))

    def check_plugins(self, *fields: str) -> None:
        """Check that the installed plugins provide every name in the run's configuration.

        Args:
            fields: fields to check; by default all.

        Raises:
            UserError: the plugins that are missing, or the names.
        """
        from curricula.training.checks import check_values

        config = self.model_config
        names = fields or (FIELDS if isinstance(config, TrainConfig) else MODEL_FIELDS)
        values = {name: getattr(config, name) for name in names}
        try:
            check_values(values)
        except UnknownNameError as error:
            raise self._missing_plugin(values, error) from error
        except UserError as error:
            raise UserError(f"{self.path / CONFIG}: {error}") from error
        stored = self.environment
        trained_with = {} if stored is None else stored.names
        for kind, found in providers_by_name(values).items():
            for name, now in found.items():
                then = trained_with.get(kind, {}).get(name, now)
                if then.source == now.source == "distribution" and then.prefix != now.prefix:
                    raise UserError(
                        f"run {self.path} was trained with {kind} {name!r} of {then}, which is of "
                        f"{now} here: install the former, and write {then.prefix}/{name} into "
                        f"{CONFIG} if both are needed"
                    )

    def _missing_plugin(self, values: Mapping[str, Any], error: UnknownNameError) -> UserError:
        """Return the user error for names in the configuration that no plugin provides here."""
        current, stored = registry.current(), self.environment
        missing: list[str] = []
        if stored is not None and not stored.names:  # a run of an earlier version
            missing = sorted(set(stored.providers) - providers())
        elif stored is not None:
            for kind, name in registered_names(values):
                try:
                    current.find(kind, name)
                except UnknownNameError:
                    then = stored.names.get(kind, {}).get(name)
                    missing += [] if then is None else [str(then)]
        if not missing:
            return UserError(f"{self.path / CONFIG}: {error}")
        files = [Path(name) for name in missing if name.endswith(".py")]
        fix = f"write {command_line('COMMAND', files=files)}" if files else "install it"
        if any(str(provider) in missing for provider in current.disabled):
            fix = f"it is left out by {DISABLE_VARIABLE}"
        for failure in current.failures:
            if str(failure.provider) in missing:
                fix = str(failure)
        unknown, _, _ = str(error).partition(": ")  # without the names that are similar
        return UserError(
            f"run {self.path} needs a plugin that is missing here ({unknown}): it was trained with "
            f"{', '.join(dict.fromkeys(missing))}; {fix}"
        )

    def check_data(self, data: "DataSet") -> None:
        """Check that a data set has not changed since the run was trained on it.

        Raises:
            UserError: the class names or the images differ; the file is missing or damaged.
        """
        from curricula.data.identity import identity_of

        self.check_identity(identity_of(data), data.name)

    def check_identity(self, now: "DataIdentity", name: str) -> None:
        """Check that a data set, given by its identity and name, is the one that the run was
        trained on.

        Raises:
            UserError: the class names or the images differ; the file is missing or damaged.
        """
        from curricula.data.identity import DataIdentity

        then = self.read(DATA, DataIdentity)
        if then is None:
            raise UserError(
                f"run {self.path} has no {DATA}, which identifies the data that it was trained on: "
                "restore it or train again; to measure the network without this check, pass the "
                "network of load_model(RUN, data=DATA) to evaluate, with data=DATA"
            )
        what = {
            "classes": "classes",
            "train": "training images",
            "test": "test images",
            "validation": "validation images",
        }
        for field, described in what.items():
            if getattr(then, field) != getattr(now, field):
                raise UserError(
                    f"the {described} of {name} have changed since run {self.path} was trained on "
                    "them: name the right folder with --data-root; to measure the network on other "
                    "data, pass load_model's network and data= to evaluate"
                )

    @property
    def has_checkpoint(self) -> bool:
        """True if the run has a checkpoint from which its training continues.

        Raises:
            UserError: the run's folder cannot be read.
        """
        return self.holds(LAST) or self.holds(PREVIOUS)

    @property
    def is_finished(self) -> bool:
        """True if the run has its test results, and so has its baseline, if one was requested.

        Raises:
            UserError: the baseline's folder is a link, or the run's folder cannot be read.
        """
        tested = RESULTS["test"]
        baseline = inside(self.path, BASELINE)
        return self.holds(tested) and (holds(baseline, tested) or not baseline.is_dir())

    def holds(self, file: str) -> bool:
        """Return whether the run's folder holds a file of the given name.

        Raises:
            UserError: the folder cannot be read.
        """
        return holds(self.path, file)

    def remove(self, file: str) -> None:
        """Delete one of the run's files, if there is one."""
        (self.path / file).unlink(missing_ok=True)

    def append(self, file: str, line: Mapping[str, Any]) -> None:
        """Append a line to one of the run's JSON-lines files.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        path = inside(self.path, file)
        with _user_errors(path):
            append_line(path, json.dumps(line))

    def end_lines(self, file: str) -> None:
        """Remove a last line that a process left half written in one of the run's JSON-lines files,
        so that the next one begins a new line.

        Raises:
            UserError: it cannot be read or written.
        """
        text = self._text(file) or ""
        if not text.endswith("\n") and text:
            self._write(file, text[: text.rfind("\n") + 1].encode())

    def write_json(self, file: str, value: Any) -> None:
        """Write a value to one of the run's JSON files, completely or not at all.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        self._write(file, (json.dumps(value, indent=2) + "\n").encode())

    def _write(self, file: str, content: bytes, *, previous: str | None = None) -> None:
        path = inside(self.path, file)
        older = None if previous is None else inside(self.path, previous)
        with _user_errors(path):
            write_atomic(path, content, previous=older)

    def copy(self, file: str, new: str) -> None:
        """Copy one of the run's files to a new name, completely or not at all.

        Raises:
            UserError: it cannot be read or written.
        """
        path = self.path / file
        try:
            content = read_file(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        self._write(new, content)

    def keep_epochs(self, epochs: int) -> None:
        """Cut the files of metrics and times back to the first ``epochs`` epochs, before a training
        continues.

        Raises:
            UserError: a file is damaged, or cannot be written.
        """
        records: Mapping[str, Sequence[object]] = {METRICS: self.metrics, TIMING: self.times}
        for file, found in records.items():
            kept = "".join(
                f"{text}\n"
                for (text, _), record in zip(self._lines(file), found, strict=True)
                if getattr(record, "epoch", epochs + 1) <= epochs
            )
            if kept != (self._text(file) or ""):  # a half-written line goes too
                self._write(file, kept.encode())

    def lines(self, file: str) -> list[Any]:
        """Return the JSON value of each line of one of the run's files; an empty list if there is
        no file.

        A last line that a process left half written is ignored.

        Raises:
            UserError: the file is damaged.
        """
        return [value for _, value in self._lines(file)]

    def _lines(self, file: str) -> list[tuple[str, Any]]:
        """Return the text and the JSON value of each line of one of the run's files."""
        texts = (self._text(file) or "").split("\n")  # texts hold the others that end a line
        found = []
        for number, line in enumerate(texts, start=1):
            try:
                if line.strip():
                    found.append((line, self._parsed(file, line, f" in line {number}")))
            except UserError:
                if number < len(texts):
                    raise
        return found

    def read_json(self, file: str) -> Any:
        """Return the value in one of the run's JSON files; None if the file does not exist.

        Raises:
            UserError: the file is damaged.
        """
        text = self._text(file)
        return None if text is None else self._parsed(file, text)

    def read(self, file: str, cls: type[T]) -> T | None:
        """Return the record of class ``cls`` in one of the run's JSON files; None if the file does
        not exist.

        Args:
            file: name of the file.
            cls: class of the record.

        Raises:
            UserError: the file is damaged.
        """
        text = self._text(file)
        if text is None:
            return None
        with self.reading(file):
            return from_json(cls, self._parsed(file, text))

    def _text(self, file: str) -> str | None:
        """Return the text of one of the run's files; None if the file does not exist."""
        path = self.path / file
        try:
            return read_text(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {_fix(file)}") from error

    def _parsed(self, file: str, text: str, where: str = "") -> Any:
        try:
            return parse_json(text)
        except ValueError as error:
            reason = str(error).replace("line 1 column", "column")
            raise UserError(
                f"{self.path / file}: cannot be read{where} ({reason}); {_fix(file)}"
            ) from error

    @contextmanager
    def reading(self, file: str) -> Iterator[None]:
        """Turn errors raised inside the block, which reads the values of a file, into a user error.

        Raises:
            UserError: the values have a different shape from what curricula writes.
        """
        try:
            yield
        except UserError:
            raise
        except WRONG_SHAPE as error:
            raise UserError(
                f"{self.path / file}: not of the shape that curricula writes "
                f"({message_of(error)}); {_fix(file)}"
            ) from error

    def results(self, split: SplitName) -> list[ThreatResult]:
        """Return the results of the final evaluation on a split, one per threat; an empty list if
        there are none.

        Raises:
            UserError: the file is damaged.
        """
        found = self.read(RESULTS[split], list[ThreatResult])
        if found is None:
            return []
        with self.reading(RESULTS[split]):
            check_results(found)
        return found

    def save(
        self,
        file: str,
        tensors: "Mapping[str, Tensor]",
        metadata: Mapping[str, str] | None = None,
        *,
        previous: str | None = None,
    ) -> None:
        """Write tensors and texts as a checkpoint, with a digest of its contents, completely or not
        at all.

        Args:
            file: name of the file.
            tensors: its tensors, by name.
            metadata: its texts, by name.
            previous: new name of the file that it replaces; by default that one is lost.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        from safetensors.torch import save

        from curricula.models.weights import digest_of
        from curricula.runtime.tensor_files import DIGEST, with_sorted_texts

        on_cpu = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in tensors.items()
        }
        texts = dict(metadata or {})
        texts[DIGEST] = digest_of(on_cpu, texts)
        content = with_sorted_texts(save(on_cpu, metadata=texts))
        self._write(file, content, previous=previous)

    def digest(self, file: str) -> str:
        """Return the digest that a checkpoint states, which differs from that of other weights;
        empty if there is no such file, or it states none."""
        from curricula.runtime.tensor_files import DIGEST, read_texts

        try:
            return str(read_texts(self.path / file).get(DIGEST, ""))
        except (OSError, *WRONG_SHAPE):  # a damaged one is reported where it is used
            return ""

    def missing(self, file: str) -> UserError:
        """Return the user error for a checkpoint that does not exist, with the place of its weights
        if another machine has them."""
        elsewhere = self.read(ELSEWHERE, Elsewhere)
        fix = "let its training finish, or train again"
        if elsewhere is not None:
            fix = f"it is on {elsewhere.host}, in {elsewhere.path}: copy it, or work there"
        return UserError(f"checkpoint {self.path / file}: no such file; {fix}")

    def load_weights(self, file: str, model: "nn.Module") -> dict[str, str]:
        """Load a checkpoint's weights into a model, and return its texts; if the run averages
        weights, load the average.

        Raises:
            UserError: the file is missing, damaged, or of a different model.
        """
        from curricula.models.kept_state import aside, load_kept, state_tensors
        from curricula.models.weights import network_prefix, network_tensors

        path = self.path / file
        tensors, texts = self.load(file)
        weights = network_tensors(tensors, f"checkpoint {path}")
        for name, tensor in state_tensors(model).items():
            if name in weights and weights[name].dtype is not tensor.dtype:  # torch would convert
                raise UserError(
                    f"checkpoint {path}: {name} is of {weights[name].dtype}, not "
                    f"{tensor.dtype} as in this model; train again"
                )
        try:
            load_kept(model, weights, aside(tensors, network_prefix(tensors, f"checkpoint {path}")))
        except (RuntimeError, *WRONG_SHAPE) as error:
            raise UserError(
                f"checkpoint {path}: not of this model ({' '.join(str(error).split())})"
            ) from error
        return texts

    def load(self, file: str) -> "tuple[dict[str, Tensor], dict[str, str]]":
        """Return the tensors of a checkpoint, on the CPU, and its texts, both by name.

        Raises:
            UserError: the file is missing or damaged.
        """
        from safetensors import SafetensorError

        from curricula.models.weights import parse_safetensors

        content = self._content(file)
        try:
            tensors, texts, _ = parse_safetensors(content)
        except (SafetensorError, *WRONG_SHAPE) as error:
            raise self._damaged(file, error) from error
        return tensors, texts

    def load_arrays(self, file: str) -> "tuple[dict[str, NDArray[Any]], dict[str, str]]":
        """Return the arrays of a file of tensors, and its texts, both by name, without torch.

        Raises:
            UserError: the file is missing or damaged.
        """
        from safetensors import SafetensorError

        content = self._content(file)
        try:
            return read_arrays(content)
        except (SafetensorError, *WRONG_SHAPE) as error:
            raise self._damaged(file, error) from error

    def _damaged(self, file: str, error: Exception) -> UserError:
        return UserError(f"checkpoint {self.path / file}: damaged ({error}); {_fix(file)}")

    def _content(self, file: str) -> bytes:
        """Return the bytes of one of the run's checkpoints."""
        path = self.path / file
        try:
            return read_file(path)
        except FileNotFoundError as error:
            raise self.missing(file) from error
        except (OSError, ValueError) as error:
            raise UserError(f"checkpoint {path}: cannot be read ({error})") from error


def _fix(file: str) -> str:
    """Return what the user can do about a damaged file, as text."""
    if file in RESULTS.values():
        return "delete it, and train --resume or its sweep will measure again"
    if file in (PROFILE, AUDIT):
        return f"write it again with curricula {file.removesuffix('.json')}"
    if file == CERTIFICATES:
        return "write it again with curricula certify"
    if file.startswith(CERTIFYING):
        return "delete it, and curricula certify begins again"
    if file == SUITES:
        return "delete it, and measure again with curricula evaluate --suite"
    if file in PREDICTIONS.values():
        return "delete it, and the page goes without it"
    if file in (BEST, LAST, GOOD, PREVIOUS):
        return "train again"
    return "restore it, or train again"


# Errors of code that reads values of a different shape from what it expects.
WRONG_SHAPE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """Turn errors raised inside the block, which writes a file, into user errors."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({reason}); what is there is kept") from error


def check_page(folder: Path) -> None:
    """Check that the page of a run or a sweep can be written into its folder, if there is one yet,
    before any work.

    Raises:
        UserError: a link, a folder or a file is where the page or its figures belong, or the folder
            cannot be written to.
    """
    if os.path.isdir(folder):
        check_output(inside(folder, REPORT))
        check_folder(inside(folder, FIGURES))


def check_free(path: Path) -> None:
    """Check that a folder holds neither a run nor a sweep.

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
    """Return the tensors with ``PREFIX.`` before each name, as a checkpoint names them."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
