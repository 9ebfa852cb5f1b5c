"""Sentences such as people search pictures with, for collections that hold no captions of their own.

They are composed, not collected: things, attributes, numbers, relations and places in the forms that queries take,
from two words to a whole sentence. An index is tuned and measured with their embeddings, so what matters is that they
are spread over what can be pictured, and look to a text encoder like queries.
"""

from __future__ import annotations

import numpy as np

# Beings that do something, and what they may be doing.
_PEOPLE = """man, woman, boy, girl, child, baby, couple, family, crowd, old man, old woman, teenager, cyclist, surfer,
skier, climber, dancer, musician, guitarist, drummer, singer, cook, waiter, farmer, fisherman, worker, builder,
painter, photographer, teacher, student, nurse, doctor, soldier, police officer, firefighter, runner, swimmer,
football player, basketball player, tennis player, golfer, boxer, skateboarder, rider, tourist, shopper, bride, groom,
priest, clown"""
_DOINGS = """running, walking, sitting, standing, smiling, laughing, sleeping, jumping, dancing, reading a book,
talking, eating, drinking coffee, cooking, waving, pointing, looking at the camera, looking away, taking a photo,
holding a cup, carrying a bag, wearing a hat, wearing sunglasses, wearing a red jacket, riding a bicycle, riding a
horse, playing guitar, playing football, playing chess, using a laptop, talking on the phone, painting a wall, washing
dishes, climbing a rock, swimming, diving, throwing a ball, holding an umbrella, pushing a pram, waiting for a
train"""
_ANIMALS = """dog, cat, horse, cow, sheep, goat, pig, rabbit, elephant, lion, tiger, bear, polar bear, panda, zebra,
giraffe, monkey, gorilla, wolf, fox, deer, squirrel, hedgehog, mouse, bat, whale, dolphin, seal, shark, goldfish,
octopus, crab, turtle, frog, snake, lizard, crocodile, eagle, owl, parrot, penguin, duck, swan, flamingo, chicken,
pigeon, butterfly, bee, spider, beetle, snail, kangaroo, camel, donkey, puppy, kitten"""
_MOVES = """running, sleeping, eating, drinking water, swimming, jumping, looking out of a window, playing with a
ball, lying on its back, catching a frisbee, chasing another one, in a cage, with its young, with its mouth open, on a
leash, wet and shaking, hiding, yawning, climbing a tree, crossing a road"""
_THINGS = """car, old car, sports car, bus, tram, train, steam engine, truck, fire engine, tractor, bicycle,
motorcycle, scooter, aeroplane, helicopter, hot air balloon, sailing boat, ferry, canoe, rocket, bridge, tower,
castle, church, temple, mosque, skyscraper, house, cottage, barn, lighthouse, windmill, fountain, statue, tent, door,
window, staircase, balcony, fence, bench, street lamp, traffic light, road sign, market stall, shop window, chair,
armchair, sofa, table, bed, lamp, mirror, clock, bookshelf, piano, guitar, violin, drum kit, trumpet, camera, laptop,
keyboard, mobile phone, television, radio, microscope, telescope, globe, map, book, newspaper, pencil, pair of
scissors, hammer, toolbox, knife, fork, spoon, plate, bowl, cup, teapot, bottle, wine glass, candle, basket, suitcase,
backpack, umbrella, hat, shoe, boot, dress, shirt, tie, ring, necklace, watch, pair of glasses, ball, kite, doll,
teddy bear, toy train, chess board, medal, flag, balloon, gift, pizza, hamburger, sandwich, salad, soup, sushi, bowl
of noodles, steak, fried egg, loaf of bread, croissant, birthday cake, doughnut, ice cream, apple, banana, orange,
lemon, strawberry, pineapple, watermelon, grape, tomato, carrot, pumpkin, mushroom, rose, sunflower, tulip, cactus,
palm tree, oak, fir tree, leaf, waterfall, mountain, volcano, glacier, iceberg, rainbow, full moon, satellite picture,
poster, diagram, drawing, painting, tattoo, logo"""
_PLACES = """in the snow, on a beach, in a park, in a forest, in the mountains, by a lake, on a river, at sea, under
water, in the desert, in a meadow, in a garden, on a farm, in a city street, on a motorway, at a crossing, in a
tunnel, on a bridge, at a railway station, at an airport, in a harbour, in a car park, on a rooftop, in a kitchen, in
a living room, in a bedroom, in a bathroom, in an office, in a classroom, in a library, in a museum, in a church, in a
hospital, in a factory, in a workshop, in a shop, at a market, in a restaurant, in a cafe, in a bar, on a stage, at a
concert, in a stadium, on a football pitch, in a swimming pool, in a gym, at a wedding, at a birthday party, at a
fair, in the rain, in the fog, at sunset, at dawn, at night, under a blue sky, in front of a white wall, seen from
above, seen from behind"""
_COLOURS = "red, blue, green, yellow, black, white, brown, grey, orange, pink, purple, golden, silver, turquoise"
_QUALITIES = """small, big, old, new, broken, shiny, wooden, rusty, empty, colourful, striped, dirty, beautiful,
round, tall, wet, lonely, famous, toy, antique, modern, ruined, half-eaten, frozen, burning, huge"""
_NUMBERS = "two, three, four, five, several, many"
_RELATIONS = """next to, in front of, behind, on top of, under, between the trees and, beside, leaning against, near,
inside, far away from, and, without, full of sunlight next to, surrounded by mist near"""
_STYLES = """a photo of, a close-up of, a black and white photo of, an aerial view of, a blurry picture of, a drawing
of, a watercolour of, a painting of, a sketch of, a cartoon of, an old photograph of, a silhouette of, a portrait of,
a pile of things with, the shadow of, a selfie with, a poster with, a wide shot of, a night shot of, a detail of"""
_MOODS = """loneliness, joy, celebration, winter, summer holiday, autumn colours, spring, storm, silence, childhood,
friendship, teamwork, poverty, luxury, healthy food, street life, rush hour, traffic jam, sports, victory, defeat,
architecture, abstract pattern, texture, minimalism, wildlife, night sky, harvest, construction site, science, old
age, music festival, protest, religion, romance, adventure, danger, chaos, order, reflection, symmetry, morning
light"""


