"""A scene in, a caption out: what is said of it, and in which of many phrasings."""

from __future__ import annotations

from random import Random

from diptych_export.data.scenes import OPPOSITE, Pair, Relation, Scene, Thing

_PHRASES: dict[Relation, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
_PLAINLY: dict[Relation, str] = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
_ENDS: dict[Relation, str] = {
    "left": "on the left",
    "right": "on the right",
    "above": "at the top",
    "below": "at the bottom",
}
_SIZES = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big", "huge"),
}
_FRAMES = (
    "a photo of {}",
    "a picture of {}",
    "a drawing of {}",
    "an image of {}",
    "there is {}",
    "this is {}",
    "we see {}",
)
_FRAMED = 0.35  # of captions; the rest are bare
_ON_BACKGROUND = 0.12  # of captions, where the background has a name


def single(rng: Random, scene: Scene, *, size: bool = False) -> str:
    """Words for a scene of one thing; `size` forces its size to be named."""
    thing = scene.things[0]
    if not size and rng.random() < 0.12:
        return _sentence(rng, thing)
    sized = size or rng.random() < 0.15
    return _finished(rng, scene, _noun(rng, thing, sized))


def partly(rng: Random, scene: Scene, *, colour: bool) -> str:
    """Words that tell only the colour of a scene's one thing, or only its shape."""
    words = scene.things[0].pair[0 if colour else 1]
    nouns = ("something {}", "{a} thing", "{a} shape") if colour else ("{a}", "{a} shape", "{}")
    text = rng.choice(nouns).format(words, a=with_article(words))
    return rng.choice(_FRAMES).format(text) if rng.random() < _FRAMED else text


def placed(rng: Random, scene: Scene) -> str:
    """Words for a scene of one thing that say on which side of the picture it is."""
    assert scene.relation is not None
    noun = _noun(rng, scene.things[0], rng.random() < 0.1)
    return _finished(rng, scene, f"{noun} {_ENDS[scene.relation]}")


def both(rng: Random, scene: Scene) -> str:
    """Words that name the two things and leave open where they lie."""
    first, second = rng.sample(scene.things, 2)
    a, b = _noun(rng, first), _noun(rng, second)
    return _finished(rng, scene, rng.choice((f"{a} and {b}", f"{a} with {b}", f"{a} next to {b}")))


def related(rng: Random, scene: Scene) -> str:
    """Words that say where one of the two things lies, seen from either of them."""
    assert scene.relation is not None
    first, second = scene.things
    relation = scene.relation
    if rng.random() < 0.5:
        first, second, relation = second, first, OPPOSITE[relation]
    sized = rng.random() < 0.1
    a, b = _noun(rng, first, sized), _noun(rng, second, sized)
    phrase = rng.choice(_PHRASES[relation])
    back = rng.choice(_PHRASES[OPPOSITE[relation]])
    plain = f"{a} {phrase} {b}"
    return _finished(
        rng,
        scene,
        rng.choice(
            (
                plain,
                plain,
                plain,
                f"{a} is {phrase} {b}",
                f"{a} with {b} {back} it",
                f"{a} {_ENDS[relation]} and {b} {_ENDS[OPPOSITE[relation]]}",
                f"{a} {_ENDS[relation]} and {b} {_ENDS[OPPOSITE[relation]]}",
            )
        ),
    )


def plain(pair: Pair) -> str:
    """The words a label set would use: "a red circle"."""
    return with_article(" ".join(pair))


def stated(scene: Scene, *, reverse: bool = False) -> str:
    """One plain sentence on two things: "a red circle above a blue square". Or the reverse."""
    assert scene.relation is not None
    relation = OPPOSITE[scene.relation] if reverse else scene.relation
    first, second = (plain(thing.pair) for thing in scene.things)
    return f"{first} {_PLAINLY[relation]} {second}"


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _noun(rng: Random, thing: Thing, sized: bool = False) -> str:
    colour, shape = thing.pair
    words = f"{colour} {shape}"
    if sized:
        words = f"{rng.choice(_SIZES[thing.size])} {words}"
    kind = rng.random()
    if kind < 0.70:
        return with_article(words)
    return f"the {words}" if kind < 0.85 else words


def _sentence(rng: Random, thing: Thing) -> str:
    colour, shape = thing.pair
    return rng.choice(
        (
            f"{with_article(shape)} that is {colour}",
            f"the {shape} is {colour}",
            f"{with_article(shape)} in {colour}",
            f"{colour} {shape}",
        )
    )


def _finished(rng: Random, scene: Scene, words: str) -> str:
    if scene.background_name and rng.random() < _ON_BACKGROUND:
        words = f"{words} on {with_article(scene.background_name)} background"
    if rng.random() < _FRAMED:
        words = rng.choice(_FRAMES).format(words)
    return words + rng.choice(("", "", "", "."))
