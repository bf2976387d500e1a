"""Short texts that are part of a prompt's data, in each language.

They give calls that run side by side different jobs, so that three concepts are three, and not
the same one three times.
"""

from __future__ import annotations

from typing import NamedTuple

from ekiden.flows.viral.answers import EngagementAnswer, KpiAnswer, ReachAnswer, ResultAnswer


class Approach(NamedTuple):
    """What kind of post a concept becomes."""

    name: str  # stored with the concept
    task: str


APPROACHES: dict[str, tuple[Approach, Approach, Approach]] = {
    "en": (
        Approach("How-to", "teach one small thing the reader can do today"),
        Approach("Opinion", "take a clear side where people disagree, and invite replies"),
        Approach("Story", "show one everyday moment the reader recognises, with a turn at the end"),
    ),
    "ja": (
        Approach("実用", "読者が今日すぐ試せる小さなコツをひとつ教える"),
        Approach("意見", "意見の分かれる点ではっきり立場を示し、返信を誘う"),
        Approach("物語", "読者が「あるある」と思う日常の一場面を描き、最後に気づきを置く"),
    ),
}

PLACES: dict[str, tuple[str, str, str]] = {
    "en": ("the first of three posts", "the second of three posts", "the last of three posts"),
    "ja": ("3本のうち最初の投稿", "3本のうち2番目の投稿", "3本のうち最後の投稿"),
}

STAGES: dict[str, tuple[tuple[type[KpiAnswer], str], ...]] = {
    "en": (
        (ReachAnswer, "how many people see the posts"),
        (EngagementAnswer, "how many people react to the posts"),
        (ResultAnswer, "how many people do what the posts are for"),
    ),
    "ja": (
        (ReachAnswer, "投稿がどれだけの人の目に触れたか"),
        (EngagementAnswer, "投稿にどれだけの反応があったか"),
        (ResultAnswer, "投稿の目的とした行動がどれだけ起きたか"),
    ),
}

_JAPANESE = {
    "tip": "コツ",
    "question": "質問",
    "story": "物語",
    "list": "リスト",
    "comparison": "比較",
    "myth": "思い込みを正す",
    "behind the scenes": "舞台裏",
    "early morning": "早朝",
    "lunch break": "昼休み",
    "after work": "仕事帰り",
    "late evening": "夜遅く",
    "weekend": "週末",
    "Monday": "月曜日",
    "Tuesday": "火曜日",
    "Wednesday": "水曜日",
    "Thursday": "木曜日",
    "Friday": "金曜日",
    "Saturday": "土曜日",
    "Sunday": "日曜日",
    "views": "表示回数",
    "people reached": "リーチ数",
    "profile visits": "プロフィール訪問",
    "likes": "いいね",
    "replies": "返信",
    "shares": "共有",
    "saves": "保存",
    "new followers": "新規フォロワー",
    "link clicks": "リンクのクリック",
    "direct messages": "ダイレクトメッセージ",
    "sign-ups": "登録",
    "orders": "注文",
}


def said_in(language: str, choice: str) -> str:
    """Return one of the closed choices of ``answers.py`` as people read it."""
    return _JAPANESE[choice] if language == "ja" else choice


def moment_in(language: str, day: str, hour: int) -> str:
    """Return a day and an hour as people read them."""
    return f"{said_in(language, day)} {hour}:00" if language == "ja" else f"{day} {hour:02}:00"


def target_in(language: str, target: int, days: int) -> str:
    """Return a number to reach and the time for it as people read them."""
    if language == "ja":
        return f"{days}日間で{target:,}"
    return f"{target:,} in {days} day{'' if days == 1 else 's'}"
