"""Ekiden: durable, staged, human-gated LLM pipelines on PostgreSQL."""

from ekiden.core.flow import Context, Draft, Feedback, Flow, Phase
from ekiden.core.gates import Gate
from ekiden.errors import CannotHeal, EkidenError, StepError

__version__ = "0.1.0"

__all__ = [
    "CannotHeal",
    "Context",
    "Draft",
    "EkidenError",
    "Feedback",
    "Flow",
    "Gate",
    "Phase",
    "StepError",
    "__version__",
]
