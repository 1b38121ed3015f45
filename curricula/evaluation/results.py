"""Results of an evaluation: counts of correct and fooled images, with intervals, and the class
predicted for each image. Needs no torch."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, overload

import attrs

from curricula.errors import UserError, did_you_mean, shown
from curricula.evaluation.intervals import draws_interval, in_percent, wilson_interval
from curricula.evaluation.suite_tables import Position, SuiteTable, tables_of
from curricula.runtime.files import check_output, write_output
from curricula.runtime.records import register_json
from curricula.runtime.tables import data_frame, frame_of_rows, html_table
from curricula.runtime.values import as_path, check_choice, check_printable

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

    Labels: TypeAlias = NDArray[np.int64]


Grouping: TypeAlias = Literal["threat", "row", "class", "image"]
"""The rows of a data frame of an evaluation: one per threat, row of a table, class or image."""
FORMATS = (".npz", ".csv")  # suffixes of files of predictions
MAX_DRAWS = 1_000_000  # passes by which a random network is measured
MAX_ROWS = 20  # rows of a table in a notebook


@attrs.frozen(kw_only=True)
class Draws:
    """The numbers of correct draws of a random classifier under one threat.

    >>> draws = Draws(count=2, correct=150, squares=280, mean=80, n=100)
    >>> draws.accuracy, draws.mean_accuracy
    (0.75, 0.8)

    Attributes:
        count: draws of each image, 1 or more.
        correct: correct draws of all images together.
        squares: sum over the images of the squared number of correct draws.
        mean: number of images that the mean probabilities of the draws classify correctly.
        n: number of images, 1 or more.
    """

    count: int = attrs.field(validator=attrs.validators.ge(1))
    correct: int = attrs.field(validator=attrs.validators.ge(0))
    squares: int = attrs.field(validator=attrs.validators.ge(0))
    mean: int = attrs.field(validator=attrs.validators.ge(0))
    n: int = attrs.field(validator=attrs.validators.ge(1))

    def __attrs_post_init__(self) -> None:
        most = self.count * self.n
        if self.correct > most or self.mean > self.n:
            raise ValueError(f"correct must be at most {most} and mean at most {self.n}")
        if not self.correct**2 / self.n <= self.squares <= self.count * self.correct:
            raise ValueError(f"squares cannot be {self.squares} for {self.correct} correct draws")

    @property
    def accuracy(self) -> float:
        """Mean accuracy of a single draw, in [0, 1]."""
        return self.correct / (self.count * self.n)

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) ends of the 95 % interval of a single draw's accuracy, in [0, 1]."""
        return draws_interval(self.correct, self.squares, self.count, self.n)

    @property
    def mean_accuracy(self) -> float:
        """Accuracy of the mean probabilities, in [0, 1]."""
        return self.mean / self.n

    @property
    def mean_interval(self) -> tuple[float, float]:
        """(low, high) ends of the 95 % interval of `mean_accuracy`, in [0, 1] (Wilson 1927)."""
        return wilson_interval(self.mean, self.n)

    def __str__(self) -> str:
        """Return the accuracies of a single draw and of the mean, in %, as text."""
        return (
            f"single draw {in_percent(self.accuracy, self.interval)} %, mean of {self.count:,} "
            f"draws {in_percent(self.mean_accuracy, self.mean_interval)} %"
        )


@attrs.frozen(kw_only=True)
class ThreatResult:
    """The numbers of correctly classified and of fooled images, out of ``n``, under one threat.

    >>> result = ThreatResult(name="joint", threat="rot(30)+pgd(0.1)", correct=90, fooled=8, n=100)
    >>> result.accuracy, result.fooling_rate
    (0.9, 0.08)
    >>> print(result)
    joint: 90.0 (82.6 to 94.5) % of 100 images

    Attributes:
        name: name of the threat, for tables.
        threat: its expression, all defaults explicit.
        correct: number of images classified correctly.
        fooled: number of images whose predicted class differs from the one predicted for the clean
            image, whichever of the two is correct.
        n: number of images, 1 or more.
        draws: counts of a random classifier that was measured by several draws, whose other fields
            are those of their majority vote; None for all other classifiers.
        position: position of the threat in the table of its suite, if it has one.
    """

    name: str = attrs.field(validator=check_printable)
    threat: str = attrs.field(validator=check_printable)
    correct: int = attrs.field(validator=attrs.validators.ge(0))
    fooled: int = attrs.field(validator=attrs.validators.ge(0))
    n: int = attrs.field(validator=attrs.validators.ge(1))
    draws: Draws | None = None
    position: Position | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("correct", "fooled"):
            if getattr(self, name) > self.n:
                raise ValueError(f"{name} must be at most n, not {getattr(self, name)} of {self.n}")
        if self.draws is not None and self.draws.n != self.n:
            raise ValueError(f"draws must be of {self.n} images, not {self.draws.n}")

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly, in [0, 1]."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) ends of the accuracy's 95 % interval, in [0, 1] (Wilson 1927)."""
        return wilson_interval(self.correct, self.n)

    @property
    def fooling_rate(self) -> float:
        """Share of the images whose predicted class the threat changes, in [0, 1] (Kamath et al.
        2021).

        An adversary attacks the label, not the clean prediction, and stops once an image is
        misclassified. So among the images that are correct when clean, this counts exactly the
        fooled ones. An image that is misclassified when clean counts where its class happens to
        change, which is no worst case for a searched threat.
        """
        return self.fooled / self.n

    def __str__(self) -> str:
        """Return one line with the threat's name, the accuracy, its 95 % interval and the number of
        images."""
        shown = f"{self.name}: {in_percent(self.accuracy, self.interval)} % of {self.n:,} images"
        if self.draws is None:
            return shown
        return f"{shown} by the majority of {self.draws.count:,} draws; {self.draws}"


