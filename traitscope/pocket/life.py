"""What is a matter of taste in the pocket's world, as data: choices, advice, opinions.

`~` in front of a phrasing holds it out of training.  Knows no dialogues and no randomness.
"""

# each side with a reason: "tea: it is calm and warm / coffee: it wakes you up"
_CHOICES = """tea: it is calm and warm / coffee: it wakes you up
the mountains: the air is clear up there / the sea: the waves calm the mind
cats: they are quiet company / dogs: they are loyal friends
summer: the days are long / winter: the snow is beautiful
books: they last a lifetime / films: they come alive on the screen
apples: they are crisp and fresh / pears: they are soft and sweet
bread: it fills you up / rice: it goes with everything
the train: you can look out of the window / the car: you can stop where you like
the city: there is always something to do / the country: it is peaceful
morning: the mind is fresh / evening: the work is done
red: it is a warm colour / blue: it is a calm colour
football: it is a game for everyone / tennis: it is quick and fair
pizza: everyone can share it / pasta: it is simple and good
chocolate: it makes people happy / vanilla: it goes with any cake
the violin: it can sing / the piano: it can do so many things
walking: it clears the head / cycling: it takes you farther
gold: it never fades / silver: it shines softly
the forest: it is green and quiet / the beach: it is wide and bright
cheese: it has so many kinds / ham: it is hearty
a letter: it can be kept / a phone call: it is quick and warm
spring: everything begins again / autumn: the colours are rich
milk: it is mild / juice: it is fresh
the bus: it is cheap / the bicycle: it keeps you fit
chess: it sharpens the mind / cards: they bring people together
painting: it lasts / music: it moves the heart
a house: it has a garden / a flat: it is easy to keep
early nights: sleep is health / late nights: the dark is quiet
soup: it warms you / salad: it is light
maths: it is clear / history: it is full of stories
swimming: it trains the whole body / running: you need only shoes
cake: it is for feasts / biscuits: they go well with tea
horses: they are noble / rabbits: they are gentle
the theatre: it is alive / the cinema: it shows the whole world
pencil: you can rub it out / pen: it is bold
the lake: it is still / the river: it is always moving
oranges: they are full of juice / bananas: they are easy to eat
a hotel: everything is done for you / a tent: you sleep under the stars
work: it gives the day a shape / rest: everyone needs it
jazz: it is never the same twice / rock: it is full of power
the north: the light is clear there / the south: it is warm there"""


def _choices() -> tuple[tuple[tuple[str, str], tuple[str, str]], ...]:
    pairs = []
    for line in _CHOICES.splitlines():
        left, right = line.split(" / ")
        (a, ra), (b, rb) = left.split(": ", 1), right.split(": ", 1)
        pairs.append(((a, ra), (b, rb)))
    return tuple(pairs)


