"""The words that the rule chunker knows: closed classes of English, and the words that captions use most."""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _set("a an the this that these those some any no every each either neither another both all what")
POSSESSIVES = _set("my your his her its our their")
DEFINITE = _set("the this that these those") | POSSESSIVES
NUMBERS = {
    word: number
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
} | {"thirteen": 13, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "dozen": 12, "hundred": 100}
QUANTIFIERS = _set("several many few multiple various numerous other more most much less")
PREPOSITIONS = _set(
    "aboard about above across after against along alongside amid amidst among amongst around as at atop before "
    "behind below beneath beside besides between beyond by despite down during except for from in inside into "
    "like near nearby of off on onto opposite out outside over past per round since than through throughout till "
    "to toward towards under underneath until up upon via with within without"
)
CONJUNCTIONS = _set("and or but nor & while as when where because if so than though although whilst whereas")
RELATIVES = _set("who whom whose which that")
AUXILIARIES = _set(
    "is are was were be been being am has have had having do does did will would can could may might must"
)
ADVERBS = _set(
    "close fast ready outward inward not very too also just only away together apart back forward forwards "
    "backwards upward upwards downward outdoors indoors outside nearby there here then now still almost about "
    "upside ahead overhead alone off again once while really quite so up down sideways aside rather inside home "
    "even always both as"
)
# Pronouns that may stand for a phrase before them, with what they ask of it.
PRONOUNS = {
    "he": "male",
    "him": "male",
    "himself": "male",
    "she": "female",
    "her": "female",
    "hers": "female",
    "herself": "female",
    "it": "thing",
    "itself": "thing",
    "they": "many",
    "them": "many",
    "themselves": "many",
}
# Pronouns that name somebody or something by themselves.
NAMING_PRONOUNS = _set("someone somebody everyone everybody something others another one anyone i we you me us")
MALE = _set("man boy guy male gentleman father dad son brother groom king husband uncle grandfather men boys guys")
FEMALE = _set("woman girl lady female mother mom daughter sister bride queen wife aunt grandmother women girls ladies")
PEOPLE = (
    MALE
    | FEMALE
    | _set(
        "person child kid baby toddler infant adult teenager teen youth player rider surfer skier snowboarder "
        "skater skateboarder biker cyclist bicyclist climber hiker runner swimmer diver worker performer musician "
        "singer guitarist dancer athlete gymnast wrestler officer policeman soldier fisherman tourist pedestrian "
        "someone somebody photographer spectator referee coach batter pitcher catcher driver vendor student "
        "teacher chef cook waiter doctor nurse clown cheerleader teammate friend couple group crowd team people "
        "children kids jumper motorcyclist racer umpire artist golfer wakeboarder kayaker"
    )
)
# Words of quantity that come before "of": what they count, where that is a number.
COLLECTIONS: dict[str, int | None] = dict.fromkeys(
    [
        "group",
        "groups",
        "crowd",
        "crowds",
        "bunch",
        "set",
        "sets",
        "lot",
        "lots",
        "number",
        "pile",
        "piles",
        "row",
        "rows",
        "line",
        "lines",
        "flock",
        "flocks",
        "herd",
        "herds",
        "team",
        "teams",
        "pack",
        "stack",
        "series",
        "variety",
        "collection",
        "gathering",
        "family",
        "audience",
        "array",
        "band",
        "class",
        "mass",
        "handful",
        "plenty",
        "swarm",
        "cluster",
        "patch",
        "patches",
        "body",
        "bodies",
        "piece",
        "pieces",
        "stretch",
        "sort",
        "kind",
        "type",
        "types",
        "kinds",
        "assortment",
        "section",
        "pool",
        "majority",
    ],
    None,
) | {"couple": 2, "pair": 2, "pairs": None, "trio": 3, "dozens": None, "hundreds": None, "lots": None}
# Collections that are one thing even though what they are made of is not counted.
OF_STUFF = _set("piece body patch stretch sort kind type section pile pool")
IRREGULAR_PLURALS = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "policemen": "policeman",
    "firemen": "fireman",
    "firefighters": "firefighter",
    "leaves": "leaf",
    "knives": "knife",
    "wolves": "wolf",
    "calves": "calf",
    "scarves": "scarf",
    "shelves": "shelf",
    "oxen": "ox",
    "police": "police",
    "cattle": "cattle",
    "fishermen": "fisherman",
    "these": "this",
    "others": "other",
}
# Garments and tools that are plural in form and one in a picture.
PAIRED = _set(
    "pants jeans shorts trousers glasses sunglasses goggles scissors tights leggings overalls pajamas khakis "
    "slacks binoculars headphones trunks sweatpants clothes underwear stairs headlights bleachers"
)
CLOTHES = PAIRED | _set(
    "shirt tshirt t-shirt dress jacket coat hat cap suit skirt uniform uniforms sweater sweatshirt hoodie vest "
    "tie scarf helmet outfit clothing costume costumes bikini swimsuit robe gown shoes boots sneakers sandals "
    "socks gloves jersey top tank apron mask backpack necklace shirts hats helmets jackets dresses jerseys suits "
    "wetsuit kimono headscarf bandanna bandana attire gear garb turban hood wig makeup stripes harness collar "
    "muzzle red blue green yellow white black orange pink purple brown gray grey tan camouflage plaid"
)
COLOURS = _set(
    "red blue green yellow white black orange pink purple brown gray grey tan beige golden gold silver blond "
    "blonde maroon turquoise teal violet cream navy"
)
# What is nowhere in particular in a picture.
ABSTRACT = _set(
    "background foreground air midair mid-air day night morning evening afternoon daytime nighttime time distance "
    "front back side sides left right middle center centre way direction directions action motion view camera "
    "picture image photo photograph scene shot fun game match competition practice performance race event weather "
    "attention position rest turn look trick tricks jump pose style part kind type while bit moment age height "
    "speed midst conversation work play order line lead progress place other circle act process use summer winter "
    "spring fall activity celebration self top bottom end beginning edge preparation sort variety number things "
    "something nothing love life fight walk run ride swim rain wind sunlight daylight sunset dusk dawn"
) - _set("top race line edge circle sunset end")
ADJECTIVES = (
    COLOURS
    | QUANTIFIERS
    | _set(
        "older younger larger smaller bigger taller hind small large big little tall short long old young new "
        "wooden metal happy sad wet dry hot cold green bright dark light open empty full crowded busy grassy "
        "snowy sandy rocky muddy dirty clean shallow deep high low beautiful pretty same different adult elderly "
        "asian african american indian white furry fluffy brown-haired shirtless barefoot colorful colourful "
        "striped plaid concrete brick stone plastic leather denim grey single double first second third last next "
        "top bottom left right front rear back upper lower inner outer male female professional public outdoor "
        "indoor sunny cloudy foggy rainy dirt gravel huge giant tiny thin thick heavy soft hard round square flat "
        "steep narrow wide blond blonde bald pregnant naked nude topless own real toy fake several skinny fat "
        "chubby curly fancy formal casual traditional urban rural suburban oriental chinese japanese middle-aged "
        "early late good bad great nice red-haired dark-haired long-haired shaggy athletic smiling "
        "black-and-white multi-colored multicolored tri-colored brightly-colored alone asleep lit blurry native "
        "local modern ancient foreign ornate decorative tan sleeveless"
    )
)
# -ing and -ed forms that are things, or that stand before one.
ING_NOUNS = _set(
    "building buildings painting paintings clothing wedding railing railings ceiling string crossing ring rings "
    "wing wings king spring swing swings evening morning something nothing anything everything lightning being "
    "beings sibling siblings awning gathering parking fencing opening drawing drawings bedding covering icing "
    "stocking stockings earring earrings thing things dressing padding offering housing siding marking markings "
    "dwelling frosting pudding topping writing carving lining scaffolding"
)
# What is done to something, and seldom a part of a compound, as `climbing` is of `a rock climbing wall`.
DOING = _set("holding wearing carrying drinking eating licking biting sniffing chasing facing")
VERBS = _set(
    "become becomes teach teaches emerge emerges embrace embraces frolic frolics gallop gallops carry collide "
    "collides crash crashes demonstrate demonstrates display displays engage engages examine examines exercise "
    "exercises explore explores fetch fetches flip flips glance glances grin grins hurdle hurdles lounge lounges "
    "march marches nap naps observe observes operate operates overlook overlooks parade parades participate "
    "participates pedal pedals perform performs plunge plunges protest protests pounce pounces puts relax relaxes "
    "repair repairs retrieve retrieves scream screams shop shops shout shouts shows skateboard skateboards sled "
    "sleds slice slices soar soars sprint sprints stroll strolls struggle struggles tease teases travel travels "
    "tug tugs wander wanders wear weave weaves wipe wipes run runs ran jump jumps play plays stand stands stood "
    "sit sits sat walk walks ride rides rode hold holds held look looks wears wore lie lies lay lays catch "
    "catches caught throw throws threw hit hits kick kicks carries climb climbs swim swims leap leaps chase "
    "chases pull pulls push pushes smile smiles laugh laughs eat eats drink drinks watch watches pose poses talk "
    "talks sleep sleeps slide slides fly flies fall falls bite bites bark barks fight fights dig digs sniff "
    "sniffs lick licks splash splashes surf surfs ski skis skate skates dance dances sing sings hang hangs lean "
    "leans rest rests wait waits work works try tries make makes take takes get gets go goes come comes give "
    "gives put reach reaches point points cross crosses race races paddle paddles wave waves stare stares gather "
    "gathers cook cooks read reads use uses shake shakes swing swings touch touches approach approaches face "
    "faces attempt attempts enjoy enjoys wade wades dive dives drive drives follow follows compete competes "
    "practice practices show appear appears prepare prepares crouch crouches kneel kneels balance balances begin "
    "begins bend bends blow blows bounce bounces brush brushes build builds celebrate celebrates clean cleans "
    "dribble dribbles float floats grab grabs help helps hug hugs kiss kisses hike hikes hop hops juggle juggles "
    "jog jogs lead leads lift lifts listen listens move moves paint paints pass passes peer peers pet pets perch "
    "perches pick picks raise raises roll rolls row rows rush rushes seem seems sell sells share shares shoot "
    "shoots shovel shovels smell smells snowboard snowboards speak speaks spin spins spray sprays squat squats "
    "stick sticks stretch stretches surround surrounds tackle tackles toss tosses tow tows trot trots wrestle "
    "wrestles yell yells does scale scales navigate navigates crawl crawls enter enters exit exits keep keeps let "
    "lets cover covers dress dresses leave leaves stop stops turn turns start starts land lands"
)
PARTICIPLES = _set("seen shown worn made held built thrown caught torn cut set lit filled fallen parked blown drawn")
# Past forms that agree with any noun.
PAST = _set(
    "ran stood sat rode held wore caught threw hit hits fell flew swam dove ate drank drove slept spoke sang spun "
    "began put let lay cut took made gave got went came dug bit blew grew shook"
)
# Participles that a noun before them belongs to.
COMPOUNDED = _set(
    "covered colored coloured haired filled lined shaped faced legged eared sleeved sized themed clad printed "
    "patterned framed paved roofed skinned headed tailed"
)
