"""The training loop."""

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import attrs
import torch

from curricula.curriculum import Threat
from curricula.data.dataset import SplitLike, batches, first
from curricula.errors import UserError
from curricula.evaluation.accuracy import BATCH_SIZE, evaluate_threats
from curricula.evaluation.names import JOINT
from curricula.evaluation.results import Evaluation
from curricula.evaluation.threats import validation_threats
from curricula.interfaces import AdaptiveSchedule, Progress, Strength
from curricula.models.kept_state import kept
from curricula.plugins.registry import command_line
from curricula.runtime.locks import exclusive
from curricula.runtime.processes import FirstProcessError, from_first, largest, place
from curricula.runtime.random_state import seeded
from curricula.runtime.records import to_json
from curricula.runtime.signals import Interrupted, StopRequest, stop_requests
from curricula.training.callbacks import Callbacks
from curricula.training.checkpoint import (
    MAX_ROLLBACKS,
    check_same_training,
    read_checkpoint,
    read_last,
    restore,
    save_last,
)
from curricula.training.compile_choice import decide_compile
from curricula.training.config import EVALUATION_SEED, SplitName
from curricula.training.metrics import (
    EpochMetrics,
    EpochTimes,
    EvaluationTime,
    Finding,
)
from curricula.training.monitor import (
    ACUTE,
    EXPLANATIONS,
    Epoch,
    Prober,
    Trace,
    cause,
    findings,
    has_collapsed,
    has_finite_loss,
    has_no_gradient,
    is_full,
    nan_strength,
    problem,
)
from curricula.training.pass_counter import PassCounter
from curricula.training.plan import Plan
from curricula.training.predictions import write_evaluation
from curricula.training.probe import probe_of
from curricula.training.run import (
    BEST,
    CONFIG,
    GOOD,
    LAST,
    METRICS,
    PREVIOUS,
    TIMING,
    WRITTEN_BY_TRAINING,
    Run,
    check_free,
)
from curricula.training.saver import Interval, Saver
from curricula.training.shared_run import SharedRun
from curricula.training.step import (
    EpochSums,
    Networks,
    TrainingState,
    average_epoch,
    start,
    update,
)

CHECK_EVERY = 100  # updates between checks of the loss within an epoch


class _NotFiniteError(UserError):
    """The training's loss or weights are NaN or infinite."""


def train_plan(
    plan: Plan,
    path: Path,
    *,
    threats: Mapping[str, Threat],
    split: SplitName = "test",
    limit: int | None = None,
    callback: Callbacks | None = None,
    resume: bool = False,
    checkpoint_every: Interval | None = None,
) -> Evaluation:
    """Train as planned into a run folder, evaluate the best checkpoint, and return the results.

    The global random states of torch, Python and NumPy are seeded for the run and restored
    afterwards. SIGINT and SIGTERM end the training after the current update, once its checkpoint
    is saved.

    Args:
        plan: as `curricula.training.plan.make_plan` returns it.
        path: the run folder.
        threats: threats of the final evaluation, by name.
        split: split of the final evaluation: ``test``, or ``validation``, the training images held
            out to pick the checkpoint.
        limit: evaluate the first ``limit`` images of the split; None for all.
        callback: receive the events of the training.
        resume: continue the run in the folder from its last checkpoint, instead of a new one.
        checkpoint_every: time between checkpoints within an epoch; by default such that they take
            under 1 % of the time. There is one after each epoch in any case.

    Raises:
        UserError: the folder already holds a run, or, to resume, none of this plan; another process
            writes to it; the loss is no longer finite; the disk is full; a callback failed.
        Interrupted: a signal ended the training; it can be resumed.
    """
    first_process = place().is_first
    callback = callback if callback and first_process else Callbacks()
    images = first(plan.data.test if split == "test" else plan.validation, limit)
    if resume:
        Run.open(path)  # refuses a folder without a run, before anything is written there
    else:
        from_first(lambda: check_free(path))
        with seeded(plan.config.seed, plan.device):
            plan, reason = decide_compile(plan)
        for line in (*plan.notes, reason):
            callback.on_message(line)
    lock = exclusive(path, files=WRITTEN_BY_TRAINING) if first_process else nullcontext()
    with lock, stop_requests(patient=place().count > 1) as stop:
        if first_process and not resume:
            Run.create(path, plan.config, plan.identity)
        run = Run(path) if place().count == 1 else SharedRun(path)
        threads = torch.get_num_threads()
        try:
            with seeded(plan.config.seed, plan.device):
                training = _Training.start(plan, run, callback, stop, checkpoint_every)
                if resume:
                    training.restore()
                training.run_epochs(resumed=resume)
                run.load_weights(BEST, training.state.model)
            results = _evaluate(training, images, threats, split)
            for file in (PREVIOUS, GOOD):
                run.remove(file)
        finally:
            torch.set_num_threads(threads)
            callback.on_train_end()
        training.agree_and_check()
        return results


