"""Prompts as Markdown files, one folder a language, filled in and never evaluated.

    PROMPTS = Prompts("ekiden.flows.viral", {"system": (), "queries": ("theme", "style")})
    PROMPTS.fill("queries", "ja", theme="弁当", style="やさしい")

reads ``prompts/ja/queries.md`` of that package. A prompt states its variables where it is used,
and every language must use exactly those: a misspelt or forgotten variable stops the program when
it starts, not a session when it is half paid for.

What fills a variable may come from a stranger (a web page, another model). It is put in once, so
a ``$`` in it is only a dollar sign. Prompts show such material as a Markdown quote, ``> $sources``,
and every further line of it is quoted too: whatever it says, it cannot step out of the quote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template

from ekiden.errors import FlowError

LANGUAGES = ("en", "ja")


class Prompts:
    """The prompts of one flow, in every language.

    Args:
        package: the package that has the folder ``prompts``.
        variables: the variables of each prompt, by the prompt's name.
        languages: the folders that must all be complete.

    Raises:
        FlowError: a file is missing, or its variables are not the stated ones.
    """

    def __init__(
        self,
        package: str,
        variables: Mapping[str, Iterable[str]],
        *,
        languages: Iterable[str] = LANGUAGES,
    ) -> None:
        self._templates = {
            (name, language): _load(package, name, language, frozenset(wanted))
            for name, wanted in variables.items()
            for language in languages
        }

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Every (prompt, language) there is."""
        return tuple(self._templates)

    def variables(self, name: str, language: str) -> tuple[str, ...]:
        """Return the variables of a prompt, in the order it uses them."""
        return tuple(self._templates[name, language].get_identifiers())

    def instructions(self, name: str, language: str) -> str:
        """Return what a prompt itself says, each variable a line break."""
        template = self._templates[name, language]
        return template.substitute(dict.fromkeys(template.get_identifiers(), "\n"))

    def fill(self, name: str, language: str, **values: object) -> str:
        """Return the prompt with its variables filled in.

        Raises:
            FlowError: a value is missing, or one is given that the prompt does not use.
        """
        template = self._templates[name, language]
        if set(values) != set(template.get_identifiers()):
            raise FlowError(
                f"prompt {name!r} takes {sorted(template.get_identifiers())}, got {sorted(values)}"
            )
        return template.substitute({key: _quoted(str(value)) for key, value in values.items()})


def _load(package: str, name: str, language: str, wanted: frozenset[str]) -> Template:
    where = f"{package}: prompts/{language}/{name}.md"
    try:
        text = files(package).joinpath("prompts", language, f"{name}.md").read_text("utf-8")
    except FileNotFoundError:
        raise FlowError(f"{where} is missing") from None
    template = Template(text.strip())
    if not template.is_valid():
        raise FlowError(f"{where}: a '$' stands alone; write '$$' for a dollar sign")
    used = set(template.get_identifiers())
    if used != wanted:
        raise FlowError(f"{where} uses {sorted(used)}, the flow fills {sorted(wanted)}")
    return template


def _quoted(value: str) -> str:
    """Quote every line after the first, whatever a stranger thinks ends a line."""
    return "\n> ".join(value.splitlines())
