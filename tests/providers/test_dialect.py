from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from ekiden.providers.dialect import Dialect, dialect_for, spell, strict_schema
from ekiden.providers.protocol import Message, ModelRequest

OPENAI = "https://api.openai.com/v1"


class Tag(BaseModel):
    name: str = Field(max_length=20, pattern="^#")
    title: str = "untitled"  # also the name of a schema keyword


class Post(BaseModel):
    kind: Literal["short", "long"]
    tags: list[Tag] = Field(max_length=3)


class Anything(BaseModel):
    by_name: dict[str, int]


def request(model: type[BaseModel] | None = Post) -> ModelRequest:
    return ModelRequest(
        messages=(Message(role="user", content="write"),),
        schema=model.model_json_schema() if model else None,
        schema_name="Post 投稿",
        max_tokens=300,
        seed=1,
    )


def test_unknown_servers_get_the_schema_as_it_is():
    body = spell(request(), "llama", dialect_for("ollama", "http://localhost:11434/v1", "llama"))
    assert body["response_format"]["json_schema"]["schema"] == Post.model_json_schema()
    assert "strict" not in body["response_format"]["json_schema"]
    assert (body["max_tokens"], body["seed"], body["temperature"]) == (300, 1, 0.7)


def test_openai_gets_a_strict_schema_with_every_key_required_and_no_others():
    body = spell(request(), "gpt-4.1", dialect_for("openai", OPENAI, "gpt-4.1"))
    described = body["response_format"]["json_schema"]
    assert described["strict"] is True
    tag = described["schema"]["$defs"]["Tag"]
    assert tag["required"] == ["name", "title"]
    assert tag["additionalProperties"] is False
    assert tag["properties"]["name"] == {"pattern": "^#", "type": "string"}
    assert tag["properties"]["title"] == {"type": "string"}
    assert described["schema"]["properties"]["tags"]["maxItems"] == 3
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 300


def test_a_schema_with_free_keys_is_sent_without_strict():
    body = spell(request(Anything), "gpt-4.1", dialect_for("openai", OPENAI, "gpt-4.1"))
    described = body["response_format"]["json_schema"]
    assert described["strict"] is False
    assert described["schema"] == Anything.model_json_schema()


def test_the_schema_itself_is_never_changed():
    schema = Post.model_json_schema()
    strict_schema(schema)
    assert schema == Post.model_json_schema()


def test_reasoning_models_get_room_to_think_and_no_temperature():
    for model in ("gpt-5-mini", "o4-mini", "gpt-5.1"):
        body = spell(request(), model, dialect_for("openai", OPENAI, model))
        assert "temperature" not in body
        assert body["max_completion_tokens"] > 300
    for model in ("gpt-4o", "gpt-5-chat-latest"):
        assert "temperature" in spell(request(), model, dialect_for("openai", OPENAI, model))


def test_the_name_of_a_schema_becomes_an_identifier():
    body = spell(request(), "m", Dialect())
    assert body["response_format"]["json_schema"]["name"] == "Post___"


def test_where_response_format_is_ignored_the_schema_is_said_in_words():
    body = spell(request(), "claude", Dialect(schema_in_prompt=True, sends_seed=False))
    assert "response_format" not in body
    assert "maxItems" in body["messages"][0]["content"]
    assert body["messages"][1]["content"] == "write"


def test_without_a_schema_plain_text_is_asked_for():
    assert "response_format" not in spell(request(None), "m", Dialect())


def test_extra_fields_go_into_every_request():
    assert spell(request(), "m", Dialect(extra={"repeat_penalty": 1.1}))["repeat_penalty"] == 1.1
