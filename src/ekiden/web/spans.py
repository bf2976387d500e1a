"""Times and amounts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from ekiden.web.texts import Speech

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def iso(moment: datetime) -> str:
    """Return a moment for ``<time datetime>``: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def exact(moment: datetime) -> str:
    """Return a moment as text: UTC until the browser shows it in the viewer's zone."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(moment: datetime, now: datetime, t: Speech) -> str:
    """Return how long ago a moment was, or how soon it is, in one unit."""
    past = (now - moment).total_seconds()
    size = abs(past)
    if size < 5:
        return t("time.now")
    unit, seconds = next(u for u in _UNITS if size >= u[1])
    count = int(size // seconds)
    return t(f"time.{unit}-ago" if past > 0 else f"time.in-{unit}", n=count)


def lasting(seconds: float | None, t: Speech) -> str:
    """Return a duration in one or two units."""
    if seconds is None:
        return "–"
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return t("time.seconds", n=f"{seconds:.1f}")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return t("time.days", d=days, h=hours)
    if hours:
        return t("time.hours", h=hours, m=minutes)
    return t("time.minutes", m=minutes, s=rest) if rest else t("time.whole-minutes", m=minutes)


def dollars(amount: float | Decimal | None) -> str:
    """Return a cost; cents are too coarse for one call."""
    if amount is None:
        return "–"
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"