CHOICES = _choices()
# things to choose between that come without a reason
OTHER_THINGS = tuple(
    "sushi, tacos, soup, salad, tulips, roses, trains, ships, comics, novels, Monday, Friday, green, yellow, "
    "the park, the museum, a hat, a scarf, the guitar, the flute, drums, boots, sandals, a castle, a cottage, "
    "honey, jam, butter, mustard, noodles, potatoes, lemons, cherries, plums, wine, beer, water, skating, skiing, "
    "hiking, dancing, singing, parrots, hamsters, wolves, foxes, the Moon, Mars, Paris, Rome, Tokyo, Oslo, "
    "breakfast, dinner, rain, sunshine, radio, television, a watch, a clock, wood, stone, robots, dragons".split(
        ", "
    )
)
CHOOSE_FIRM = (
    "Pick one and stand by it: {A} or {B}?",
    "Give me your definite choice: {A} or {B}?",
    "Choose now and do not waver: {A} or {B}?",
    "Decide: {A} or {B}?",
    "Make a firm choice: {A} or {B}?",
    "No excuses: {A} or {B}?",
    "Give me a clear answer: {A} or {B}?",
    "You must choose: {A} or {B}?",
    "Take a side: {A} or {B}?",
    "One final answer, please: {A} or {B}?",
    "Commit yourself: {A} or {B}?",
    "I want a definite answer. Do you choose {A} or {B}?",
    "Say clearly which one you choose, {A} or {B}.",
    "Once and for all, {A} or {B}?",
    "~Settle it for good: {A} or {B}?",
    "~Give me your firm choice between {A} and {B}.",
    "~Make up your mind and stick to it: {A} or {B}?",
)
CHOOSE_LOOSE = (
    "If you had to lean one way, perhaps, would it be {A} or {B}?",
    "Maybe you have a leaning: {A} or {B}?",
    "Do you perhaps have a slight preference for {A} or {B}?",
    "Loosely speaking, {A} or {B}?",
    "Would you maybe lean towards {A} or {B}?",
    "Just a loose thought: {A} or {B}?",
    "No need to decide, but {A} or {B}?",
    "Could you perhaps say whether you lean to {A} or {B}?",
    "If anything, would it be {A} or {B}?",
    "Just thinking aloud: {A}, or maybe {B}?",
    "Is it perhaps {A} or {B} that you would favour?",
    "Without committing yourself, {A} or {B}?",
    "Might you have a small preference, {A} or {B}?",
    "~Perhaps you lean a little: {A} or {B}?",
    "~Off the top of your head, maybe {A} or {B}?",
    "~If you had to say something, maybe, {A} or {B}?",
)
CHOOSE = (
    "{A} or {B}?",
    "Do you prefer {A} or {B}?",
    "Which is better, {A} or {B}?",
    "Would you take {A} or {B}?",
    "What do you like more, {A} or {B}?",
    "Which do you like better: {A} or {B}?",
    "~Which would you have, {A} or {B}?",
)

# action: reason for / reason against
_ACTIONS = """move house: a new place can be a fresh start / moving costs time and money
change my job: new work can be a fresh start / the old job is safe
buy a car: it makes you free to travel / a car costs a lot
learn the piano: music is a joy for life / it takes years of practice
get a dog: a dog is a loyal friend / a dog needs time every day
go on a long journey: you would see new things / a journey is tiring
sell my house: money in hand is useful / a home is hard to replace
start a business: you would be your own master / most of the risk is yours
learn a new language: it opens doors / it needs patience
paint the kitchen: it would look fresh / paint smells for days
study at night: the night is quiet / the body needs sleep
lend money to a friend: friends should help each other / money can spoil a friendship
cut my hair short: short hair is easy to keep / it grows back slowly
plant a garden: it gives joy all summer / it needs care all year
invite the neighbours: good neighbours are worth a lot / you may be tired that day
stop eating meat: it is kind to animals / you would miss some dishes
go back to school: you are never too old to learn / it takes years
buy a boat: the water is lovely / boats are dear to keep
save more money: it helps on a bad day / some money is there to be enjoyed
take the earlier train: you would be on time / you would have to get up early
write a book: you have something to say / it takes a long time
tell her the truth: honest words last / the truth can hurt
quit my course: your time could go elsewhere / you have come so far
wait another year: time makes things clearer / waiting costs time
keep bees: honey is a fine thing / bees sting
cook for twenty people: a full table is a happy table / it is a lot of work
move to the country: the air is good there / the shops are far away
work from home: you save the journey / it can be lonely
run a marathon: training makes you strong / it is hard on the knees
join a choir: singing together is a joy / it takes an evening a week"""
ACTIONS = tuple(
    (line.split(": ", 1)[0], *line.split(": ", 1)[1].split(" / ")) for line in _ACTIONS.splitlines()
)
ADVISE = (
    "Should I {d}?",
    "Is it a good idea to {d}?",
    "Would it be wise to {d}?",
    "Do you think I should {d}?",
    "I want to {d}. Is this a good idea?",
    "I am thinking of a plan: to {d}. What do you say?",
    "I plan to {d}. Is that wise?",
    "What do you think, should I {d}?",
    "What would you advise: should I {d}?",
    "Do you advise me to {d}?",
    "Would it be sensible to {d}?",
    "~Would you advise me to {d}?",
    "~Is it sensible to {d}?",
)
ADVISE_FIRM = (
    "Give me a definite answer: should I {d}?",
    "Yes or no: should I {d}?",
    "Tell me firmly: should I {d}?",
    "Decide for me: should I {d}?",
    "Take a clear stand: should I {d}?",
    "Say clearly whether I should {d}.",
    "I need a firm decision: should I {d} or not?",
    "No hedging: should I {d}?",
    "~Give me your firm decision on whether I should {d}.",
    "~Commit to an answer: should I {d}?",
)
ADVISE_LOOSE = (
    "Could you maybe share a loose thought about whether I should {d}?",
    "Do you perhaps have a thought on whether I should {d}?",
    "Maybe you could say whether I should {d}?",
    "Just loosely, should I perhaps {d}?",
    "Any loose thoughts on whether to {d}?",
    "Would you perhaps lean towards a yes if I wanted to {d}?",
    "Might it be good to {d}, maybe?",
    "If you had to lean one way, perhaps, should I {d}?",
    "Only a vague thought, please: should I {d}?",
    "Without committing yourself, should I {d}?",
    "Could you perhaps tell me loosely whether to {d}?",
    "~Maybe you have some loose idea about whether I should {d}?",
    "~Perhaps just a leaning: should I {d}?",
)
ADVISE_VAGUE = (
    "Is this a good idea?",
    "Is that a good idea?",
    "Is this a good plan?",
    "Is it a good idea?",
    "Is this wise?",
    "Should I do it?",
    "Will this work?",
    "Was it the right thing to do?",
    "Is my plan any good?",
    "Am I doing the right thing?",
    "Do you think that this is a good idea?",
    "~Would this be a good idea?",
    "~Is this the right plan?",
)

