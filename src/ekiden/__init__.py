"""Ekiden: durable, staged, human-gated LLM pipelines on PostgreSQL."""

from ekiden.core.flow import Context, Draft, Flow, Phase
from ekiden.errors import CannotHeal, EkidenError, StepError

__version__ = "0.1.0"

__all__ = [
    "CannotHeal",
    "Context",
    "Draft",
    "EkidenError",
    "Flow",
    "Phase",
    "StepError",
    "__version__",
]
