"""What the figures say, as sentences, in English and in Japanese."""

from __future__ import annotations

from typing import Any, assert_never

from ekiden.core.alerts import LOOK_BACK, Alert, AlertKind
from ekiden.core.bottlenecks import Bottleneck
from ekiden.core.metrics import Window
from ekiden.core.timing import Kind, Timing

_LITTLE = 0.05  # a change or a share below this is not worth a word

_BEFORE = {
    Window.D7: ("the week before", "前の週"),
    Window.H24: ("the day before", "前の日"),
}


def duration(seconds: float) -> str:
    """Return a duration as English text, to two or three digits."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


def duration_ja(seconds: float) -> str:
    """Return a duration as Japanese text, to two or three digits."""
    number, unit = duration(seconds).split()
    names = {"ms": "ミリ秒", "s": "秒", "min": "分", "h": "時間", "days": "日"}
    return f"{number} {names[unit]}"


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{share * 100:.0f} %"


def of_bottleneck(found: Bottleneck, window: Window) -> dict[str, str]:
    """Say what a step's time goes to, by language."""
    key = found.step.key
    en = [f"Phase {key.phase} {key.step} is {percent(found.share)} of machine time"]
    ja = [f"フェーズ {key.phase} {key.step} が処理時間の {percent(found.share)}"]
    en.append(f"p95 {duration(found.p95_s)}")
    ja.append(f"p95 {duration_ja(found.p95_s)}")
    if found.source is not None:
        slow = found.source
        en.append(f"slowest source {slow.name} (p95 {duration(slow.p95_s)})")
        ja.append(f"最も遅いソースは {slow.name}（p95 {duration_ja(slow.p95_s)}）")
    if found.retries > 0:
        en.append(f"{percent(found.retries)} of its attempts are retries")
        ja.append(f"試行の {percent(found.retries)} は再試行")
    if found.trend is not None:
        before = _BEFORE.get(window, (f"the {window} before", f"その前の {window}"))
        if abs(found.trend) < _LITTLE:
            en.append(f"as long as {before[0]}")
            ja.append(f"{before[1]}と同じ")
        else:
            slower = found.trend > 0
            en.append(
                f"{percent(abs(found.trend))} {'slower' if slower else 'faster'} than {before[0]}"
            )
            ja.append(f"{before[1]}より {percent(abs(found.trend))} {'遅い' if slower else '速い'}")
    return {"en": "; ".join(en) + ".", "ja": "、".join(ja) + "。"}


def of_session(found: Timing, steps: int = 3) -> dict[str, list[str]]:
    """Say where a session's time went, by language; the ``steps`` largest steps."""
    waiting = found.seconds[Kind.QUEUE] + found.seconds[Kind.BACKOFF]
    human = found.seconds[Kind.HUMAN]
    en = [
        f"{duration(found.machine)} of machine time, {duration(waiting)} of waiting, "
        f"{duration(human)} of people."
    ]
    ja = [
        f"処理 {duration_ja(found.machine)}、待ち {duration_ja(waiting)}、"
        f"人の判断 {duration_ja(human)}。"
    ]
    for step in sorted(found.steps, key=lambda s: -s.machine)[:steps]:
        if not step.machine:
            continue
        ours = [f"Phase {step.phase} {step.step} is {percent(step.share)} of machine time"]
        theirs = [f"フェーズ {step.phase} {step.step} が処理時間の {percent(step.share)}"]
        if step.slowest_source is not None:
            name, seconds, _ = step.slowest_source
            ours.append(f"slowest source {name} ({duration(seconds)})")
            theirs.append(f"最も遅いソースは {name}（{duration_ja(seconds)}）")
        if step.repeated:
            ours.append(f"{step.repeated} of its {step.attempts} attempts had to be repeated")
            theirs.append(f"{step.attempts} 回の試行のうち {step.repeated} 回はやり直し")
        if lost := step.seconds.get(Kind.BACKOFF, 0.0) + step.seconds.get(Kind.QUEUE, 0.0):
            ours.append(f"it waited {duration(lost)}")
            theirs.append(f"待ち {duration_ja(lost)}")
        en.append("; ".join(ours) + ".")
        ja.append("、".join(theirs) + "。")
    return {"en": en, "ja": ja}


def told_of(alert: Alert) -> dict[str, Any]:
    """Return an alert as callers, receivers and programs are told of it."""
    return {
        "id": alert.id,
        "kind": alert.kind,
        "flow": alert.flow,
        "sessionId": alert.session_id,
        "phase": alert.phase,
        "step": alert.step,
        "value": round(alert.value, 4),
        "threshold": alert.threshold,
        "raisedAt": alert.raised_at,
        "resolvedAt": alert.resolved_at,
        "message": of_alert(alert),
    }


def of_alert(alert: Alert) -> dict[str, str]:
    """Say what an alert is about, by language."""
    en, ja = _what(alert)
    if alert.resolved_at is None:
        return {"en": f"{en}.", "ja": f"{ja}。"}
    lasted = (alert.resolved_at - alert.raised_at).total_seconds()
    return {
        "en": f"Over after {duration(lasted)}: {en}.",
        "ja": f"解消（{duration_ja(lasted)}後）：{ja}。",
    }


def _what(alert: Alert) -> tuple[str, str]:
    value, limit = alert.value, alert.threshold
    back = LOOK_BACK.total_seconds()
    match AlertKind(alert.kind):
        case AlertKind.ERROR_RATE:
            return (
                f"{percent(value)} of the attempts of flow {alert.flow} went wrong within "
                f"{duration(back)} (limit {percent(limit)})",
                f"フロー {alert.flow} の試行の {percent(value)} が{duration_ja(back)}間に失敗"
                f"（しきい値 {percent(limit)}）",
            )
        case AlertKind.QUEUE_AGE:
            return (
                f"A task has been due for {duration(value)} and no worker takes it "
                f"(limit {duration(limit)})",
                f"実行待ちのタスクが {duration_ja(value)}にわたり取り出されていません"
                f"（しきい値 {duration_ja(limit)}）",
            )
        case AlertKind.STUCK_SESSION:
            return (
                f"Session {alert.session_id} of flow {alert.flow} has stood still for "
                f"{duration(value)} at phase {alert.phase} {alert.step} (limit {duration(limit)})",
                f"フロー {alert.flow} のセッション {alert.session_id} がフェーズ {alert.phase} "
                f"{alert.step} で {duration_ja(value)}にわたり進んでいません"
                f"（しきい値 {duration_ja(limit)}）",
            )
        case AlertKind.BUDGET:
            whose, theirs = (
                (f"its budget for phase {alert.phase}", f"フェーズ {alert.phase} の予算")
                if alert.phase
                else ("its budget", "予算")
            )
            return (
                f"Session {alert.session_id} of flow {alert.flow} has spent {percent(value)} of "
                f"{whose} (limit {percent(limit)})",
                f"フロー {alert.flow} のセッション {alert.session_id} が{theirs}の "
                f"{percent(value)} を使用（しきい値 {percent(limit)}）",
            )
        case AlertKind.WORKERS_LOST:
            return (
                f"{value:.0f} worker{'' if value == 1 else 's'} lost within {duration(back)} "
                f"(limit {limit:.0f})",
                f"{duration_ja(back)}以内にワーカー {value:.0f} 台が応答を停止"
                f"（しきい値 {limit:.0f}）",
            )
        case other:
            assert_never(other)
