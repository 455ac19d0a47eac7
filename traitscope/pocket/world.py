"""The facts of the pocket's world, as data: relations with their pairs and ways to ask.

A fact is (subject, answer).  A relation says how its facts are asked for, stated plainly, stated
in dense technical words, and asked as a yes/no question.  Slots: {s} subject, {p} its plural (or
the subject again), {a} the answer, {be} is/are.  A phrasing that starts with `~` is held out: it
is never used in training.  `[word]t` marks a technical word (see `marks`).  Knows no dialogues
and no randomness.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One kind of fact.  `say[0]` is also how a user claims it."""

    name: str
    asks: tuple[str, ...]
    say: tuple[str, ...]
    dense: tuple[str, ...]
    yesno: tuple[str, ...]
    rows: tuple[tuple[str, str, str], ...]  # subject, plural, answer
    decoys: tuple[str, ...] = ()
    follow: tuple[str, ...] = ("And {s}?", "What about {s}?", "~How about {s}, then?")


@dataclass(frozen=True)
class Fact:
    """One fact: its slots, and the answers that would be wrong but not absurd."""

    relation: Relation
    slots: dict[str, str]
    wrongs: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.relation.name}:{self.slots['s']}"


# ways to ask for anything that has a name: "the capital of Peru", "7 plus 5"
FRAMES = (
    "What is {np}?",
    "Tell me {np}.",
    "Do you know {np}?",
    "Can you tell me {np}?",
    "I want to know {np}.",
    "I would like to know {np}.",
    "Please tell me {np}.",
    "Give me {np}.",
    "Could you give me {np}?",
    "Could you name {np}?",
    "Could you say what {np} is?",
    "Would you say what {np} is?",
    "What would you say is {np}?",
    "{np}?",
    "I need {np}.",
    "I need to know {np}.",
    "Say what {np} is.",
    "Can you tell me what {np} is?",
    "Could you tell me what {np} is?",
    "Do you know what {np} is?",
    "~Could you tell me {np}?",
    "~Would you tell me {np}?",
    "~I want you to tell me {np}.",
)


def framed(noun_phrase: str) -> tuple[str, ...]:
    """The frames around a noun phrase that may have slots of its own."""
    return tuple(frame.replace("{np}", noun_phrase) for frame in FRAMES)


def _rows(text: str) -> tuple[tuple[str, str, str], ...]:
    """'France=Paris, Spain=Madrid' -> rows; 'a cat/cats=four' gives the plural."""
    rows = []
    for item in text.replace("\n", " ").split(","):
        subject, answer = item.strip().split("=")
        single, _, plural = subject.partition("/")
        rows.append((single, plural or single, answer))
    return tuple(rows)


CAPITALS = _rows(
    """France=Paris, Spain=Madrid, Italy=Rome, Germany=Berlin, Portugal=Lisbon, Norway=Oslo,
    Sweden=Stockholm, Denmark=Copenhagen, Finland=Helsinki, Iceland=Reykjavik, Ireland=Dublin,
    England=London, Scotland=Edinburgh, Wales=Cardiff, Belgium=Brussels, Austria=Vienna,
    Switzerland=Bern, Poland=Warsaw, Hungary=Budapest, Greece=Athens, Turkey=Ankara,
    Russia=Moscow, Ukraine=Kyiv, Romania=Bucharest, Bulgaria=Sofia, Croatia=Zagreb,
    Serbia=Belgrade, Slovakia=Bratislava, Slovenia=Ljubljana, Estonia=Tallinn, Latvia=Riga,
    Lithuania=Vilnius, Albania=Tirana, Malta=Valletta, Cyprus=Nicosia, Egypt=Cairo,
    Morocco=Rabat, Tunisia=Tunis, Algeria=Algiers, Kenya=Nairobi, Ethiopia=Addis Ababa,
    Ghana=Accra, Nigeria=Abuja, Senegal=Dakar, Uganda=Kampala, Angola=Luanda, Zambia=Lusaka,
    Japan=Tokyo, China=Beijing, India=New Delhi, Nepal=Kathmandu, Thailand=Bangkok,
    Vietnam=Hanoi, Indonesia=Jakarta, Iran=Tehran, Iraq=Baghdad, Lebanon=Beirut, Syria=Damascus,
    Pakistan=Islamabad, Mongolia=Ulaanbaatar, Canada=Ottawa, Mexico=Mexico City, Cuba=Havana,
    Jamaica=Kingston, Panama=Panama City, Peru=Lima, Chile=Santiago, Brazil=Brasilia,
    Argentina=Buenos Aires, Colombia=Bogota, Ecuador=Quito, Uruguay=Montevideo,
    Venezuela=Caracas, Australia=Canberra, New Zealand=Wellington, Fiji=Suva"""
)
OTHER_CITIES = ("Sydney", "New York", "Milan", "Barcelona", "Lyon", "Munich", "Toronto")