@attrs.define(kw_only=True, eq=False)
class _Training:
    """A training in progress: its plan, state, networks and files.

    Attributes:
        plan: what is trained.
        run: the run folder.
        state: everything that the updates change.
        networks: the networks of the state's model.
        passes: counts of the current epoch.
        callback: receive the events.
        saver: decides when a checkpoint is due.
        stop: the signal that this process has received, if one has come.
        signal: the signal that ends the training, on which all processes agree.
        failed: whether a callback of any process has failed.
        prober: measures the accuracy under a stronger attack.
        history: figures of the epochs done.
        found: findings of the last of them.
        unchecked: traces of the updates since the loss was last known to be finite.
        began: moment at which the current epoch began or was continued, in seconds.
    """

    plan: Plan
    run: Run
    state: TrainingState
    networks: Networks
    passes: PassCounter
    callback: Callbacks
    saver: Saver
    stop: StopRequest
    prober: Prober
    history: list[Epoch] = attrs.field(factory=list)
    found: list[Finding] = attrs.field(factory=list)
    unchecked: list[Trace] = attrs.field(factory=list)
    began: float = 0.0
    signal: int | None = None
    failed: bool = False

    @classmethod
    def start(
        cls,
        plan: Plan,
        run: Run,
        callback: Callbacks,
        stop: StopRequest,
        every: Interval | None,
    ) -> "_Training":
        """Return a new training of a plan, with initial weights, before its first update."""
        state = start(plan)
        networks = Networks.of(plan, state.model)
        return cls(
            plan=plan,
            run=run,
            state=state,
            networks=networks,
            passes=PassCounter.attach(networks),
            callback=callback,
            saver=Saver(every),
            stop=stop,
            prober=Prober(plan, networks.victim),
        )

    def restore(self) -> None:
        """Continue from the last checkpoint, or from the beginning if there is none yet.

        Raises:
            UserError: the run is of a different plan, or its files are damaged.
        """
        self.run.check_identity(self.plan.identity, self.plan.data.name)
        found = read_last(self.run, self.callback.on_message)
        if found is not None:
            check_same_training(self.run, self.plan, found)
            restore(self.plan, self.state, self.networks, self.passes, found, self.run)
        else:
            self._restore_without_checkpoint()
        self._keep_epochs()
        if self.state.epoch and (not self._acute or self.run.holds(BEST)):
            self.run.load(BEST)  # refuse a damaged one now, not after the training
        ends_epoch = self.state.step == self.state.epoch * self.plan.steps_per_epoch
        if found and ends_epoch and self._can_roll_back and not self._acute:
            self.run.copy(found.file, GOOD)  # the interruption may have come before it
        self.callback.on_message(
            f"{self.run.path}: continuing after {self.state.step:,} of "
            f"{self.plan.total_steps:,} updates"
        )

    def _keep_epochs(self) -> None:
        """Cut the run's files and the history back to the epochs that the state has completed.

        Raises:
            UserError: the file of metrics lacks some of them.
        """
        known = len(self.run.metrics)
        if known < self.state.epoch:
            raise UserError(
                f"run {self.run.path} cannot be continued: its {METRICS} has {known} of the "
                f"{self.state.epoch} epochs of its checkpoint; restore it, or start a new run with "
                f"--config {self.run.path / CONFIG}"
            )
        self.run.keep_epochs(self.state.epoch)
        lines = self.run.metrics
        self.history = [_epoch_of(line) for line in lines]
        self.found = list(lines[-1].findings) if lines else []

    def _restore_without_checkpoint(self) -> None:
        """Begin again from the first update, or only evaluate a training that has all its epochs.

        Raises:
            UserError: several epochs would be lost.
        """
        epochs = len(self.run.metrics)
        if epochs >= self.plan.config.epochs and self.run.holds(BEST):
            self.state.epoch = self.plan.config.epochs
            self.state.step = self.plan.total_steps
        elif epochs > 1:
            raise UserError(
                f"run {self.run.path} cannot be continued: its {LAST}, after {epochs} epochs, is "
                f"missing; start a new run with --config {self.run.path / CONFIG}"
            )
        else:
            self.callback.on_message(
                f"{self.run.path}: no checkpoint has been saved yet: the training begins again"
            )

    def _save(self) -> None:
        """Write the state to the last checkpoint, after checking that its loss, weights and
        strengths are finite.

        Raises:
            UserError: one is not finite; the last checkpoint stays.
        """
        spoilt = problem(self.state)
        if spoilt is not None:
            raise self._not_finite(spoilt)
        if (known := nan_strength(self.plan, self._strengths())) is not None:
            raise self._spoilt_by(*known)
        self.unchecked.clear()
        self.callback.on_checkpoint()
        self.saver.save(
            lambda: save_last(self.run, self.plan, self.state, self.networks, self.passes)
        )

    def _save_within_epoch(self) -> None:
        """Add the time so far to the epoch's time, and write the last checkpoint."""
        now = time.perf_counter()
        self.state.seconds += now - self.began
        self.began = now
        self._save()

    @property
    def is_to_stop(self) -> bool:
        """True if a signal has come or a callback has failed, in any process."""
        return self.signal is not None or self.failed

    def _agree(self, due: bool = False) -> bool:
        """Return whether a checkpoint is due in the first process. A signal or a failed callback of
        any process counts for all from now on."""
        failed = self.callback.failure is not None
        received, any_failed, any_due = largest(
            self.stop.received or 0, failed, due and place().is_first
        )
        self.signal, self.failed = int(received) or None, bool(any_failed)
        return bool(any_due)

    def check_stop(self) -> None:
        """Raise an error if a signal has come or a callback has failed; the checkpoint, or all of a
        finished run, is saved by then.

        Raises:
            Interrupted: a signal has come.
            UserError: a callback has failed.
        """
        failure = self.callback.failure
        if self.signal is not None:
            raise Interrupted(f"interrupted; {self._continuation('continue with')}", self.signal)
        if failure is not None:
            how = self._continuation("everything is saved: correct it, or continue without it")
            raise UserError(f"{failure}; {how}") from failure.__cause__
        if self.failed:
            raise FirstProcessError("a callback of the first process failed")

    def _continuation(self, how: str) -> str:
        """Return how a stopped training is continued: the given words and a command; of a run that
        is finished, what shows its results."""
        path = self.run.path
        if Run(path).is_finished:
            page = command_line("report", path)
            return f"everything is saved, and run {path} is finished: {page} writes its page"
        options = [word for text in self.callback.texts for word in ("--callback", text)]
        return f"{how}: {command_line('train', '--resume', path, *options)}"

    def agree_and_check(self) -> None:
        """Raise an error in all processes if a signal has come or a callback has failed in one.

        Raises:
            Interrupted: a signal has come.
            UserError: a callback has failed.
        """
        self._agree()
        self.check_stop()

    def check_stop_here(self) -> None:
        """Raise an error if a signal has come or a callback has failed in this process; the
        training is complete by then.

        Raises:
            Interrupted: a signal has come.
            UserError: a callback has failed.
        """
        self.signal = self.stop.received
        self.check_stop()

    def _not_finite(self, what: str) -> UserError:
        """Return the error to raise for a loss or weights that are not finite, with its cause."""
        if (known := cause(self.plan, self.unchecked)) is not None:
            return self._spoilt_by(*known)
        config = self.plan.config
        fixes = [f"lower lr (--lr), now {config.lr:g}"]
        if config.awp:
            fixes.append(f"lower awp (--awp), now {config.awp:g}")
        if self.plan.precision != "float32":
            fixes.append("set precision (--precision) to float32")
        verb = "is" if what == "loss" else "are"
        return self._spoilt_by(
            f"the {what} {verb} no longer finite", ", or ".join(fixes), kind=_NotFiniteError
        )

    def _spoilt_by(self, what: str, fix: str, kind: type[UserError] = UserError) -> UserError:
        """Return the error that ends the training before anything that is not finite is saved."""
        epoch = self.state.epoch + 1
        path = self.run.path
        return kind(
            f"{what} in epoch {epoch} (run {path}, whose checkpoints are from before); {fix}"
        )

    def _strengths(self) -> dict[str, Strength]:
        """Return the strengths of all training images in the next update, by label; none after the
        last."""
        plan, state = self.plan, self.state
        if state.step >= plan.total_steps:
            return {}
        return plan.curriculum.strengths(
            self._progress(),
            states=state.schedules,
            indices_N=torch.arange(len(plan.data.train), device=plan.device),
        )

    def _progress(self) -> Progress:
        """Return the progress at the next update."""
        plan, state = self.plan, self.state
        return Progress(
            step=state.step,
            total_steps=plan.total_steps,
            epoch=state.epoch,
            total_epochs=plan.config.epochs,
        )

    def run_epochs(self, *, resumed: bool) -> None:
        """Train all remaining epochs; after each, validate, write the metrics and save the
        checkpoints."""
        plan, state = self.plan, self.state
        self.callback.on_train_start(Run(self.run.path), plan, plan.total_steps)
        if resumed:
            self.callback.on_resume(state.step)
        self.agree_and_check()
        threats = validation_threats(plan.curriculum.tree, plan.data.budgets)
        if self._can_roll_back and state.step == 0:
            self._save()
            self.run.copy(LAST, GOOD)
        if resumed and self._acute and self._can_roll_back and self.run.holds(GOOD):
            self._roll_back(self._acute[0])  # the interruption came before it
        while state.epoch < plan.config.epochs and not state.stopped:
            try:
                self._run_epoch(threats)
            except _NotFiniteError as error:
                if not self._can_roll_back:
                    raise
                self._roll_back(str(error))
        for label in _never_raised(plan, self.run):
            self.callback.on_message(
                f"{label} stayed at strength 0: {plan.curriculum.schedule_calls[label]} never "
                "raised it; train longer, or choose another threshold or schedule"
            )

    def _run_epoch(self, threats: Mapping[str, Threat]) -> None:
        plan, state = self.plan, self.state
        self.began = time.perf_counter()
        self._update_epoch()
        training_seconds = state.seconds + time.perf_counter() - self.began
        mean_loss = float(state.sums.loss) / plan.steps_per_epoch
        spoilt = problem(state)
        if spoilt is not None:
            raise self._not_finite(spoilt)
        validated = time.perf_counter()
        average_epoch(plan, state, state.epoch)
        with self.passes.validating():
            validation = self._validate(threats)
        state.schedules = plan.curriculum.after_epoch(state.schedules, validation)
        best = validation[JOINT] >= state.best_joint  # the latest of equal ones is best
        strengths = state.sums.means()
        state.passes += self.passes.counts().of_updates
        images = plan.steps_per_epoch * plan.config.batch_size
        train_accuracy = int(state.sums.correct) / images
        with self.passes.validating():
            strong = from_first(  # all processes decide alike
                lambda: self.prober.strong_accuracy(
                    state,
                    strengths,
                    validation[JOINT],
                    train_accuracy,
                    known=self._knows_collapse(),
                )
            )
        metrics = EpochMetrics(
            epoch=state.epoch + 1,
            loss=mean_loss,
            train_accuracy=train_accuracy,
            validation=validation,
            strength=strengths,
            lr=state.optimizer.param_groups[0]["lr"],
            passes=self.passes.pop(),
            best=best,
            strong_accuracy=strong,
            zero_gradient=state.zero_gradient,
        )
        self.history.append(_epoch_of(metrics))
        before, self.found = self.found, self._findings()
        collapsed = bool(self._acute) and plan.config.on_collapse == "stop"
        is_dropped = bool(self._acute) and self._can_roll_back
        stops = collapsed or (not is_dropped and self._has_waited_enough())
        if best and not is_dropped:
            state.best_joint = validation[JOINT]
            best_model = state.evaluated_model
            probe = probe_of(best_model, plan.data.image_shape)
            self.run.save(BEST, kept(best_model, "model"), probe)
        metrics = attrs.evolve(metrics, findings=tuple(self.found))
        self.run.append(METRICS, to_json(metrics))
        timing = EpochTimes(
            epoch=state.epoch + 1,
            training_seconds=training_seconds,
            validation_seconds=time.perf_counter() - validated,
        )
        self.run.append(TIMING, to_json(timing))
        self.began = time.perf_counter()
        state.epoch += 1
        state.sums, state.order_began, state.seconds = EpochSums.zero(plan.device), None, 0.0
        state.stopped = stops
        self.callback.on_epoch_end(metrics)
        self._save()  # after the metrics: a continued training cuts them back to its checkpoint
        for finding in self.found:
            if finding not in before:
                self.callback.on_message(f"epoch {state.epoch}: {finding}: {EXPLANATIONS[finding]}")
        if state.stopped:
            flag = "--on-collapse stop" if collapsed else f"--stop-after {plan.config.stop_after}"
            self.callback.on_message(
                f"epoch {state.epoch}: stopped ({flag}); the best checkpoint so far is evaluated"
            )
        elif is_dropped:
            self._roll_back(self._acute[0])
        elif self._can_roll_back:
            self.run.copy(LAST, GOOD)
        self.agree_and_check()

    @property
    def _can_roll_back(self) -> bool:
        """True if a collapse now leads back to the last good checkpoint."""
        rolls_back = self.plan.config.on_collapse == "rollback"
        return rolls_back and self.state.rollbacks < MAX_ROLLBACKS

    @property
    def _acute(self) -> list[Finding]:
        """Findings of the last epoch that mean a collapse."""
        return [finding for finding in self.found if finding in ACUTE]

    def _has_waited_enough(self) -> bool:
        """Return whether the best joint accuracy is older than the last ``stop_after`` epochs at
        full strength."""
        patience = self.plan.config.stop_after
        full = [epoch.joint for epoch in self.history if epoch.full]
        return 0 < patience < len(full) and max(full[:-patience]) > max(full[-patience:])

    def _knows_collapse(self) -> bool:
        """Return whether the latest epoch with a measured strong accuracy had collapsed."""
        measured = [epoch for epoch in self.history if epoch.strong is not None][-1:]
        return any(
            has_collapsed(epoch.train_accuracy, epoch.strong or 0.0, self.plan.data.num_classes)
            for epoch in measured
        )

    def _findings(self) -> list[Finding]:
        return findings(
            self.history,
            num_classes=self.plan.data.num_classes,
            validation=len(self.plan.validated),
        )

    def _roll_back(self, reason: str) -> None:
        """Go back to the last good checkpoint, and continue with weaker pixel attacks and half the
        learning rate. What the dropped updates cost counts in the epoch that comes next.

        Raises:
            UserError: the checkpoint is damaged.
        """
        rollbacks = self.state.rollbacks + 1
        found = read_checkpoint(self.run, GOOD)
        known = found.state.epoch
        passes = sum((line.passes for line in self.run.metrics[known:]), self.passes.counts())
        seconds = self.state.seconds + time.perf_counter() - self.began
        for line in self.run.times[known:]:
            if isinstance(line, EpochTimes):
                seconds += line.training_seconds + line.validation_seconds
        restore(self.plan, self.state, self.networks, self.passes, found, self.run)
        self.passes.set(passes)
        self.state.seconds, self.state.rollbacks = seconds, rollbacks
        self._save()  # before the metrics are cut: a continued training cuts them too
        self._keep_epochs()
        self.callback.on_resume(self.state.step)
        share = 0.5 ** (rollbacks - 1)
        self.callback.on_message(
            f"{reason}: back to epoch {self.state.epoch} (rollback {rollbacks} of at most "
            f"{MAX_ROLLBACKS}); from now on each image's pixel attack has a random share, up to "
            f"{share:g}, of its strength, and lr is {0.5**rollbacks:g} of the schedule's"
        )

    def _update_epoch(self) -> None:
        """Update the network on each batch of the current epoch that has not been used yet."""
        plan, state = self.plan, self.state
        done = state.step - state.epoch * plan.steps_per_epoch
        order = state.generators["order"] if plan.config.shuffle else None
        if order is not None:
            state.order_began = order.get_state()
        for indices_N, batch in batches(
            plan.data.train, plan.config.batch_size, generator=order, skip=done, rows=plan.rows
        ):
            progress = self._progress()
            updated = update(plan, state, self.networks, indices_N, batch, progress)
            self.unchecked.append(Trace.of(updated))
            state.sums.loss += updated.loss
            state.sums.correct += updated.correct_N.sum()
            state.sums.strengths = updated.strengths
            self.callback.on_step_end(updated)
            del updated  # its images, before the next update makes its own
            if state.step == (state.epoch + 1) * plan.steps_per_epoch:
                state.zero_gradient = has_no_gradient(state)
            if state.step % CHECK_EVERY == 0:
                if not has_finite_loss(state):
                    raise self._not_finite("loss")
                self.unchecked.clear()
            if self._agree(self.saver.is_due(state.step)) or self.is_to_stop:
                self._save_within_epoch()
            self.check_stop()

    def _validate(self, threats: Mapping[str, Threat]) -> dict[str, float]:
        """Return the accuracies on the validation images of an epoch, in [0, 1], by threat."""
        results = evaluate_threats(
            self.state.evaluated_model,
            self.plan.data,
            self.plan.validated,
            threats,
            seed=EVALUATION_SEED,
            batch_size=BATCH_SIZE,
        )
        return {result.name: result.accuracy for result in results}


