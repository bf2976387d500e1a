"""Which model answers at which place of a flow.

A place is a flow, one of its phases, or one of its steps. The most specific setting wins:

    EKIDEN_MODEL_VIRAL_1_THINK  >  EKIDEN_MODEL_VIRAL_1  >  EKIDEN_MODEL_VIRAL  >  EKIDEN_MODEL

and what was chosen for one session or one rerun wins over all of them. Fallback models are looked
up in the same way, under EKIDEN_FALLBACK_MODEL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from ekiden.errors import (
    ModelElsewhere,
    ModelRefused,
    ModelUnavailable,
    NotSetUp,
    SettingsError,
)
from ekiden.providers.protocol import Provider

Build = Callable[[str], Provider]

_NOT_IN_VARIABLE = re.compile("[^A-Z0-9]")


class Models:
    """The models of a worker, by place.

    Args:
        default: answers where nothing else is said; None for flows that ask nothing.
        build: builds what ``provider:model`` names, each once; raises SettingsError.
        places: ``provider:model`` by place, as `places_of` names them.
        fallback: asked when the model of a place cannot be, ``provider:model``; None: nobody.
        fallbacks: the same by place.
        askable: the providers whose models ``build`` can build here.
    """

    def __init__(
        self,
        default: Provider | None,
        *,
        build: Build | None = None,
        places: Mapping[str, str] | None = None,
        fallback: str | None = None,
        fallbacks: Mapping[str, str] | None = None,
        askable: Iterable[str] = (),
    ) -> None:
        self._default = default
        self._build = build
        self._places = places or {}
        self._fallback = fallback
        self._fallbacks = fallbacks or {}
        self._askable = tuple(askable)

    @property
    def askable(self) -> list[str]:
        """The providers whose models can be asked here, for peers to know."""
        default = () if self._default is None else (self._default.name,)
        return sorted({*default, *self._askable})

    def check(self) -> None:
        """Build all that is set.

        Raises:
            SettingsError: one of them cannot be; the message names the variable.
        """
        for settings, variable in (
            (self._places, "EKIDEN_MODEL"),
            (self._fallbacks, "EKIDEN_FALLBACK_MODEL"),
        ):
            for place, chosen in settings.items():
                self._checked(chosen, f"{variable}_{place}")
        if self._fallback:
            self._checked(self._fallback, "EKIDEN_FALLBACK_MODEL")

    def of(self, *, flow: str, phase: int, step: str, wanted: str | None = None) -> Provider:
        """Return the model of a step.

        Args:
            flow: the name of the flow.
            phase: its number, from 1.
            step: THINK, EXECUTE or INTEGRATE.
            wanted: ``provider:model`` that was chosen for the session or the rerun; wins.

        Raises:
            ModelElsewhere: the model that was chosen for the session is not set up here.
            ModelRefused: the model is unknown, or not set up on this worker.
            ModelUnavailable: this worker has no model at all.
        """
        if wanted:
            return self._wanted(wanted)
        chosen = _most_specific(self._places, flow, phase, step)
        if chosen:
            return self._named(chosen)
        if self._default is None:
            raise ModelUnavailable("This worker has no model. Set EKIDEN_MODEL or a provider key.")
        return self._default

    def fallback(self, *, flow: str, phase: int, step: str) -> Provider | None:
        """Return whom to ask when the model of a step cannot be asked; None: nobody.

        Raises:
            ModelRefused: it is unknown, or not set up on this worker.
        """
        chosen = _most_specific(self._fallbacks, flow, phase, step) or self._fallback
        return self._named(chosen) if chosen else None

    def reader(self, name: str, model: str, otherwise: Provider) -> Provider:
        """Return who can read an answer of the ledger; ``otherwise`` if its model is gone."""
        if (name, model) == (otherwise.name, otherwise.model):
            return otherwise
        return self.known(name, model) or otherwise

    def known(self, name: str, model: str) -> Provider | None:
        """Return a model by its name; None when it is not set up here."""
        try:
            return self._named(f"{name}:{model}")
        except ModelRefused:
            return None

    def _wanted(self, chosen: str) -> Provider:
        """Return the model that people chose.

        Raises:
            ModelElsewhere: it needs what is not set here.
            ModelRefused: it cannot be built anywhere.
        """
        try:
            return self._named(chosen)
        except ModelRefused as error:
            if isinstance(error.__cause__, NotSetUp):
                raise ModelElsewhere(error.__cause__.message) from error
            raise

    def _named(self, chosen: str) -> Provider:
        """Return what ``provider:model`` names.

        Raises:
            ModelRefused: it cannot be built; says what to set.
        """
        default = self._default
        if default is not None and chosen == f"{default.name}:{default.model}":
            return default
        if self._build is None:
            raise ModelRefused(
                f"{chosen!r}: this worker has one model, and no other can be chosen."
            )
        try:
            return self._build(chosen)
        except SettingsError as error:
            raise ModelRefused(f"The model cannot be asked: {error.message}") from error

    def _checked(self, chosen: str, variable: str) -> None:
        try:
            self._named(chosen)
        except ModelRefused as error:
            raise SettingsError(f"{variable}: {error.message}") from error


def places_of(flow: str, phase: int, step: str) -> Iterator[str]:
    """Yield the names under which a step's model may be set, the most specific first."""
    name = _NOT_IN_VARIABLE.sub("_", flow.upper())
    yield f"{name}_{phase}_{step}"
    yield f"{name}_{phase}"
    yield name


def _most_specific(places: Mapping[str, str], flow: str, phase: int, step: str) -> str | None:
    if not places:
        return None
    return next((places[name] for name in places_of(flow, phase, step) if name in places), None)
