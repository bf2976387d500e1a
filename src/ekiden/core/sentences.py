"""What the figures say, as sentences, in English and in Japanese."""

from __future__ import annotations

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