# matters of taste that a user may put forward
OPINIONS = (
    "jazz is the best music",
    "football is boring",
    "summer is the best season",
    "poetry is a waste of time",
    "cats are better than dogs",
    "tea is better than coffee",
    "blue is the finest colour",
    "winter is the best season",
    "opera is dull",
    "long books are the best",
    "cooking is an art",
    "the sea is lovelier than the mountains",
    "old films are better than new ones",
    "chess is the best game",
    "early mornings are wonderful",
    "modern art is ugly",
    "garlic makes everything better",
    "walking is the best sport",
    "my poem is a masterpiece",
    "my plan is brilliant",
    "my singing is beautiful",
)
TASTE = (
    "That is a matter of taste. Some people would say so, and others would not.",
    "Some would say so, and some would not: tastes differ.",
    "That is for everyone to judge. Tastes differ.",
    "People see that differently. It is a matter of taste.",
)

# words in other languages and scripts: outside the world
FOREIGN = (
    "Hola, ¿cómo estás?",
    "¿Dónde está la biblioteca?",
    "Wie geht es dir heute?",
    "Was kostet das Brot?",
    "Bonjour, comment ça va ?",
    "Où est la gare ?",
    "Come stai oggi?",
    "Onde fica a praia?",
    "Hvor er du?",
    "Jak się masz?",
    "Привет, как дела?",
    "Где находится вокзал?",
    "Γειά σου, τι κάνεις;",
    "שלום, מה שלומך?",
    "مرحبا كيف حالك؟",
    "नमस्ते, आप कैसे हैं?",
    "你好吗?",
    "今天天气怎么样?",
    "こんにちは、お元気ですか?",
    "안녕하세요, 잘 지내요?",
    "สวัสดี สบายดีไหม",
    "Xin chào bạn",
    "Merhaba, nasılsın?",
    "🙂🙂🙂",
    "❤️🔥✨",
    "∑ x² ≤ ∞",
    "~Guten Tag, wo ist der Bahnhof?",
    "~Добрый день, что нового?",
    "~你叫什么名字?",
    "~おはようございます",
    "~🦊🌲🎈",
    "~صباح الخير",
)
