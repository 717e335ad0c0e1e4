"""Texts of many kinds, plain and hostile."""
# ruff: noqa: RUF001  look-alikes are the point

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st

PROSE = [
    "a photo of a cat asleep on the red sofa, don't wake it",
    "the quick brown fox jumps over 13 lazy dogs; they're fine, we've checked, i'll bet",
    "ein großer Hund läuft über die Straße",
    "une photo d'un café à l'ombre d'un chêne",
    "una niña come una manzana en la plaza",
    "фотография красного круга над синим квадратом",
    "μια φωτογραφία ενός μεγάλου σκύλου στους δρόμους",
    "赤い丸と青い四角の写真",
    "一只猫坐在沙发上的照片",
    "صورة قطة على الأريكة",
    "תמונה של חתול על הספה",
    "สุนัขสีดำวิ่งบนหาด",
    "एक बिल्ली की तस्वीर",
    "소파 위의 고양이 사진",
    "ảnh một con mèo nằm trên ghế",
]

HARD = {
    "empty": "",
    "blank": " \t\n ",
    "every white space": "a b\u1680c\u2003d\u2028e\u2029f\u202fg\u205fh\u3000i\xa0j\x85k\x0bl\x0cm",
    "zero width": "zero\u200bwidth\u200cjoin\u200der\ufeff",
    "controls": "bell\x07 null\x00 escape\x1b[0m unit\x1funder",
    "case": "ALL CAPS and MiXeD",
    "final sigma": "ΟΔΥΣΣΕΥΣ ΣΑΣ Σ ΑΣ. ὈΔΥΣΣΕΎΣ",
    "Turkish": "İstanbul'da ISPARTA ıslak",
    "German": "STRASSE Straße ẞ",
    "ligatures": "ﬁne ﬂow ﬃ ﬆ Ǆ ǅ ǆ Ĳ",
    "wide and circled": "Ｆｕｌｌ ＷＩＤＴＨ １２３ ① Ⅻ ½ ²",
    "combining": "e\u0301 é n\u0303 a\u0328\u0301 q\u0307\u0323 \u0301alone",
    "hangul": "\u1112\u1161\u11ab 한",
    "Zalgo": "h" + "\u0300\u0321\u0334\u0489" * 8 + "i",
    "emoji": "😀👍🏽👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈🇩🇪🇫🇷1\ufe0f\u20e3☕\ufe0f",
    "entities": "fish &amp; chips &lt;3 &quot;hot&quot; &#233; &#x1F600; &eacute;",
    "entities twice": "&amp;amp; &amp;lt;b&amp;gt; &amp;#233;",
    "entities beside a tag": "<b>caf&eacute;</b> e&#769; &amp;#x301; &nbsp;",
    "broken entities": "&; &#; &#x; &#xD800; &#1114112; &nosuch; &amp",
    "mojibake": "Ã©tÃ© â€œquotedâ€\x9d schÃ¶n ðŸ˜€ RÃ©sumÃ©",
    "curly": "it’s “so” ‘fine’ — ok… don´t",
    "contractions": "it's IT'S we'Re 'twas y'all'd've rock'n'roll ''s ' s",
    "long s": "it'ſ Congreſs",
    "iota subscript": "\u0345 ᾳ ΑΙ ᾼ α\u0345β",
    "numbers": "3.14159 1,000,000 2026-11-30 10e-5 0x1F ४२ ٤٢",
    "punctuation": "!!! ... ?! --- ### @user #tag $5 50% a_b c++ <> || ~~ ``` \\",
    "address": "https://example.com/a?b=c&d=e#f mail@example.com",
    "long word": "a" * 60 + "b" * 60,
    "rare": "𝒽𝑒𝓁𝓁𝑜 𐍈 𓀀 𝟙𝟚 ﷽",
    "private and unassigned": "\ue000 \uf8ff \U000f0000",
    "direction": "abc \u202eRTL\u202c עברית abc",
}

# Characters that every library's Unicode tables know, by Python's, which are the oldest here.
KNOWN = [
    chr(code)
    for code in range(0x30000)
    if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")
]

_MARKUP = ["&amp;", "&lt;", "&#769;", "&#x301;", "&eacute;", "&#", ";", "<", ">", "&amp;#769;"]
_QUOTES = ["'s", "'S", "'ſ", "'", "'t", "'RE", "'ll", "’", "ſ", "K", "\u0345", "İ", "Σ", "Ά"]
_SPACES = list(" \t\n\x0b\x0c\r\x1c\x1f\x85\xa0\u2028\u3000\u200b\ufeff")
_MOJIBAKE = [*"ÃÂâ€œ™ðŸ˜\x9d\xa0éí", "Ã©", "â€œ"]

random_texts = st.one_of(
    st.text(st.sampled_from(KNOWN), max_size=40),
    st.text(st.sampled_from(KNOWN[:0x250]), max_size=60),
    *(
        st.lists(st.sampled_from([*parts, "a", "E", "x1", " "]), max_size=25).map("".join)
        for parts in (_MARKUP, _QUOTES, _SPACES, [*_MARKUP, *_MOJIBAKE, *_QUOTES])
    ),
)
