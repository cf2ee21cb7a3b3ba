"""What there is to measure: the table of metrics, what they are computed from, and `measure`. No torch at import."""

from unsample.metrics.facts import KINDS, MetricFacts
from unsample.metrics.measuring import Measuring, measure
from unsample.metrics.registering import register
from unsample.metrics.subject import Found, Score, Settings, Subject
from unsample.metrics.table import METRICS
from unsample.metrics.weights import WEIGHTS

__all__ = [
    "KINDS",
    "METRICS",
    "WEIGHTS",
    "Found",
    "Measuring",
    "MetricFacts",
    "Score",
    "Settings",
    "Subject",
    "measure",
    "register",
]
