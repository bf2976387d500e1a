# ruff: noqa: E501 - sentences stay whole
"""What a good model would answer, in English and in Japanese, and what a hostile one would."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from ekiden.providers.protocol import ModelRequest
from ekiden.search.protocol import Source
from tests.scripted import Said, Streamed

Answers = dict[str, list[dict[str, Any]]]

EN: Answers = {
    "QueriesAnswer": [
        {"queries": ["pour over coffee technique for beginners", "why home coffee tastes bitter"]}
    ],
    "TrendAnswer": [
        {
            "name": "Slow pouring at home",
            "summary": "Home brewers are trading gadgets for patience: a plain kettle, a paper "
            "filter and a pour that takes a whole minute. Threads about it fill up with before-and-"
            "after cups.",
            "why_now": "Grinders got cheap last year, so the pour is the next thing to learn.",
            "sources": [1, 2],
        },
        {
            "name": "Water before beans",
            "summary": "People notice that the same beans taste flat in one city and sweet in "
            "another, and start to talk about hardness, filters and bottled water.",
            "why_now": "Several roasters print a water recipe on the bag now.",
            "sources": [1],
        },
        {
            "name": "The bitter cup, explained",
            "summary": "Bitterness is coming back as a subject: not as a taste to avoid but as a "
            "sign of what went wrong, from water that is too hot to a grind that is too fine.",
            "why_now": "Everyone who started brewing at home last winter has met it by now.",
            "sources": [2, 3],
        },
    ],
    "OwnTrendAnswer": [
        {
            "name": "Coffee as a pause",
            "summary": "A cup made by hand marks the end of one thing and the start of another.",
            "why_now": "More people work where they live and miss the walk to the café.",
        }
    ],
    "CriteriaAnswer": [
        {
            "audience": "People who brew at home, own a kettle and one dripper, and want a better "
            "cup without buying anything.",
            "criteria": [
                "Can it be tried tomorrow morning?",
                "Is there something surprising in it?",
                "Would they send it to the person they share a kitchen with?",
            ],
        }
    ],
    "OpportunityAnswer": [
        {
            "title": "One minute that changes the cup",
            "benefit": "A sweeter coffee tomorrow, with nothing to buy.",
            "reason": "Everybody can try it at once and taste the difference.",
            "score": 9,
        },
        {
            "title": "Your tap is an ingredient",
            "benefit": "They learn why the café tastes different from home.",
            "reason": "Surprising, but it takes a filter to act on it.",
            "score": 6,
        },
        {
            "title": "Read the bitterness",
            "benefit": "A bad cup becomes a hint instead of a disappointment.",
            "reason": "Useful every day, and people like to compare notes.",
            "score": 8,
        },
    ],
    "IdeaAnswer": [
        {
            "angle": "Slowing the pour to a full minute lets the water take the sweetness and leave "
            "the harsh notes behind.",
            "hook": "Your kettle is in a hurry. Your coffee is not.",
            "format": "tip",
        },
        {
            "angle": "Bitter coffee is not strong coffee; it is coffee that was asked too much of.",
            "hook": "Bitter is not strong.",
            "format": "myth",
        },
        {
            "angle": "The morning the kettle broke, a saucepan and patience made the best cup of the "
            "week.",
            "hook": "The best cup I made this week came out of a saucepan.",
            "format": "story",
        },
    ],
    "ConceptAnswer": [
        {
            "outline": [
                "Fast water runs past the coffee instead of through it.",
                "Pour in circles and count to sixty.",
                "Taste it next to yesterday's cup.",
            ],
            "hashtags": ["#coffee", "#pourover", "#slowmorning"],
            "visual": "A thin stream of water from above, steam in side light.",
            "timing": "early morning",
        },
        {
            "outline": [
                "Strong means more coffee; bitter means too much was taken out of it.",
                "Let the water rest for thirty seconds after it boils.",
                "Grind one step coarser and taste again.",
            ],
            "hashtags": ["#coffee", "#coffeemyths"],
            "visual": "Two identical cups, one label each: strong, bitter.",
            "timing": "lunch break",
        },
        {
            "outline": [
                "No kettle, only a saucepan and a spoon.",
                "Spooning the water takes forever, and that is the point.",
                "The cup was sweet enough to drink without milk.",
            ],
            "hashtags": ["#coffee", "#homebrewing"],
            "visual": "A dented saucepan beside a dripper on a wooden board.",
            "timing": "weekend",
        },
    ],
    "VoiceAnswer": [
        {
            "voice": "A neighbour at the counter who has burnt a few cups and says so.",
            "do": "Names one thing to touch, pour or taste in every post.",
            "avoid": "Lecturing, equipment lists and the word perfect.",
        }
    ],
    "PostAnswer": [
        {
            "paragraphs": [
                "Your kettle is in a hurry. Your coffee is not. Tomorrow, pour for a whole minute: "
                "small circles, a thin stream, count to sixty.",
                "Same beans, sweeter cup. How long did yours take?",
            ]
        },
        {
            "paragraphs": [
                "Bitter is not strong. Strong is more coffee. Bitter is coffee that was asked too "
                "much of. Let the water rest thirty seconds after the boil.",
                "Agree, or is bitter the whole point for you?",
            ]
        },
        {
            "paragraphs": [
                "The best cup I made this week came out of a saucepan. The kettle broke, so I "
                "spooned the water over, one slow spoon at a time.",
                "It was sweet. What would you try without your favourite tool?",
            ]
        },
    ],
    "AimAnswer": [
        {
            "goal": "Readers try one slow cup and tell us how it tasted.",
            "cadence": "Two days between the posts, so that there is a morning to try each.",
            "engagement": "Answer every reply with a question about their cup, within the hour.",
        }
    ],
    "SlotAnswer": [
        {
            "day": "Tuesday",
            "hour": 7,
            "why": "The kettle is on and there is a minute to spare.",
            "follow_up": "Ask for a photograph of the second cup.",
        },
        {
            "day": "Thursday",
            "hour": 12,
            "why": "A disagreement goes well with lunch.",
            "follow_up": "Pin the best argument against us.",
        },
        {
            "day": "Saturday",
            "hour": 9,
            "why": "Stories are read when nobody has to leave.",
            "follow_up": "Collect the saucepan stories in one thread.",
        },
    ],
    "ReachAnswer": [
        {"name": "views", "target": 5000, "days": 7, "measure": "The view counter of each post."}
    ],
    "EngagementAnswer": [
        {"name": "replies", "target": 60, "days": 7, "measure": "Replies that describe a cup."}
    ],
    "ResultAnswer": [
        {"name": "new followers", "target": 120, "days": 14, "measure": "Follower count, daily."}
    ],
}

JA: Answers = {
    "QueriesAnswer": [{"queries": ["在宅勤務 集中 休憩", "リモートワーク 雑談 不足"]}],
    "TrendAnswer": [
        {
            "name": "昼休みを守る働き方",
            "summary": "在宅勤務が長くなり、昼食を画面の前で済ませる人が増えた。その反動で、昼だけは席を離れると決めた"
            "人たちの記録が静かに広がっている。",
            "why_now": "出社と在宅の併用が定着し、休み方を自分で決める必要が出てきたから。",
            "sources": [1, 2],
        },
        {
            "name": "五分の雑談タイム",
            "summary": "会議の前の五分をわざと雑談にあてるチームが話題になっている。議題に入るまでの空気が変わるという声が"
            "多い。",
            "why_now": "画面越しの会議に疲れた人が、効率以外の価値を探しはじめたから。",
            "sources": [1],
        },
        {
            "name": "通勤のかわりの散歩",
            "summary": "始業前に近所を一周する「なんちゃって通勤」を続ける人が増えている。頭の切り替えに効くという。",
            "why_now": "季節がよくなり、外に出るきっかけがほしい時期だから。",
            "sources": [1, 2],
        },
    ],
    "OwnTrendAnswer": [
        {
            "name": "仕事机の小さな儀式",
            "summary": "始業と終業に同じ動作をして、気持ちを切り替える人が増えている。",
            "why_now": "家と職場の境目がなくなったから。",
        }
    ],
    "CriteriaAnswer": [
        {
            "audience": "週の半分以上を家で働き、気づくと夕方になっている人。",
            "criteria": [
                "明日の昼に試せるか",
                "読んで思わずうなずくか",
                "同じチームの人に送りたくなるか",
            ],
        }
    ],
    "OpportunityAnswer": [
        {
            "title": "昼だけは席を立つ",
            "benefit": "午後の集中が戻り、夕方の疲れが軽くなる。",
            "reason": "道具も許可もいらず、今日から試せる。",
            "score": 9,
        },
        {
            "title": "会議の前に五分の余白",
            "benefit": "言いにくいことを言える空気が生まれる。",
            "reason": "共感は強いが、一人では始めにくい。",
            "score": 7,
        },
        {
            "title": "朝の一周で仕事の顔になる",
            "benefit": "始業の気持ちがすっと切り替わる。",
            "reason": "続けやすく、写真にもなる。",
            "score": 8,
        },
    ],
    "IdeaAnswer": [
        {
            "angle": "昼食を画面の前で食べない。それだけで午後の集中が変わる。",
            "hook": "お昼、まだ画面の前で食べていますか？",
            "format": "tip",
        },
        {
            "angle": "雑談は仕事の邪魔ではなく、仕事の入り口だ。",
            "hook": "雑談のない会議は、だいたい長い。",
            "format": "myth",
        },
        {
            "angle": "通勤がなくなって失ったのは、電車ではなく切り替えの時間だった。",
            "hook": "家を出て、家に帰る。それが私の通勤です。",
            "format": "story",
        },
    ],
    "ConceptAnswer": [
        {
            "outline": [
                "画面の前の昼食は休憩になっていない。",
                "十五分だけ席を立つ。",
                "午後の最初の一時間をくらべてみる。",
            ],
            "hashtags": ["#在宅勤務", "#昼休み"],
            "visual": "窓辺の小さな弁当と、閉じたノートパソコン。",
            "timing": "lunch break",
        },
        {
            "outline": [
                "議題から始まる会議は本音が出ない。",
                "最初の五分は天気の話でいい。",
                "終わりの時間はむしろ早くなる。",
            ],
            "hashtags": ["#チームづくり", "#会議"],
            "visual": "湯気の立つ湯のみが並んだ画面の四角い窓。",
            "timing": "early morning",
        },
        {
            "outline": [
                "通勤がなくなり、朝と仕事の境目も消えた。",
                "家を出て一周して、家に帰る。",
                "玄関が会社の入り口になる。",
            ],
            "hashtags": ["#リモートワーク", "#朝散歩"],
            "visual": "朝の光の中、同じ玄関を出る足と入る足。",
            "timing": "early morning",
        },
    ],
    "VoiceAnswer": [
        {
            "voice": "少し先に失敗した同僚が、隣の席で話すように。",
            "do": "今日できることを一つだけ言う。",
            "avoid": "説教、効率の自慢、カタカナの専門用語。",
        }
    ],
    "PostAnswer": [
        {
            "paragraphs": [
                "お昼、まだ画面の前で食べていますか？十五分だけ席を立つ。それだけで午後の最初の一時間が違いました。",
                "今日のお昼、どこで食べますか。",
            ]
        },
        {
            "paragraphs": [
                "雑談のない会議は、だいたい長い。最初の五分を天気の話にしたら、終わるのが十分早くなりました。",
                "あなたのチームはどうですか？",
            ]
        },
        {
            "paragraphs": [
                "家を出て、家に帰る。それが私の通勤です。近所を一周すると、玄関が会社の入り口に変わります。",
                "明日の朝、一周してみませんか。",
            ]
        },
    ],
    "AimAnswer": [
        {
            "goal": "読んだ人が一つだけ試し、感想を返してくれること。",
            "cadence": "二日おきに一本。試してから次を読めるように。",
            "engagement": "返信には一時間以内に質問で返す。",
        }
    ],
    "SlotAnswer": [
        {
            "day": "Tuesday",
            "hour": 12,
            "why": "昼食の直前に読める。",
            "follow_up": "食べた場所の写真を募る。",
        },
        {
            "day": "Thursday",
            "hour": 9,
            "why": "最初の会議の前に効く。",
            "follow_up": "反対意見をひとつ固定する。",
        },
        {
            "day": "Saturday",
            "hour": 8,
            "why": "翌週の朝を考える時間。",
            "follow_up": "散歩道の写真をまとめる。",
        },
    ],
    "ReachAnswer": [{"name": "views", "target": 8000, "days": 7, "measure": "各投稿の表示回数。"}],
    "EngagementAnswer": [
        {"name": "replies", "target": 80, "days": 7, "measure": "試した感想の返信数。"}
    ],
    "ResultAnswer": [
        {"name": "new followers", "target": 150, "days": 14, "measure": "フォロワー数を毎日記録。"}
    ],
}

SOURCES = {
    "en": [
        ("Pour-over coffee", "en.wikipedia.org/wiki/Pour-over_coffee", "Pour-over is a brewing "
         "method in which hot water is poured slowly through ground coffee held in a filter."),
        ("Brewing control: what extraction means", "example.org/extraction", "When water passes "
         "too quickly, acids dissolve and sugars stay behind; when too slowly, bitter compounds "
         "follow."),
        ("Bitterness (taste)", "en.wikipedia.org/wiki/Bitterness", "Bitterness is the most "
         "sensitive of the tastes, and many perceive it as sharp or disagreeable."),
    ],
    "ja": [
        ("テレワーク", "ja.wikipedia.org/wiki/テレワーク", "情報通信技術を活用した、時間や場所にとらわれない働き方。"),
        ("休憩時間に関する調査", "example.jp/rest", "在宅勤務者の四割が、昼食を画面の前でとると回答した。"),
        ("散歩と集中力", "example.jp/walk", "短い散歩のあとでは、課題への取りかかりが早くなる。"),
    ],
}  # fmt: skip


class Library:
    """A search that finds what the session's language calls for."""

    name = "examples"

    def __init__(self) -> None:
        self._asked = 0

    async def search(self, query: str, *, limit: int = 5, language: str = "en") -> list[Source]:
        self._asked += 1
        said = SOURCES["en" if query.isascii() else "ja"]
        return [
            Source(
                title=title, url=f"https://{url}?q={self._asked}", snippet=snippet,
                origin="wikipedia-summaries", licence="CC BY-SA 4.0",
            )
            for title, url, snippet in said
        ]  # fmt: skip