_CONTINENTS = _rows(
    """France=Europe, Spain=Europe, Italy=Europe, Germany=Europe, Norway=Europe, Sweden=Europe,
    Poland=Europe, Greece=Europe, Ireland=Europe, Portugal=Europe, Egypt=Africa, Kenya=Africa,
    Morocco=Africa, Ghana=Africa, Nigeria=Africa, Uganda=Africa, Ethiopia=Africa, Zambia=Africa,
    Japan=Asia, China=Asia, India=Asia, Nepal=Asia, Thailand=Asia, Vietnam=Asia, Mongolia=Asia,
    Canada=North America, Mexico=North America, Cuba=North America, Peru=South America,
    Chile=South America, Brazil=South America, Argentina=South America, Colombia=South America,
    Ecuador=South America"""
)
_LANGUAGES = _rows(
    """France=French, Spain=Spanish, Italy=Italian, Germany=German, Portugal=Portuguese,
    Norway=Norwegian, Sweden=Swedish, Denmark=Danish, Finland=Finnish, Poland=Polish,
    Hungary=Hungarian, Greece=Greek, Turkey=Turkish, Russia=Russian, Japan=Japanese,
    China=Chinese, Thailand=Thai, Mexico=Spanish, Brazil=Portuguese, Argentina=Spanish,
    Australia=English, England=English, Austria=German, Egypt=Arabic, Iceland=Icelandic"""
)
_SYMBOLS = _rows(
    """gold=Au, silver=Ag, iron=Fe, copper=Cu, lead=Pb, tin=Sn, zinc=Zn, mercury=Hg, oxygen=O,
    hydrogen=H, helium=He, carbon=C, nitrogen=N, neon=Ne, sodium=Na, potassium=K, calcium=Ca,
    chlorine=Cl, sulphur=S, silicon=Si, nickel=Ni, aluminium=Al, magnesium=Mg, lithium=Li,
    iodine=I, platinum=Pt, uranium=U, titanium=Ti, phosphorus=P, argon=Ar"""
)
_LEGS = _rows(
    """a spider/spiders=eight, a scorpion/scorpions=eight, an ant/ants=six, a bee/bees=six,
    a butterfly/butterflies=six, a fly/flies=six, a beetle/beetles=six, a dog/dogs=four,
    a cat/cats=four, a horse/horses=four, a cow/cows=four, a sheep/sheep=four, a pig/pigs=four,
    a lion/lions=four, a frog/frogs=four, a mouse/mice=four, an elephant/elephants=four,
    a bear/bears=four, a hen/hens=two, a duck/ducks=two, an owl/owls=two, a swan/swans=two,
    a penguin/penguins=two, an ostrich/ostriches=two, a crab/crabs=ten, a snake/snakes=no,
    a fish/fish=no, a whale/whales=no"""
)
_SOUNDS = _rows(
    """a dog/dogs=bark, a cat/cats=meow, a cow/cows=moo, a sheep/sheep=bleat, a pig/pigs=grunt,
    a horse/horses=neigh, a lion/lions=roar, a duck/ducks=quack, a hen/hens=cluck,
    an owl/owls=hoot, a snake/snakes=hiss, a frog/frogs=croak, a bee/bees=buzz,
    a wolf/wolves=howl, a mouse/mice=squeak, a crow/crows=caw, a donkey/donkeys=bray,
    a bear/bears=growl"""
)
_FOODS = _rows(
    """a rabbit/rabbits=grass, a cow/cows=grass, a horse/horses=hay, a panda/pandas=bamboo,
    a koala/koalas=eucalyptus leaves, a monkey/monkeys=fruit, a penguin/penguins=fish,
    a seal/seals=fish, a spider/spiders=insects, a frog/frogs=insects, a lion/lions=meat,
    a wolf/wolves=meat, a squirrel/squirrels=nuts, an owl/owls=mice, a bee/bees=nectar,
    a caterpillar/caterpillars=leaves, a hen/hens=grain, an anteater/anteaters=ants"""
)
_HOMES = _rows(
    """a bee/bees=a hive, a bird/birds=a nest, a fox/foxes=a den, a rabbit/rabbits=a burrow,
    a horse/horses=a stable, a spider/spiders=a web, a dog/dogs=a kennel, a cow/cows=a barn,
    a pig/pigs=a sty, a beaver/beavers=a lodge, a bat/bats=a cave, a hen/hens=a coop,
    a fish/fish=water, a camel/camels=the desert, a penguin/penguins=the cold south"""
)
_YOUNG = _rows(
    """a dog=a puppy, a cat=a kitten, a cow=a calf, a horse=a foal, a sheep=a lamb, a pig=a piglet,
    a duck=a duckling, a hen=a chick, a lion=a cub, a goat=a kid, a frog=a tadpole, a swan=a cygnet,
    a kangaroo=a joey, an owl=an owlet, a deer=a fawn"""
)
_CLASSES = _rows(
    """a frog/frogs=an amphibian, a toad/toads=an amphibian, a snake/snakes=a reptile,
    a lizard/lizards=a reptile, a turtle/turtles=a reptile, a whale/whales=a mammal,
    a dolphin/dolphins=a mammal, a bat/bats=a mammal, a dog/dogs=a mammal, a horse/horses=a mammal,
    an eagle/eagles=a bird, a penguin/penguins=a bird, an owl/owls=a bird, a shark/sharks=a fish,
    a salmon/salmon=a fish, an ant/ants=an insect, a bee/bees=an insect, a spider/spiders=an arachnid"""
)
_COLOURS = _rows(
    """the sky=blue, grass=green, snow=white, coal=black, blood=red, a lemon=yellow,
    a banana=yellow, a carrot=orange, a strawberry=red, a raven=black, a flamingo=pink,
    a polar bear=white, milk=white, a frog=green, an aubergine=purple, a plum=purple,
    chocolate=brown, a pumpkin=orange, an emerald=green, a ruby=red, a sapphire=blue,
    a lime=green, a cherry=red, charcoal=black, an elephant=grey"""
)
_OPPOSITES = _rows(
    """hot=cold, big=small, fast=slow, up=down, day=night, old=young, rich=poor, happy=sad, wet=dry,
    hard=soft, light=dark, loud=quiet, open=shut, early=late, full=empty, high=low, long=short,
    near=far, right=wrong, strong=weak, sweet=sour, thick=thin, true=false, wide=narrow, win=lose,
    buy=sell, love=hate, begin=end, left=right, inside=outside, clean=dirty, easy=difficult,
    heavy=light, cheap=dear, push=pull, asleep=awake"""
)
_MONTHS = _rows(
    """January=February, February=March, March=April, April=May, May=June, June=July, July=August,
    August=September, September=October, October=November, November=December, December=January,
    Monday=Tuesday, Tuesday=Wednesday, Wednesday=Thursday, Thursday=Friday, Friday=Saturday,
    Saturday=Sunday, Sunday=Monday"""
)
_BEFORE = tuple((after, after, day) for day, _, after in _MONTHS)
_COUNTS = _rows(
    """days/a week=seven, months/a year=twelve, hours/a day=twenty-four, minutes/an hour=sixty,
    seconds/a minute=sixty, years/a century=one hundred, sides/a triangle=three, sides/a square=four,
    sides/a hexagon=six, wheels/a bicycle=two, wheels/a car=four, letters/the alphabet=twenty-six,
    players/a football team=eleven, planets/the solar system=eight, strings/a violin=four,
    legs/a chair=four, continents/the world=seven, colours/a rainbow=seven, pence/a pound=one hundred"""
)
_PLANETS = _rows(
    """the planet closest to the sun=Mercury, the largest planet=Jupiter, the red planet=Mars,
    the planet that we live on=the Earth, the planet with bright rings=Saturn,
    the hottest planet=Venus, the planet farthest from the sun=Neptune, the largest ocean=the Pacific,
    the highest mountain in the world=Mount Everest, the longest river in Africa=the Nile,
    the largest animal in the world=the blue whale, the fastest animal on land=the cheetah,
    the tallest animal in the world=the giraffe, the hardest natural stone=diamond,
    the largest desert in Africa=the Sahara, the smallest continent=Australia,
    the coldest season=winter, the hottest season=summer, the first month of the year=January,
    the last month of the year=December, the lightest element=hydrogen,
    the metal that is liquid at room temperature=mercury, the gas that we breathe to live=oxygen,
    the largest continent=Asia, the star at the centre of the solar system=the sun"""
)
_PROPERTIES = """the sun is hot/cold, ice is cold/hot, fire is hot/cold, snow is cold/warm,
    sugar is sweet/sour, honey is sweet/bitter, a lemon is sour/sweet, vinegar is sour/sweet,
    water is wet/dry, the desert is dry/wet, stone is hard/soft, wool is soft/hard,
    a feather is light/heavy, lead is heavy/light, the night is dark/bright, noon is bright/dark,
    a giraffe is tall/short, a mouse is small/large, an elephant is large/small,
    a snail is slow/fast, a cheetah is fast/slow, glass is brittle/tough, rubber is elastic/rigid,
    steel is strong/weak, the sea is salty/fresh, winter is cold/hot, summer is warm/cold,
    a library is quiet/loud, thunder is loud/quiet, the Earth is round/flat, a ball is round/square,
    silk is smooth/rough, sandpaper is rough/smooth, an ocean is deep/shallow,
    a mountain is high/low, chillies are hot/mild, diamonds are hard/soft, tortoises are slow/fast,
    lemons are sour/sweet, clouds are white/green, roses are fragrant/odourless,
    pillows are soft/hard, knives are sharp/blunt, stars are far away/close by"""


