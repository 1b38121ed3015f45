"""Write the final evaluation of a run with the predictions of all images, and read it. Reading
needs no torch."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curricula.evaluation.results import Evaluation, ThreatResult
from curricula.runtime.parsing import parse_json
from curricula.runtime.records import from_json, to_json
from curricula.training.config import SplitName
from curricula.training.run import PREDICTIONS, RESULTS, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABELS, PREDICTED, CLASSES = "labels", "predictions", "classes"  # names in the file


def write_evaluation(run: Run, split: SplitName, found: Evaluation) -> None:
    """Write the results of the final evaluation on a split into a run's folder, and the predictions
    behind them.

    Raises:
        UserError: they cannot be written, for example because the disk is full.
    """
    import numpy as np
    import torch

    if found.predictions:
        predicted_TN = np.stack([*found.predictions.values()])
        most = max(int(labels.max()) for labels in (found.labels, predicted_TN))
        count = max(most + 1, len(found.classes))
        run.save(
            PREDICTIONS[split],
            {
                LABELS: torch.from_numpy(found.labels.astype("int32")),
                PREDICTED: torch.from_numpy(predicted_TN.astype("int32")),
            },
            {CLASSES: json.dumps([found.class_name(label) for label in range(count)])},
        )
    run.write_json(RESULTS[split], to_json(found))  # last: it says that the run is finished


def read_evaluation(run: Run, split: SplitName) -> Evaluation | None:
    """Return the final evaluation of a run on a split; None if its folder lacks the results, or the
    predictions behind them.

    Raises:
        UserError: a file is damaged, or the predictions are not those of the results.
    """
    results, file = run.results(split), PREDICTIONS[split]
    if not results or not run.holds(file):
        return None
    arrays, texts = run.load_arrays(file)
    with run.reading(file):
        classes = from_json(list[str], parse_json(texts[CLASSES]))
        return _evaluation(results, classes, arrays)


def _evaluation(
    results: Sequence[ThreatResult], classes: Sequence[str], arrays: "Mapping[str, NDArray[Any]]"
) -> Evaluation:
    """Return the evaluation of results, and of the arrays in their file of predictions.

    Raises:
        KeyError, TypeError, ValueError: the arrays are not those of the results.
    """
    images = results[0].n
    labels_N = _labels(LABELS, arrays[LABELS], (images,), len(classes))
    predicted_TN = _labels(PREDICTED, arrays[PREDICTED], (len(results), images), len(classes))
    for result, predicted_N in zip(results, predicted_TN, strict=True):
        if (result.correct, result.n) != (int((predicted_N == labels_N).sum()), images):
            raise ValueError(f"the predictions under {result.name} are not those of the results")
    names = [result.name for result in results]
    return Evaluation(
        results=results,
        labels=labels_N,
        predictions=dict(zip(names, predicted_TN, strict=True)),
        classes=tuple(classes),
    )


def _labels(
    name: str, found: "NDArray[Any]", shape: tuple[int, ...], classes: int
) -> "NDArray[np.int64]":
    """Return a stored array of class numbers as int64.

    Raises:
        TypeError, ValueError: it has another type or shape, or a number that is not of a class.
    """
    if found.dtype != "int32" or found.shape != shape:
        raise TypeError(
            f"{name} must be int32 of shape {shape}, not {found.dtype} of shape {found.shape}"
        )
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{name} must lie from 0 to {classes - 1}, not from {low} to {high}")
    return found.astype("int64")
