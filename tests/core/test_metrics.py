"""The pieces of a window are the window: nothing left out, nothing twice, and few of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ekiden.core.metrics import Width, Window

LENGTH = {
    Width.MINUTE: timedelta(minutes=1),
    Width.HOUR: timedelta(hours=1),
    Width.DAY: timedelta(days=1),
}
MOST = {"15m": 17, "1h": 61, "6h": 66, "24h": 26, "7d": 8, "30d": 31}
NOW = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1)).map(
    lambda at: at.replace(tzinfo=UTC)
)


@given(NOW, st.sampled_from(Window), st.sampled_from([0, 1]))
def test_pieces_cover_the_window_once(now: datetime, window: Window, ago: int):
    since = window.begin(now - ago * window.length)
    until = window.begin(now - (ago - 1) * window.length) if ago else now
    pieces = window.pieces(since, until, open_end=not ago)
    at, rows = since, 0
    for width, begin, end in pieces:
        assert begin == at
        # Sums of this width begin at full units, and none reaches over an end that is not now.
        assert (begin - datetime(1970, 1, 1, tzinfo=UTC)) % LENGTH[width] == timedelta(0)
        whole, rest = divmod(end - begin, LENGTH[width])
        assert not rest or (end == now and not ago)
        rows += whole + bool(rest)
        at = end
    assert at == until
    assert rows <= MOST[window] * (2 if ago else 1)