def synthetic_queries(count: int = 2000, *, seed: int = 0) -> list[str]:
    """Compose sentences that differ from one another.

    Args:
        count: How many, at least 0 and at most 20,000.
        seed: Another one gives other sentences.

    Returns:
        The sentences in no order, the same ones for the same count and seed.

    Example:
        >>> len(set(synthetic_queries(500)))
        500
    """
    rng = np.random.default_rng(seed)
    made: dict[str, None] = {}
    while len(made) < min(count, 20_000):
        made[_sentence(rng)] = None
    return list(made)


def _sentence(rng: np.random.Generator) -> str:
    form = int(rng.integers(10))
    if form == 0:
        return f"{_article(_some(rng, _PEOPLE))} {_some(rng, _DOINGS)}"
    if form == 1:
        return f"{_article(_some(rng, _PEOPLE))} {_some(rng, _DOINGS)} {_some(rng, _PLACES)}"
    if form == 2:
        return f"{_article(_some(rng, _ANIMALS))} {_some(rng, _MOVES)} {_some(rng, _PLACES)}"
    if form == 3:
        return f"{_article(_some(rng, _COLOURS) + ' ' + _some(rng, _THINGS))} {_some(rng, _PLACES)}"
    if form == 4:
        return f"{_some(rng, _NUMBERS)} {_plural(_some(rng, _ANIMALS, _PEOPLE, _THINGS))} {_some(rng, _PLACES)}"
    if form == 5:
        first = _article(_some(rng, _QUALITIES) + " " + _some(rng, _THINGS))
        return f"{first} {_some(rng, _RELATIONS)} {_article(_some(rng, _THINGS, _ANIMALS))}"
    if form == 6:
        return f"{_some(rng, _STYLES)} {_article(_some(rng, _THINGS, _ANIMALS, _PEOPLE))}"
    if form == 7:
        # As people type: a few words without articles.
        return f"{_some(rng, _QUALITIES, _COLOURS)} {_some(rng, _THINGS, _ANIMALS)}"
    if form == 8:
        return f"{_some(rng, _MOODS)} {_some(rng, _PLACES)}"
    owner = f"{_article(_some(rng, _PEOPLE))} {_some(rng, _DOINGS)}"
    return f"{owner} while {_article(_some(rng, _ANIMALS))} is watching {_some(rng, _PLACES)}"


def _some(rng: np.random.Generator, *lists: str) -> str:
    words = [word for text in lists for word in text.split(",")]
    return " ".join(words[int(rng.integers(len(words)))].split())


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _plural(noun: str) -> str:
    irregular = {"man": "men", "woman": "women", "child": "children", "wolf": "wolves", "mouse": "mice"}
    irregular |= {"sheep": "sheep", "deer": "deer", "goldfish": "goldfish", "knife": "knives", "leaf": "leaves"}
    head, _, rest = noun.partition(" of ")
    before, _, last = head.rpartition(" ")
    if last in irregular:
        last = irregular[last]
    elif last.endswith(("s", "sh", "ch", "x")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith("man"):
        last = last[:-3] + "men"
    else:
        last += "s"
    return f"{before} {last}".strip() + (f" of {rest}" if rest else "")
