"""The model that scores: a logistic regression whose weights are in a file, taken up anew when the file changes.

It stands for any outside model server: it can be exchanged while transactions flow, and it can be away.
"""

from __future__ import annotations

import json
import os
from math import exp, log1p
from pathlib import Path
from typing import NamedTuple

from services.fraud.events import TransactionMade

DEFAULT = Path(__file__).with_name("model.json")


class ModelUnavailableError(ConnectionError):
    """There is no usable model just now; later there may be one."""


class Weights(NamedTuple):
    """What the file says.

    Attributes:
        version: told with each score.
        amount: for each power of e of the amount.
        abroad: for a country that is not the card's.
        categories: by the merchant's category; others weigh nothing.
    """

    version: str
    intercept: float
    amount: float
    abroad: float
    categories: dict[str, float]


class Model:
    """The model of a file.

    Args:
        path: looked at before each score.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._weights: Weights | None = None
        self._changed_ns = 0

    @classmethod
    def of_environment(cls) -> Model:
        """The model that FRAUD_MODEL names, else the one beside this file."""
        return cls(Path(os.environ.get("FRAUD_MODEL", DEFAULT)))

    def score(self, made: TransactionMade) -> tuple[float, str]:
        """How likely it is fraud, from 0 to 1, and the model's version.

        Raises:
            ModelUnavailableError: the file is not there or cannot be read.
        """
        weights = self._current()
        evidence = (
            weights.intercept
            + weights.amount * log1p(float(made.amount))
            + weights.abroad * (made.country != made.home_country)
            + weights.categories.get(made.category, 0.0)
        )
        return round(1 / (1 + exp(-evidence)), 4), weights.version

    def _current(self) -> Weights:
        try:
            changed_ns = self._path.stat().st_mtime_ns
            if self._weights is None or changed_ns != self._changed_ns:
                self._weights = Weights(**json.loads(self._path.read_text("utf-8")))
                self._changed_ns = changed_ns
        except (OSError, ValueError, TypeError) as error:
            raise ModelUnavailableError(f"no model at {self._path}: {error}") from error
        return self._weights
