"""The callback ``tensorboard``, which writes files that TensorBoard reads. It needs the package of
that name."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs.validators import and_, ge, le
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import FileWriter, SummaryWriter

from curricula.evaluation.intervals import in_percent
from curricula.evaluation.results import ThreatResult
from curricula.interfaces import Views
from curricula.runtime.files import inside, make_folder
from curricula.runtime.records import to_json
from curricula.training.callbacks import NoCallback
from curricula.training.metrics import EpochMetrics
from curricula.training.plan import Plan
from curricula.training.run import Run
from curricula.training.step import Update

FOLDER = "tensorboard"  # folder of a run
NAME = r"events\.out\.tfevents\.(\d{6})"
MAX_IMAGES = 64  # images of a picture
MAX_EVERY = 10**9  # updates


class _EventFile:
    """An event file, numbered above all others in its folder: TensorBoard reads them in the order
    of their names.

    It takes the place of TensorBoard's own, which lets a thread write and follows links. An error,
    such as a full disk, is raised here where it can be reported.
    """

    def __init__(self, folder: Path) -> None:
        names = [re.fullmatch(NAME, path.name) for path in folder.iterdir()]
        self.number = 1 + max((int(name[1]) for name in names if name), default=0)
        self._stream = (folder / f"events.out.tfevents.{self.number:06}").open("xb")
        self._records = RecordWriter(self._stream)

    def add_event(self, event: Event) -> None:
        """Append a record to the file."""
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Force the file to disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Write what is left and close the file."""
        self._stream.close()


class _FileWriter(FileWriter):
    """torch's writer of records, onto an `_EventFile`."""

    def __init__(self, folder: Path) -> None:
        self.event_writer = _EventFile(folder)
        self.add_event(Event(file_version="brain.Event:2"))
        if self.event_writer.number == 1:
            self.start(0)  # TensorBoard does not take the first start for a restart

    def start(self, step: int) -> None:
        """Void all that was written for this step and later ones, as ``purge_step`` of torch's
        `SummaryWriter` does."""
        self.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))


class _Writer(SummaryWriter):
    """torch's writer of scalars, images and texts, onto an `_EventFile`."""

    file_writer: Any  # torch declares both as None
    all_writers: Any

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = _FileWriter(Path(self.log_dir))
            self.all_writers = {self.log_dir: self.file_writer}
        writer: FileWriter = self.file_writer
        return writer

    def close(self) -> None:
        """Close the file, also if what is left cannot be written."""
        self._get_file_writer().close()


@attrs.define(kw_only=True, eq=False)
class TensorBoard(NoCallback):
    """Write a training into ``RUN/tensorboard``, for ``tensorboard --logdir RUN``.

    There are scalars of updates (``step/``: loss, learning rate, strengths) and of epochs
    (``epoch/``: every number of ``metrics.jsonl``, at the epoch's last update), a picture of the
    first images of each epoch as they are trained on, clean, transformed and perturbed below each
    other, and the final accuracies (``final/``). A resumed training continues them.

    Args:
        images: number of images in a picture, 0 to 64.
        every: updates between two values of the scalars of updates, 1 or more; reading them waits
            for the device.
    """

    images: int = attrs.field(default=8, validator=and_(ge(0), le(MAX_IMAGES)))
    every: int = attrs.field(default=10, validator=and_(ge(1), le(MAX_EVERY)))

    _writer: _Writer | None = attrs.field(default=None, init=False)
    _steps_per_epoch: int = attrs.field(default=1, init=False)
    _done: int = attrs.field(default=0, init=False)  # updates

    @property
    def writer(self) -> _Writer:
        """The writer of the current training's files."""
        assert self._writer is not None
        return self._writer

    def on_train_start(self, run: Run, plan: Plan, steps: int) -> None:
        folder = inside(run.path, FOLDER)
        make_folder(folder)
        self._writer = _Writer(str(folder))
        self._steps_per_epoch = plan.steps_per_epoch
        self._done = 0

    def on_resume(self, step: int) -> None:
        self._done = step
        self.writer.file_writer.start(step)

    def on_step_end(self, update: Update) -> None:
        step = update.progress.step
        self._done = step + 1
        if step % self.every == 0:
            strengths = update.mean_strengths()
            scalars = {"loss": float(update.loss), "lr": update.lr, "strength": strengths}
            self._add_scalars("step", scalars, step)
        if self.images and step % self._steps_per_epoch == 0:
            self.writer.add_image("images", picture(update.views(self.images)), step)

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        step = self._done - 1
        self._add_scalars("epoch", to_json(metrics), step)
        for finding in metrics.findings:
            self.writer.add_text("epoch/findings", finding, step)

    def on_checkpoint(self) -> None:
        self.writer.flush()

    def on_eval_end(self, results: Sequence[ThreatResult]) -> None:
        scalars = {
            "accuracy": {result.name: result.accuracy for result in results},
            "fooling_rate": {result.name: result.fooling_rate for result in results},
        }
        self._add_scalars("final", scalars, self._done)
        self.writer.add_text("final", table(results), self._done)
        self.writer.flush()

    def on_train_end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add_scalars(self, tag: str, values: Mapping[str, Any], step: int) -> None:
        """Write all numbers in nested values, each under a tag of its place."""
        for name, value in values.items():
            if isinstance(value, Mapping):
                self._add_scalars(f"{tag}/{name}", value, step)
            elif isinstance(value, (int, float)):
                self.writer.add_scalar(f"{tag}/{name}", value, step)


def picture(views: Views) -> Tensor:
    """Return uint8 pixels (C, 3H, NW) with the clean images in the first row, the transformed ones
    below, and the perturbed ones in the last; C is 3 for colour images, and otherwise 1, the mean
    over all channels."""
    rows = [torch.cat(list(view), 2) for view in (views.clean, views.transformed, views.perturbed)]
    pixels_CHW = torch.cat(rows, 1)
    if len(pixels_CHW) != 3:
        pixels_CHW = pixels_CHW.mean(0, keepdim=True)
    return (pixels_CHW * 255).round().to(torch.uint8)


def table(results: Sequence[ThreatResult]) -> str:
    """Return the final accuracies as a table in Markdown."""
    lines = ["| threat | accuracy in % | images | expression |", "|---|---|---|---|"]
    for result in results:
        expression = result.threat.replace("|", "\\|")
        accuracy = in_percent(result.accuracy, result.interval)
        lines.append(f"| {result.name} | {accuracy} | {result.n} | `{expression}` |")
    return "\n".join(lines)
