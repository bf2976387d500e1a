"""What calls cost, against the price list that is installed."""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import version

import pytest

from ekiden.providers.prices import estimate, usage_of

OPENAI = "https://api.openai.com/v1"
MILLION = 1_000_000


def priced(usage: dict[str, object], name: str = "openai", model: str = "gpt-5-mini", url=OPENAI):
    return usage_of(usage, name=name, model=model, base_url=url)


def test_a_known_model_is_priced_and_the_version_of_the_list_is_kept():
    usage = priced({"prompt_tokens": MILLION, "completion_tokens": 0})
    assert usage.cost_usd is not None
    assert usage.cost_usd > 0
    assert usage.price_version == f"genai-prices {version('genai-prices')}"


def test_tokens_out_of_a_cache_cost_less():
    cached = {"cached_tokens": MILLION}
    full = priced({"prompt_tokens": MILLION, "completion_tokens": 0}).cost_usd
    less = priced(
        {"prompt_tokens": MILLION, "completion_tokens": 0, "prompt_tokens_details": cached}
    ).cost_usd
    assert 0 < (less or 0) < (full or 0)


def test_anthropics_three_kinds_of_input_are_one_sum_and_three_prices():
    """https://platform.claude.com/docs/en/build-with-claude/prompt-caching"""
    where = {"name": "anthropic", "model": "claude-haiku-4-5", "url": "https://api.anthropic.com"}
    plain = priced({"input_tokens": 3000, "output_tokens": 10}, **where)
    mixed = priced(
        {
            "input_tokens": 1000,
            "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 1000,
            "output_tokens": 10,
        },
        **where,
    )
    assert plain.input_tokens == mixed.input_tokens == 3000
    assert (mixed.cost_usd or 0) == pytest.approx(0.001 + 0.0001 + 0.00125 + 0.00005)


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [("openai", "no-such-model", OPENAI), ("openai", "llama3.2", "http://127.0.0.1:11434/v1")],
)
def test_an_unknown_price_is_none_and_not_zero(name, model, url):
    usage = priced({"prompt_tokens": 1, "completion_tokens": 1}, name, model, url)
    assert (usage.cost_usd, usage.price_version) == (None, None)
    assert (usage.input_tokens, usage.output_tokens) == (1, 1)


@pytest.mark.parametrize("name", ["ollama", "lmstudio", "vllm", "embedded"])
def test_a_model_at_home_costs_nothing(name):
    usage = priced({}, name, "llama3.2", "http://127.0.0.1:11434/v1")
    assert (usage.cost_usd, usage.price_version) == (0.0, "runs here")
    assert usage.input_tokens is None


def test_a_stated_cost_is_believed_before_the_list():
    usage = priced(
        {"prompt_tokens": 1, "completion_tokens": 1, "cost": {"total_cost": 0.25}}, "perplexity"
    )
    assert (usage.cost_usd, usage.price_version) == (0.25, "stated by the provider")


@pytest.mark.parametrize(
    "model",
    ["openai:gpt-5-mini", "anthropic:claude-haiku-4-5", "gemini:gemini-2.5-pro"],
)
def test_an_estimate_is_above_what_the_call_then_costs(model):
    bound = estimate(model, input_chars=4000, max_tokens=500)
    name, _, plain = model.partition(":")
    urls = {
        "openai": OPENAI,
        "anthropic": "https://api.anthropic.com",
        "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    }
    # Japanese: about a token a character.
    cost = priced(
        {"prompt_tokens": 4000, "completion_tokens": 500}, name, plain, urls[name]
    ).cost_usd
    assert bound is not None
    assert cost is not None
    # A reasoning model may think on top: another 4,096 tokens.
    assert (
        Decimal(str(cost))
        < bound
        < (12 if model == "openai:gpt-5-mini" else 3) * Decimal(str(cost))
    )


def test_an_estimate_counts_the_room_that_a_reasoning_model_has_to_think():
    bound = estimate("openai:gpt-5-mini", input_chars=0, max_tokens=100)
    thought = priced({"prompt_tokens": 0, "completion_tokens": 100 + 4096}).cost_usd
    assert bound is not None
    assert thought is not None
    assert bound >= Decimal(str(thought))


def test_an_estimate_counts_what_a_provider_takes_for_the_request_itself():
    bound = estimate("perplexity:sonar", input_chars=0, max_tokens=0)
    assert bound is not None
    assert bound >= Decimal("0.005")


def test_an_estimate_of_an_unknown_model_is_none_and_of_one_at_home_zero():
    assert estimate("openai:no-such-model", 10, 10) is None
    assert estimate("nobody:x", 10, 10) is None
    assert estimate("openai:gpt-5-mini", 10, 10, base_url="http://gpu1:8000/v1") is None
    assert estimate("ollama:llama3.2", 10_000, 10_000) == 0
