"""From a theme to three posts: the built-in flow ``viral``."""

from ekiden.flows.viral.flow import viral
from ekiden.flows.viral.schemas import ViralInput

__all__ = ["ViralInput", "viral"]
