"""``run``, ``resume``, ``watch`` and ``demo``: one session, in this terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ekiden.cli import exits

_RUN_EPILOG = """\b
A person at the gates (asks in this terminal):
  ekiden run viral --theme "remote work" --platform Instagram
\b
Nobody at the gates:
  ekiden run viral --theme "remote work" --auto-approve
\b
For programs: one JSON object on stdout; stops at the first gate with exit code 3:
  ekiden run viral --theme "remote work" --json </dev/null
  ekiden sessions approve ID && ekiden resume ID --auto-approve --json
\b
Any flow, any input:
  ekiden run research --flow my_flows:research --input '{"question": "..."}'
\b
Exit codes: 0 completed, 1 failed, 2 wrong usage or settings, 3 stopped at a gate.
Ctrl-C leaves the session as it is; ekiden resume ID goes on with it."""

_RESUME_EPILOG = """\b
A session that failed, was paused, was approved elsewhere, or lost its worker goes on here:
  ekiden resume 0199f3a2-...
  ekiden resume 0199f3a2-... --auto-approve --json"""

AutoApprove = Annotated[
    bool, typer.Option("--auto-approve", help="Pass every gate without asking; each is printed.")
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")
]
Flows = Annotated[
    list[str] | None,
    typer.Option("--flow", metavar="MODULE:NAME", help="A flow of your own; may be repeated."),
]
SessionId = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=_RUN_EPILOG,
        short_help="Run one session here; asks at each gate.",
        context_settings={"ignore_unknown_options": True},
    )(run)
    app.command(epilog=_RESUME_EPILOG, short_help="Go on with a session here.")(resume)
    app.command(short_help="Follow a session until it stops.")(watch)
    app.command(short_help="From a theme to three posts, nothing set up.")(demo)


def run(  # noqa: PLR0917 - typer calls it by name
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FLOW [--FIELD VALUE]",
            help="The flow, and the fields of its input as options.",
        ),
    ],
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="The whole input as JSON.")
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option(help="A file that holds the input as JSON.")
    ] = None,
    flow: Flows = None,
    title: Annotated[str | None, typer.Option(help="What people see; else the theme.")] = None,
    auto_approve: AutoApprove = False,
    json: Json = False,
) -> None:
    """Run one session of FLOW here, with live progress; asks at each gate."""
    from ekiden.cli import runner
    from ekiden.cli.fields import split_words

    name, fields = split_words(words)
    if name is None:
        exits.usage("Say which flow: ekiden run FLOW, e.g. ekiden run viral --theme coffee")
    references = list(flow or [])
    if ":" in name:
        references.append(name)
    exits.leave(
        runner.run(
            runner.Order(
                flow=name,
                fields=fields,
                input_text=input_,
                input_file=input_file,
                references=references,
                title=title,
            ),
            auto_approve=auto_approve,
            machine=json,
        )
    )


def resume(
    session_id: SessionId,
    flow: Flows = None,
    auto_approve: AutoApprove = False,
    json: Json = False,
) -> None:
    """Go on with a session here: failed, paused, held, or left behind."""
    from ekiden.cli import runner

    exits.leave(runner.resume(session_id, flow or [], auto_approve=auto_approve, machine=json))


def watch(session_id: SessionId, json: Json = False) -> None:
    """Follow a session that runs elsewhere until it stops; exits as run does."""
    from ekiden.cli import runner

    exits.leave(runner.watch(session_id, machine=json))


def demo(
    theme: Annotated[str, typer.Option(help="What the posts are about.")] = "remote work",
    language: Annotated[str, typer.Option(help="en or ja.")] = "en",
) -> None:
    """From a theme to three posts, with nothing set up: database and model come along."""
    from ekiden.cli import runner

    fields: list[Any] = ["--theme", theme, "--language", language]
    exits.leave(runner.demo(fields))