def _epoch_of(metrics: EpochMetrics) -> Epoch:
    """Return an epoch's accuracies, loss and flags, from which the monitor draws findings."""
    return Epoch(
        train_accuracy=metrics.train_accuracy,
        loss=metrics.loss,
        joint=metrics.validation[JOINT],
        strong=metrics.strong_accuracy,
        full=is_full(metrics.strength),
        zero_gradient=metrics.zero_gradient,
    )


def _never_raised(plan: Plan, run: Run) -> list[str]:
    """Return the labels of the leaves whose adaptive schedules stayed at strength 0 in all
    epochs."""
    strengths = [line.strength for line in run.metrics]
    return [
        label
        for label, schedule in plan.curriculum.schedules.items()
        if isinstance(schedule, AdaptiveSchedule)
        and not any(of_epoch[label] for of_epoch in strengths)
    ]


def _evaluate(
    training: _Training, images: SplitLike, threats: Mapping[str, Threat], split: SplitName
) -> Evaluation:
    """Return the final evaluation on a split, and write it into the run's folder."""

    def after_batch() -> None:
        training.callback.on_eval_batch_end()
        training.check_stop_here()

    training.callback.on_eval_start(len(threats) * math.ceil(len(images) / BATCH_SIZE))
    began = time.perf_counter()
    results = evaluate_threats(
        training.state.model,
        training.plan.data,
        images,
        threats,
        seed=EVALUATION_SEED,
        batch_size=BATCH_SIZE,
        after_batch=after_batch,
    )
    training.callback.on_eval_end(results)
    write_evaluation(training.run, split, results)
    took = EvaluationTime(evaluation_seconds=time.perf_counter() - began)
    training.run.append(TIMING, to_json(took))
    return results
