"""Results of an evaluation: counts of correct and fooled images, with intervals, and the class
predicted for each image. Needs no torch."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import attrs

from curricula.errors import UserError, did_you_mean, shown
from curricula.runtime.records import register_json
from curricula.runtime.values import check_printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels: TypeAlias = NDArray[np.int64]


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
    """

    name: str = attrs.field(validator=check_printable)
    threat: str = attrs.field(validator=check_printable)
    correct: int = attrs.field(validator=attrs.validators.ge(0))
    fooled: int = attrs.field(validator=attrs.validators.ge(0))
    n: int = attrs.field(validator=attrs.validators.ge(1))

    def __attrs_post_init__(self) -> None:
        for name in ("correct", "fooled"):
            if getattr(self, name) > self.n:
                raise ValueError(f"{name} must be at most n, not {getattr(self, name)} of {self.n}")

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
        return f"{self.name}: {in_percent(self.accuracy, self.interval)} % of {self.n:,} images"


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
    },
)


def threat_result(
    name: str,
    threat: str,
    predicted_N: Any,
    *,
    clean_N: Any,
    labels_N: Any,
) -> ThreatResult:
    """Return the result of a threat from the classes predicted under it and on the clean images:
    arrays or tensors of whole numbers (N,)."""
    return ThreatResult(
        name=name,
        threat=threat,
        correct=int((predicted_N == labels_N).sum()),
        fooled=int((predicted_N != clean_N).sum()),
        n=len(labels_N),
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
    """

    results: tuple[ThreatResult, ...] = attrs.field(converter=_results)
    labels: "Labels"
    predictions: Mapping[str, "Labels"]
    classes: tuple[str, ...]

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

    def confusion(self, threat: str) -> "Labels":
        """Return the number of images of each class that a threat makes the model take for each
        class, int64 (K, K): true classes by rows, predicted classes by columns.

        Raises:
            UserError: an unknown threat.
        """
        import numpy as np

        predicted_N = self.predictions[self._known(threat)]
        side = max(len(self.classes), *(int(of_N.max()) + 1 for of_N in (self.labels, predicted_N)))
        counts = np.bincount(self.labels * side + predicted_N, minlength=side * side)
        return counts.reshape(side, side)

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


register_json(Evaluation, lambda evaluation: evaluation.results)


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


def wilson_interval(correct: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the ends (low, high), in [0, 1], of Wilson's interval (1927) for the share ``correct /
    n``, by default at 95 %.

    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)

    Args:
        correct: successes, from 0 to n; a fraction if one trial can score a fraction.
        n: trials, 1 or more.
        z: quantile of the normal distribution.
    """
    share = correct / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the interval touches 0 or 1 exactly; rounding must not move it.
    low = 0.0 if correct == 0 else (middle - half) / scale
    high = 1.0 if correct == n else (middle + half) / scale
    return low, high


def in_percent(accuracy: float, interval: tuple[float, float]) -> str:
    """Return an accuracy and its interval, both in [0, 1], as text in %.

    >>> in_percent(0.9, wilson_interval(90, 100))
    '90.0 (82.6 to 94.5)'
    """
    low, high = interval
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
