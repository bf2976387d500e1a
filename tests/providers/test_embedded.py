"""The real model in its real process: that it answers, and that no process is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from ekiden.errors import ModelRefused, ModelUnavailable
from ekiden.providers import models
from ekiden.providers.embedded import EmbeddedModel
from ekiden.providers.models import pull_embedded_model
from ekiden.providers.protocol import Message, ModelRequest

pytestmark = pytest.mark.model

OTHER_USER = """
import asyncio, sys
from pathlib import Path
from ekiden.providers.embedded import EmbeddedModel

async def main():
    model = EmbeddedModel(Path(sys.argv[1]))
    print((await model.start()).pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Idea(BaseModel):
    """Flat and bounded, which is what so small a model can do."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=60)
    hashtags: list[str] = Field(max_length=3)


def ask(text: str, *, seed: int = 1, max_tokens: int = 300, schema: bool = False) -> ModelRequest:
    return ModelRequest(
        messages=(Message(role="user", content=text),),
        schema=Idea.model_json_schema() if schema else None,
        max_tokens=max_tokens,
        seed=seed,
    )


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return False
    # A zombie has ended (whoever inherited it has not looked yet) once its last thread has.
    return state != "Z" or threads > 1


async def gone(pid: int) -> float:
    """Wait until the process has ended; return how long that took."""
    start = time.monotonic()
    while is_running(pid):
        assert time.monotonic() - start < 10, f"{pid} is still running"
        await asyncio.sleep(0.002)
    return time.monotonic() - start


@pytest.fixture(scope="session")
def model_file(request) -> Path:
    """The model, fetched once and kept in pytest's cache."""
    return pull_embedded_model(Path(request.config.cache.mkdir("embedded-model")))


@pytest.fixture
def home(tmp_path, model_file) -> Path:
    """A home of its own for each test, so that each has a server of its own."""
    place = tmp_path / "models" / models.FILE_NAME
    place.parent.mkdir()
    place.symlink_to(model_file)
    return tmp_path


@pytest.fixture
async def model(home) -> AsyncIterator[EmbeddedModel]:
    made = EmbeddedModel(home)
    yield made
    await made.close()


@contextlib.contextmanager
def other_user(home: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that uses the model; and the server's pid as it sees it."""
    command = [sys.executable, "-c", OTHER_USER, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


async def test_eight_of_eight_answers_fit_the_schema(model):
    async def idea(seed: int) -> Idea:
        request = ask(f"One idea for a post about tea, number {seed}.", seed=seed, schema=True)
        heard: list[str] = []
        raw = await model.send(request, on_text=heard.append)
        answer = model.read(raw)
        assert 0 < (raw.first_token or 0) < (raw.took or 0)
        assert answer.usage.price_version == "runs here"
        assert "".join(heard) == answer.text
        assert answer.finish_reason == "stop"
        assert answer.model == "smollm2"
        assert answer.usage.cost_usd == 0
        assert answer.usage.output_tokens
        return Idea.model_validate_json(answer.text)

    ideas = await asyncio.gather(*(idea(seed) for seed in range(8)))
    assert len({found.title for found in ideas}) > 1  # the seed is a different dice


async def test_plain_text_is_cut_at_max_tokens_and_says_so(model):
    answer = model.read(await model.send(ask("Tell a long story.", max_tokens=12)))
    assert answer.finish_reason == "length"
    assert answer.usage.output_tokens == 12


async def test_a_prompt_that_is_too_long_is_refused(model):
    with pytest.raises(ModelRefused, match="context"):
        await model.send(ask("tea " * 6000))


async def test_the_server_dies_with_the_kill_9_of_its_only_user(home):
    with other_user(home) as (user, server):
        assert is_running(server)
        user.send_signal(signal.SIGKILL)
        assert await gone(server) < 2


async def test_processes_share_one_server_and_it_survives_the_one_that_started_it(home, model):
    with other_user(home) as (user, server):
        assert (await model.start()).pid == server
        user.send_signal(signal.SIGKILL)
        user.wait()
        await model.send(ask("Hello", max_tokens=4))
        assert (await model.start()).pid == server
    await model.close()
    await gone(server)


async def test_many_first_calls_at_once_start_one_server(home):
    several = [EmbeddedModel(home) for _ in range(4)]
    servers = await asyncio.gather(*(each.start() for each in several))
    assert len({server.pid for server in servers}) == 1
    for each in several[:-1]:
        await each.close()
    assert is_running(servers[0].pid)
    await several[-1].close()
    await gone(servers[0].pid)


async def test_a_server_that_died_is_replaced_before_the_next_call(model):
    first = await model.start()
    os.kill(first.pid, signal.SIGKILL)
    await gone(first.pid)
    assert model.read(await model.send(ask("Hello", max_tokens=4))).usage.output_tokens == 4
    assert (await model.start()).pid != first.pid


async def test_a_server_that_dies_in_a_call_makes_the_call_unavailable(model):
    server = await model.start()
    talking = asyncio.Event()
    request = ask("Tell a long story.", max_tokens=3000)
    asking = asyncio.ensure_future(model.send(request, on_text=lambda _: talking.set()))
    await asyncio.wait_for(talking.wait(), 30)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ModelUnavailable, match="the next call starts it again"):
        await asking


async def test_it_can_be_used_again_after_close(model):
    first = await model.start()
    await model.close()
    await gone(first.pid)
    assert (await model.start()).pid != first.pid


async def test_other_users_of_the_machine_cannot_ask_without_the_key(model):
    server = await model.start()
    assert (os.stat(model._locks().alive).st_mode & 0o077) == 0  # noqa: PTH116
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", data=b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(urllib.request.urlopen, request)
    caught.value.close()
    assert caught.value.code == 401


async def test_the_servers_process_sees_no_keys(model, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-native-code")
    server = await model.start()
    seen = await asyncio.to_thread(Path(f"/proc/{server.pid}/environ").read_bytes)
    assert b"PATH=" in seen
    assert b"not-for-native-code" not in seen


async def test_a_file_that_is_no_model_is_said_not_to_start(tmp_path):
    place = tmp_path / "models" / models.FILE_NAME
    place.parent.mkdir()
    with place.open("wb") as file:
        file.truncate(models.SIZE)
    model = EmbeddedModel(tmp_path)
    with pytest.raises(ModelUnavailable, match="did not start"):
        await model.start()
    await model.close()