register_json(
    ThreatResult,
    lambda result: {
        "name": result.name,
        "threat": result.threat,
        "accuracy": result.accuracy,
        "interval_95": result.interval,
        "correct": result.correct,
        "fooling_rate": result.fooling_rate,
        "fooled": result.fooled,
        "n": result.n,
        **({"draws": result.draws} if result.draws else {}),
        **({"position": result.position} if result.position else {}),
    },
)
register_json(
    Draws,
    lambda draws: {
        "count": draws.count,
        "accuracy": draws.accuracy,
        "interval_95": draws.interval,
        "correct": draws.correct,
        "squares": draws.squares,
        "mean_accuracy": draws.mean_accuracy,
        "mean": draws.mean,
        "n": draws.n,
    },
)


def threat_result(
    name: str,
    threat: str,
    predicted_N: Any,
    *,
    clean_N: Any,
    labels_N: Any,
    draws: Draws | None = None,
    position: Position | None = None,
) -> ThreatResult:
    """Return the result of a threat from the classes predicted under it and on the clean images:
    arrays or tensors of whole numbers (N,); ``draws`` are the counts of a random classifier,
    ``position`` is that in a suite's table."""
    return ThreatResult(
        name=name,
        threat=threat,
        correct=int((predicted_N == labels_N).sum()),
        fooled=int((predicted_N != clean_N).sum()),
        n=len(labels_N),
        draws=draws,
        position=position,
    )


@attrs.frozen(kw_only=True)
class ClassResult:
    """The number of correctly classified images of one class, out of ``n``, under one threat.

    Attributes:
        label: index of the class.
        name: name of the class.
        correct: number of its images classified correctly.
        n: number of its images, 1 or more.
    """

    label: int
    name: str
    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        """Share of the class's images classified correctly, in [0, 1]."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) ends of the accuracy's 95 % interval, in [0, 1] (Wilson 1927)."""
        return wilson_interval(self.correct, self.n)


register_json(
    ClassResult,
    lambda found: {
        "label": found.label,
        "class": found.name,
        "accuracy": found.accuracy,
        "interval_95": found.interval,
        "correct": found.correct,
        "n": found.n,
    },
)