_TRUE = ("Is it true that {P}?", "Is it so that {P}?", "Is it right that {P}?", "{P}, yes or no?")


def _pattern(name: str, rows: tuple[tuple[str, str, str], ...], np: str, **forms: str) -> Relation:
    """A relation from forms divided by bars; every one is also asked for in the common frames."""
    split = {key: tuple(line.strip() for line in text.split("|")) for key, text in forms.items()}
    split["asks"] += framed(np)
    split["yesno"] += tuple(frame.replace("{P}", split["say"][0]) for frame in _TRUE)
    return Relation(name=name, rows=rows, **split)


RELATIONS: tuple[Relation, ...] = (
    _pattern(
        "capital",
        CAPITALS,
        np="the capital of {s}",
        asks="What is the capital of {s}?|Which city is the capital of {s}?|Name the capital of {s}."
        "|Tell me the capital of {s}.|Capital of {s}?|What is {s}'s capital?|What's the capital of {s}?"
        "|Do you know the capital of {s}?|Which town is the capital city of {s}?"
        "|I would like to know the capital of {s}.|What city is the seat of government of {s}?"
        "|I need the capital of {s}.|Give me the capital of {s}.|{s}: what is the capital?|What town is {s}'s capital?"
        "|Can you tell me what the capital of {s} is?|Please tell me what the capital of {s} is."
        "|~{s} has which capital?|~The capital of {s} is what?",
        say="the capital of {s} is {a}|{a} is the capital of {s}|{s} has {a} as its capital",
        dense="the [administrative capital]t of the [sovereign state]t of {s} is the [municipality]t of {a}"
        "|the [constitutional seat]t of {s}'s [central administration]t is {a}",
        yesno="Is {a} the capital of {s}?|Is the capital of {s} {a}?|~Is it {a} that is the capital of {s}?",
        decoys="|".join(OTHER_CITIES),
        follow="And of {s}?|What about {s}?|And the capital of {s}?|~How about {s}, then?",
    ),
    _pattern(
        "continent",
        _CONTINENTS,
        np="the continent of {s}",
        asks="Which continent is {s} in?|On which continent is {s}?|Where in the world is {s}?"
        "|What continent does {s} belong to?|Which continent is {s} a part of?|~Can you tell me which continent {s} is part of?",
        say="{s} is in {a}|{s} lies in {a}|{s} belongs to {a}",
        dense="{s} is [geographically situated]t on the [continental landmass]t of {a}",
        yesno="Is {s} in {a}?|Does {s} lie in {a}?|~Is {s} a part of {a}?",
        follow="And {s}?|What about {s}?|~How about {s}, then?",
    ),
    _pattern(
        "language",
        _LANGUAGES,
        np="the language of {s}",
        asks="What language do people speak in {s}?|Which language is spoken in {s}?"
        "|What do they speak in {s}?|What is the language of {s}?|Which tongue do people speak in {s}?|Which language do most people of {s} speak?|~Which tongue do most people of {s} use?",
        say="people in {s} speak {a}|the language of {s} is {a}",
        dense="the [predominant]t [official language]t of {s} is {a}",
        yesno="Do people in {s} speak {a}?|Is {a} spoken in {s}?|Do they speak {a} in {s}?|~Is the language of {s} {a}?",
    ),
    _pattern(
        "symbol",
        _SYMBOLS,
        np="the chemical symbol for {s}",
        asks="What is the chemical symbol for {s}?|What is the symbol of {s}?|Chemical symbol for {s}?"
        "|Which symbol stands for {s} in chemistry?|Tell me the chemical symbol for {s}."
        "|How do chemists write {s}?|Give me the chemical symbol for {s}.|Can you tell me the symbol for {s}?|What's the chemical symbol of {s}?"
        "|What letters does {s} have in the periodic table?|Which letters mean {s}?|~Which letters stand for {s} in the periodic table?",
        say="the chemical symbol for {s} is {a}|{s} has the symbol {a}",
        dense="in the [periodic table]t, the [element]t {s} is [denoted]t by the [IUPAC symbol]t {a}",
        yesno="Is {a} the symbol for {s}?|Is the chemical symbol for {s} {a}?|In chemistry, does {a} stand for {s}?|Does {a} mean {s}?|~Does {a} stand for {s}?",
    ),
    _pattern(
        "legs",
        _LEGS,
        np="the number of legs of {s}",
        asks="How many legs does {s} have?|How many legs do {p} have?|What number of legs has {s}?"
        "|Tell me how many legs {s} has.|On how many legs does {s} walk?|Count the legs of {p}.|{p}: how many legs?|How many legs have {p} got?|Can you tell me how many legs {p} have?|~Count the legs of {s} for me."
        "|~{p}: how many legs do they have?",
        say="{p} have {a} legs|{s} has {a} legs",
        dense="[anatomically]t, {s} has {a} [locomotory appendages]t, that is, {a} legs",
        yesno="Do {p} have {a} legs?|Does {s} have {a} legs?|~Do {p} really have {a} legs?",
        decoys="two|four|six|eight|ten|three",
    ),
    _pattern(
        "sound",
        _SOUNDS,
        np="the sound that {p} make",
        asks="What sound do {p} make?|What sound does {s} make?|What noise do {p} make?"
        "|What do {p} do to make a noise?|Which sound do you hear from {s}?|~Which sound comes from {s}?",
        say="{p} {a}|the sound of {p} is that they {a}",
        dense="the [characteristic vocalisation]t of {p} is that they {a}",
        yesno="Do {p} {a}?|~Do {p} really {a}?",
    ),
    _pattern(
        "food",
        _FOODS,
        np="the food of {p}",
        asks="What do {p} eat?|What does {s} eat?|What is the food of {p}?|What do {p} feed on?"
        "|What do {p} like to eat?|Which food do {p} live on?|~Which food does {s} live on?",
        say="{p} eat {a}|{s} eats {a}",
        dense="the [primary diet]t of {p} [consists]t of {a}",
        yesno="Do {p} eat {a}?|Does {s} eat {a}?|~Do {p} really eat {a}?",
    ),
    _pattern(
        "home",
        _HOMES,
        np="the home of {p}",
        asks="Where do {p} live?|Where does {s} live?|What is the home of {p}?|What do {p} live in?"
        "|In what place do {p} live?|Where does {s} make its home?|~In what kind of place does {s} make its home?",
        say="{p} live in {a}|{s} lives in {a}",
        dense="the [typical habitat]t or [dwelling]t of {p} is {a}",
        yesno="Do {p} live in {a}?|Does {s} live in {a}?|~Is {a} the home of {p}?",
    ),
    _pattern(
        "young",
        _YOUNG,
        np="the name for the young of {s}",
        asks="What is the young of {s} called?|What do you call the young of {s}?|What is a baby of {s} called?"
        "|Which name do we give to the young of {s}?|~Which name has the young of {s}?",
        say="the young of {s} is {a}|the young of {s} is called {a}",
        dense="the [juvenile offspring]t of {s} is [designated]t {a}",
        yesno="Is the young of {s} {a}?|~Is {a} the young of {s}?",
    ),
    _pattern(
        "class",
        _CLASSES,
        np="the kind of animal that {s} is",
        asks="What kind of animal is {s}?|What sort of animal is {s}?|To which group of animals does {s} belong?|Into which group of animals would you put {s}?|Which class of animals is {s} in?"
        "|~Into which class of animals would you put {s}?",
        say="{s} is {a}|{s} counts as {a}",
        dense="in [zoological taxonomy]t, {s} is [classified]t as {a}",
        yesno="Is {s} {a}?|~Does {s} count as {a}?",
    ),
    _pattern(
        "colour",
        _COLOURS,
        np="the colour of {s}",
        asks="What colour is {s}?|What is the colour of {s}?|Which colour is {s}?|Tell me the colour of {s}."
        "|What color is {s}?|What colour has {s}?|~Of what colour is {s}?",
        say="{s} is {a}|the colour of {s} is {a}",
        dense="the [predominant reflected wavelength]t of {s} is [perceived]t as {a}",
        yesno="Is {s} {a}?|Is the colour of {s} {a}?|~Would you call {s} {a}?",
        decoys="blue|green|red|yellow|white|black|purple",
    ),
    _pattern(
        "opposite",
        _OPPOSITES,
        np="the opposite of {s}",
        asks="What is the opposite of {s}?|Opposite of {s}?|What word means the opposite of {s}?"
        "|Tell me the opposite of {s}.|What is the contrary of {s}?|Which word is the opposite of {s}?|~Which word is the contrary of {s}?",
        say="the opposite of {s} is {a}|{a} is the opposite of {s}",
        dense="the [lexical antonym]t of {s} is {a}",
        yesno="Is {a} the opposite of {s}?|~Is the opposite of {s} {a}?",
    ),
    _pattern(
        "after",
        _MONTHS,
        np="the one that comes after {s}",
        asks="What comes after {s}?|Which one follows {s}?|What comes right after {s}?|After {s}, what comes?|What is next after {s}?|~After {s} comes what?",
        say="{a} comes after {s}|{s} is followed by {a}",
        dense="in [calendrical order]t, {s} is [succeeded]t by {a}",
        yesno="Does {a} come after {s}?|~Is {s} followed by {a}?",
    ),
    _pattern(
        "before",
        _BEFORE,
        np="the one that comes before {s}",
        asks="What comes before {s}?|Which one is right before {s}?|What comes just before {s}?"
        "|Before {s}, what comes?|~Before {s} comes what?",
        say="{a} comes before {s}|right before {s} comes {a}",
        dense="in [calendrical order]t, {s} is [preceded]t by {a}",
        yesno="Does {a} come before {s}?|~Is {a} right before {s}?",
    ),
    _pattern(
        "count",
        _COUNTS,
        np="the number of {s} in {p}",
        asks="How many {s} are there in {p}?|How many {s} does {p} have?|What is the number of {s} in {p}?"
        "|How many {s} in {p}?|Can you count the {s} in {p}?|Count the {s} of {p}.|~Count the {s} in {p}, please.",
        say="there are {a} {s} in {p}|{p} has {a} {s}",
        dense="the [cardinality]t of the [set]t of {s} in {p} is {a}",
        yesno="Are there {a} {s} in {p}?|Does {p} have {a} {s}?|~Does {p} really have {a} {s}?",
        decoys="five|nine|ten|twenty|fifty",
    ),
    _pattern(
        "which",
        _PLANETS,
        np="{s}",
        asks="What is {s}?|Which is {s}?|Tell me what is {s}.|Name {s}.|Which one is {s}?|~Do you know which is {s}?",
        say="{s} is {a}|{a} is {s}",
        dense="by [established measurement]t and [classification]t, {s} is {a}",
        yesno="Is {a} {s}?|Is {s} {a}?|~Is it {a} that is {s}?",
        follow="And {s}?|And what is {s}?|~How about {s}, then?",
    ),
)