def sensible(
    *,
    pieces: int = 14,
    pause: float = 0.0,
    hold: Callable[[ModelRequest], Awaitable[None]] | None = None,
) -> Callable[[ModelRequest], Awaitable[Said]]:
    """Return a script that answers each question in its language, streamed in small pieces.

    Args:
        pieces: characters in a piece.
        pause: seconds between pieces.
        hold: waited for before the answer's last piece.
    """
    counts: dict[tuple[str, str], int] = defaultdict(int)

    async def script(request: ModelRequest) -> Said:
        prompt = " ".join(m.content for m in request.messages)
        language = "ja" if any("\u3040" <= c <= "\u30ff" for c in prompt) else "en"
        said = (JA if language == "ja" else EN)[request.schema_name]
        number = counts[request.schema_name, language]
        counts[request.schema_name, language] += 1
        ideas = (JA if language == "ja" else EN)["IdeaAnswer"]
        if request.schema_name in {"ConceptAnswer", "PostAnswer"}:  # they go on from an idea
            number = next((n for n, i in enumerate(ideas) if i["hook"] in prompt), number)
        text = json.dumps(said[number % len(said)], ensure_ascii=False)
        if hold is not None:
            await hold(request)
        if pause:
            await asyncio.sleep(pause)
        cut = [text[i : i + pieces] for i in range(0, len(text), pieces)]
        return Streamed(pieces=tuple(cut))

    return script


# Each of these must be seen as text, run nothing and load nothing.
HOSTILE = (
    "<script>window.pwned=1</script>",
    '<img src="https://evil.example/x.png" onerror="window.pwned=2">',
    "<svg/onload=window.pwned=3>",
    "![x](https://evil.example/y.png) [y](javascript:window.pwned=4)",
    '"><a href="javascript:window.pwned=5" style="position:fixed;inset:0">z</a>',
    "{{ 7*7 }} {% raw %} ${window.pwned=6}",
    "\u202egnp.exe\u202c pay\u200bpal \u2066hidden\u2069 \ufeff\u00ad",
    "</textarea></pre></details><form action=https://evil.example><button>q",
    "https://evil.example/auto-link",
    "\u0007\u001b[31mred",
)
