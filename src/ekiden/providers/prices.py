"""What calls cost: by the provider's own numbers and the public price list of ``genai-prices``.

A price that is not known is None, never zero. Zero is what a model at home costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from ekiden.providers.dialect import dialect_for, most_tokens
from ekiden.providers.protocol import Usage

_HIGHEST = 2**31 - 1  # tokens or dollars of one call; what a server says beyond that is not known

AT_HOME = frozenset({"embedded", "ollama", "lmstudio", "vllm"})
_STATED = "stated by the provider"
_LOCAL = "runs here"

# Our names of providers, as the price list has them.
_LISTED = {
    "openai": "openai",
    "perplexity": "perplexity",
    "anthropic": "anthropic",
    "gemini": "google",
}
_OWN = {"openai": "https://api.openai.com/v1"}  # whose dialect is told by the address
# Tokenizers of large models make at most about one token of a character: Latin text has four or
# more characters a token, Japanese about one. Rounded up for what a chat format adds.
_TOKENS_A_CHARACTER = Decimal("1.25")
_TOKENS_OF_FORMAT = 200


@cache
def price_list() -> str:
    """Return the name and version of the price list, as it is stored with a call."""
    from importlib.metadata import version  # noqa: PLC0415

    return f"genai-prices {version('genai-prices')}"


def estimate(
    provider_model: str, input_chars: int, max_tokens: int, *, base_url: str | None = None
) -> Decimal | None:
    """Return an upper bound of what one call costs, in US dollars; None when no price is known.

    Args:
        provider_model: ``provider:model``, as EKIDEN_MODEL has it.
        input_chars: characters of all that is sent: messages, and the schema as JSON.
        max_tokens: the most tokens that the answer may have, as ``ctx.ask`` is told; what a
            reasoning model may think on top is added here.
        base_url: where it is asked when that is not the provider's own address; then the price is
            looked up by that address.
    """
    name, _, model = provider_model.partition(":")
    name = name.strip().lower()
    if name in AT_HOME:
        return Decimal(0)
    tokens_in = int(input_chars * _TOKENS_A_CHARACTER) + _TOKENS_OF_FORMAT
    if base_url is None and name not in _LISTED:
        return None
    model = model.strip()
    tokens_out = most_tokens(max_tokens, dialect_for(name, base_url or _OWN.get(name, ""), model))
    return _listed_price(model, tokens_in, tokens_out, name=name, base_url=base_url)


def usage_of(
    given: dict[str, Any], *, name: str, model: str, base_url: str, cost_usd: float | None = None
) -> Usage:
    """Return tokens and cost out of the ``usage`` that a provider sent, in any of the spellings.

    Args:
        given: the object, as it came; untrusted.
        name: the provider.
        model: the model that answered.
        base_url: where it was asked: the price list knows providers by their addresses.
        cost_usd: what a call costs when that is known beforehand.
    """
    tokens_in, cached, written = _tokens_in(given)
    tokens_out = _count(given, "completion_tokens", "output_tokens")
    cost, version = cost_usd, _LOCAL
    if cost is None and name in AT_HOME:
        cost = 0.0
    if cost is None:
        cost, version = _stated_cost(given), _STATED
    if cost is None and tokens_in is not None and tokens_out is not None:
        price = _listed_price(
            model, tokens_in, tokens_out, cached=cached, written=written, base_url=base_url
        )
        cost, version = None if price is None else float(price), price_list()
    return Usage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost_usd=cost,
        price_version=None if cost is None else version,
    )


def _tokens_in(given: dict[str, Any]) -> tuple[int | None, int, int]:
    """Return all tokens that went in, those read from a cache and those written to one."""
    total = _count(given, "prompt_tokens")
    if total is not None:
        details = given.get("prompt_tokens_details")
        cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
        return total, cached or 0, 0
    fresh = _count(given, "input_tokens")
    if fresh is None:
        return None, 0, 0
    details = given.get("input_tokens_details")
    if isinstance(details, dict):  # of OpenAI's responses, which count them together
        cached, written = _count(details, "cached_tokens"), _count(details, "cache_write_tokens")
        return fresh, cached or 0, written or 0
    # Anthropic counts the three apart: "input_tokens" are those that no cache had part in.
    cached = _count(given, "cache_read_input_tokens") or 0
    written = _count(given, "cache_creation_input_tokens") or 0
    return fresh + cached + written, cached, written


def _listed_price(
    model: str,
    tokens_in: int,
    tokens_out: int,
    *,
    cached: int = 0,
    written: int = 0,
    name: str = "",
    base_url: str | None,
) -> Decimal | None:
    """Return the price at an address, or of a provider by name; None when it is not on the list."""
    from genai_prices import Usage as Tokens  # noqa: PLC0415  -- late: a long table
    from genai_prices import calc_price  # noqa: PLC0415

    tokens = Tokens(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cache_read_tokens=cached,
        cache_write_tokens=written,
    )
    try:
        if base_url is not None:
            return Decimal(calc_price(tokens, model, provider_api_url=base_url).total_price)
        return Decimal(calc_price(tokens, model, provider_id=_LISTED[name]).total_price)
    except (LookupError, ValueError):
        return None


def _stated_cost(given: dict[str, Any]) -> float | None:
    """Return the cost the server itself states: a number, or Perplexity's object."""
    cost = given.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    return float(cost) if cost is not None and _measured(cost) else None


def _count(given: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = given.get(key)
        if isinstance(value, int) and _measured(value):
            return value
    return None


def _measured(value: Any) -> bool:
    """Whether it is a number that can be meant: JSON brings Infinity and 4,000 digits as well."""
    return isinstance(value, int | float) and value is not True and 0 <= value <= _HIGHEST