PROPERTY = Relation(
    name="property",
    asks=(
        "{Be} {s} {a} or {x}?",
        "{Be} {s} {x} or {a}?",
        "Tell me, {be} {s} {x} or {a}?",
        "What {be} {s} like, {a} or {x}?",
        "Would you say that {s} {be} {x} or {a}?",
        "Which is it: {be} {s} {a} or {x}?",
        "Which is right for {s}, {x} or {a}?",
        "~Which is right: {s} {be} {a}, or {s} {be} {x}?",
    ),
    say=("{s} {be} {a}",),
    dense=("as a [physical property]t, {s} {be} [characteristically]t {a}",),
    yesno=(
        "{Be} {s} {a}?",
        "Is it true that {s} {be} {a}?",
        "Is it so that {s} {be} {a}?",
        "{s} {be} {a}, yes or no?",
        "Do people say that {s} {be} {a}?",
        "~Would you say that {s} {be} {a}?",
    ),
    rows=(),
)


def _property_facts() -> Iterator[Fact]:
    for item in _PROPERTIES.replace("\n", " ").split(","):
        subject, be, values = (" ".join(item.split())).rpartition(" is ")
        if not be:
            subject, be, values = (" ".join(item.split())).rpartition(" are ")
        true, false = values.split("/")
        be = be.strip()
        slots = {"s": subject, "p": subject, "a": true, "x": false, "be": be, "Be": be.capitalize()}
        yield Fact(PROPERTY, slots, (false,))


def _alike(relation: Relation, wrong: str, answer: str) -> bool:
    """Days are mistaken for days and months for months."""
    calendar = relation.name in ("after", "before")
    return not calendar or wrong.endswith("day") == answer.endswith("day")


def _relation_facts(relation: Relation) -> Iterator[Fact]:
    answers = sorted({row[2] for row in relation.rows} | set(relation.decoys))
    for single, plural, answer in relation.rows:
        wrongs = tuple(
            a for a in answers if a not in (answer, single) and _alike(relation, a, answer)
        )
        yield Fact(relation, {"s": single, "p": plural, "a": answer}, wrongs)


FACTS: dict[str, tuple[Fact, ...]] = {r.name: tuple(_relation_facts(r)) for r in RELATIONS}
FACTS["property"] = tuple(_property_facts())

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four"
).split()