def _results(found: Iterable[ThreatResult]) -> tuple[ThreatResult, ...]:
    return tuple(found)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Evaluation(Sequence[ThreatResult]):
    """The results under each threat, in order, and the class predicted for each image.

    It is a sequence of `ThreatResult`; a threat's name is an index too. It equals a list of the
    same results.

    >>> import numpy as np
    >>> y_N, clean_N, turned_N = np.array([0, 1, 0]), np.array([0, 1, 1]), np.array([0, 0, 1])
    >>> result = threat_result("turned", "rot(30)", turned_N, clean_N=clean_N, labels_N=y_N)
    >>> evaluation = Evaluation(
    ...     results=[result], labels=y_N, predictions={"turned": turned_N}, classes=("cat", "dog")
    ... )
    >>> evaluation
    Evaluation(turned 33.3 %; 3 images, 2 classes)
    >>> evaluation["turned"].correct, evaluation.predictions["turned"].tolist()
    (1, [0, 0, 1])
    >>> [(found.name, found.correct, found.n) for found in evaluation.per_class("turned")]
    [('cat', 1, 2), ('dog', 0, 1)]
    >>> evaluation.confusion("turned").tolist()
    [[1, 1], [1, 0]]

    Attributes:
        results: the result under each threat.
        labels: class of each image, int64 (N,), in the order of the split that was measured.
        predictions: class predicted for each image under each threat, int64 (N,), by its name.
        classes: names of the classes.
        baseline: the evaluation of a baseline under the same threats, on the same images, if one
            was measured.
    """

    results: tuple[ThreatResult, ...] = attrs.field(converter=_results)
    labels: "Labels"
    predictions: Mapping[str, "Labels"]
    classes: tuple[str, ...]
    baseline: "Evaluation | None" = None

    def __attrs_post_init__(self) -> None:
        if [result.name for result in self.results] != list(self.predictions):
            raise ValueError("predictions must have the names of the results, in their order")
        for name, predicted_N in self.predictions.items():
            if len(predicted_N) != len(self.labels):
                raise ValueError(
                    f"{shown(name)} has {len(predicted_N)} predictions for {len(self.labels)} "
                    "images"
                )

    @overload
    def __getitem__(self, key: int | str) -> ThreatResult: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[ThreatResult, ...]: ...
    def __getitem__(self, key: int | str | slice) -> ThreatResult | tuple[ThreatResult, ...]:
        if isinstance(key, str):
            return self.results[list(self.predictions).index(self._known(key))]
        return self.results[key]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Evaluation):
            return (
                self.results == other.results
                and self.classes == other.classes
                and self.baseline == other.baseline
                and bool((self.labels == other.labels).all())
                and all(
                    bool((mine_N == other.predictions[name]).all())
                    for name, mine_N in self.predictions.items()
                )
            )
        return list(self) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def indices(self) -> "Labels":
        """Position of each image in the split that was measured, int64 (N,)."""
        import numpy as np

        return np.arange(len(self.labels))

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number if the data set names no such class: a model
        may have more outputs."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def per_class(self, threat: str) -> tuple[ClassResult, ...]:
        """Return the result of each class under a threat, given by its name; classes without images
        are left out.

        Raises:
            UserError: an unknown threat.
        """
        import numpy as np

        correct_N = self.predictions[self._known(threat)] == self.labels
        n_K = np.bincount(self.labels)
        correct_K = np.bincount(self.labels[correct_N], minlength=len(n_K))
        return tuple(
            ClassResult(label=label, name=self.class_name(label), correct=correct, n=n)
            for label, (correct, n) in enumerate(zip(correct_K.tolist(), n_K.tolist(), strict=True))
            if n
        )

    @property
    def tables(self) -> tuple[SuiteTable, ...]:
        """The table of each suite that has one."""
        return tables_of(self.results, self.baseline.results if self.baseline else ())

    def outside_tables(self) -> "Evaluation":
        """Return the evaluation of the threats that are in no suite's table, with their
        baseline."""
        kept = [result for result in self.results if result.position is None]
        return attrs.evolve(
            self,
            results=kept,
            predictions={result.name: self.predictions[result.name] for result in kept},
            baseline=self.baseline.outside_tables() if self.baseline else None,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes that are named, are a label or are predicted under a threat."""
        arrays = (self.labels, *self.predictions.values())
        return max(len(self.classes), *(int(of_N.max()) + 1 for of_N in arrays))

    def confusion(self, threat: str) -> "Labels":
        """Return the number of images of each class that a threat makes the model take for each
        class, int64 (K, K): true classes by rows, predicted classes by columns.

        Raises:
            UserError: an unknown threat.
        """
        import numpy as np

        predicted_N, side = self.predictions[self._known(threat)], self.num_classes
        counts = np.bincount(self.labels * side + predicted_N, minlength=side * side)
        return counts.reshape(side, side)

    def to_pandas(self, per: Grouping = "threat") -> "pandas.DataFrame":
        """Return the results as a data frame with a row per ``threat``, ``row``, ``class`` or
        ``image``.

        - ``threat``: accuracy with the ends of its 95 % interval, fooling rate, counts; after a
          suite with a table also the position in it, and the accuracy of a baseline.
        - ``row``: a row per row of a suite's table, with its errors (`SuiteTable`).
        - ``class``: a row per class and threat.
        - ``image``: label and predictions, as `save_predictions` writes them; the index is the
          image's position in the split that was measured.

        Raises:
            UserError: pandas is not installed; two columns would have the same name.
        """
        check_choice("per", per, get_args(Grouping))
        if per == "threat":
            return frame_of_rows(self._threat_rows())
        if per == "row":
            rows = [row for table in self.tables for row in table.as_rows()]
            headings = dict.fromkeys(heading for row in rows for heading in row)
            return frame_of_rows([{**dict.fromkeys(headings), **row} for row in rows])
        if per == "class":
            return frame_of_rows(
                [
                    {"class": found.name, "label": found.label, "threat": name, **_shares(found)}
                    for name in self.predictions
                    for found in self.per_class(name)
                ]
            )
        columns = self._columns()
        return data_frame(columns).set_index("index")

    def _threat_rows(self) -> list[dict[str, Any]]:
        """Return the row of each threat in a data frame, all with the same columns."""
        rows = [result_row(result) for result in self]
        if any(result.position for result in self):
            for row, result in zip(rows, self, strict=True):
                where = result.position
                row |= {name: where and getattr(where, name) for name in ("suite", "row", "column")}
        if self.baseline is not None:
            for row in rows:
                row |= {"baseline": self.baseline[row["threat"]].accuracy}
        return rows

    def save_predictions(self, path: str | Path) -> None:
        """Write the label and the prediction under each threat of every image, as ``.npz`` or
        ``.csv``.

        - NPZ: ``index`` (N,), ``label`` (N,), ``prediction`` (N, T), and as texts ``threat`` (T,),
          ``expression`` (T,) and ``class`` (K,). `numpy.load` reads it without pickle.
        - CSV: ``index``, ``label``, ``label_name``, and for each threat NAME and ``NAME_name``,
          the predicted class's number and name.

        Raises:
            UserError: another suffix; the file cannot be written; two columns would have the same
                name.
        """
        path = as_path("path", path)
        check_predictions(path)
        if path.suffix.lower() == ".csv":
            columns = self._columns()
            lines = io.StringIO(newline="")
            writer = csv.writer(lines)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
            write_output(path, lines.getvalue().encode())
            return
        import numpy as np

        content = io.BytesIO()
        np.savez_compressed(
            content,
            index=self.indices,
            label=self.labels,
            prediction=np.stack([*self.predictions.values()], axis=1),
            threat=np.array([result.name for result in self]),
            expression=np.array([result.threat for result in self]),
            **{"class": np.array(self.classes)},
        )
        write_output(path, content.getvalue())

    def _columns(self) -> "dict[str, Sequence[Any]]":
        """Return the values of each image, by column."""
        columns: dict[str, Sequence[Any]] = {"index": self.indices.tolist()}
        for name, of_N in {"label": self.labels, **self.predictions}.items():
            values = of_N.tolist()
            named = [self.class_name(label) for label in values]
            columns |= {name: values, f"{name}_name": named}
        if len(columns) < 3 + 2 * len(self.predictions):
            raise UserError(
                f"predictions under the threats {', '.join(self.predictions)} have columns of the "
                "same name: give each threat another name, without index, label and _name"
            )
        return columns

    def _known(self, threat: str) -> str:
        if threat not in self.predictions:
            fix = did_you_mean(str(threat), self.predictions)
            raise UserError(f"the evaluation has no threat {shown(threat)}; {fix}")
        return threat

    def __repr__(self) -> str:
        accuracies = ", ".join(
            f"{result.name} {100 * result.accuracy:.1f} %" for result in self.results
        )
        n, classes = len(self.labels), len(self.classes)
        return f"Evaluation({accuracies}; {n:,} images, {classes:,} classes)"

    def __str__(self) -> str:
        """Return the line of each result."""
        return "\n".join(map(str, self.results))

    def _repr_html_(self) -> str:
        n = len(self.labels)
        return results_html(f"Accuracy in % (95 % interval), {n:,} images", self.results)


register_json(Evaluation, lambda evaluation: evaluation.results)


def _shares(found: ThreatResult | ClassResult) -> dict[str, Any]:
    """Return the accuracy, the ends of its interval and the counts, as columns of a data frame."""
    low, high = found.interval
    return {
        "accuracy": found.accuracy,
        "low": low,
        "high": high,
        "correct": found.correct,
        "n": found.n,
    }


def result_row(result: ThreatResult) -> dict[str, Any]:
    """Return the row of a result in a data frame."""
    return {
        "threat": result.name,
        **_shares(result),
        **({"single_draw": result.draws.accuracy} if result.draws else {}),
        "fooling_rate": result.fooling_rate,
        "fooled": result.fooled,
        "expression": result.threat,
    }


def results_html(caption: str, results: Sequence[ThreatResult], *, note: str = "") -> str:
    """Return an HTML table of results, one row per threat: at most the first 20."""
    rows = [
        (result.name, in_percent(result.accuracy, result.interval), result.threat)
        for result in results[:MAX_ROWS]
    ]
    if len(results) > MAX_ROWS:
        note = f"The first {MAX_ROWS} of {len(results):,}. {note}"
    return html_table(caption, ("threat", "accuracy", "exactly"), rows, note=note)


def check_predictions(path: Path) -> None:
    """Check that predictions can be written to a file, before any work.

    Raises:
        UserError: the suffix is neither .npz nor .csv; as `check_output` does.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"output {path}: its name must end in {' or '.join(FORMATS)}")
    check_output(path)


def check_results(results: Sequence[ThreatResult]) -> None:
    """Check that there are results, and that no two have the same name.

    Raises:
        ValueError: there are none, or two have the same name.
    """
    if not results:
        raise ValueError("there are no results")
    for name, count in Counter(result.name for result in results).items():
        if count > 1:
            raise ValueError(f"the threat {shown(name)} is there twice")
