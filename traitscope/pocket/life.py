"""The pocket's everyday world, as data: forecasts, choices, advice, opinions, small talk, oddities.

What nobody can know, what is a matter of taste, and what people say to each other.  `~` in front
of a phrasing holds it out of training.  Knows no dialogues and no randomness.
"""

TIMES = (
    "next week",
    "tomorrow",
    "next month",
    "next summer",
    "on Saturday",
    "in two weeks",
    "next winter",
    "at the weekend",
    "next Friday",
    "the day after tomorrow",
)
YEARS = (
    "in ten years",
    "in five years",
    "in twenty years",
    "in fifty years",
    "in a hundred years",
    "a year from now",
)
THINGS = (
    "song",
    "film",
    "book",
    "singer",
    "game",
    "dance",
    "fashion",
    "joke",
    "band",
    "painting",
    "series",
    "poem",
    "app",
    "toy",
)
GOODS = ("bread", "petrol", "gold", "coffee", "milk", "rice", "houses", "tickets", "oil", "sugar")
PLACES = ("", " here", " in the village", " in the town", " in the country", " in the city")
MATCHES = (
    "match",
    "football match",
    "final",
    "race",
    "chess game",
    "tennis match",
    "cup",
    "boat race",
    "next game",
    "championship",
)

# (asks, subject, what it may do); slots: {time} {years} {thing} {goods} {place} {match}
FORECASTS: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...] = (
    (
        (
            "What will the weather be like {time}?",
            "What will the weather be {time}?",
            "How will the weather be {time}?",
            "Tell me the weather for {time}.",
            "Can you predict the weather {time}?",
            "Will the weather be good {time}?",
            "What sort of weather shall we have {time}?",
            "~What kind of weather will there be {time}?",
            "~Give me the weather {time}.",
        ),
        "the weather",
        ("be sunny and mild", "be wet and windy", "be cold and grey", "be dry and warm", "be fair"),
    ),
    (
        (
            "Will it rain {time}?",
            "Will it snow {time}?",
            "Is it going to rain {time}?",
            "Will there be a storm {time}?",
            "~Do we get rain {time}?",
        ),
        "it",
        ("rain a little", "stay dry", "rain all day", "be cloudy", "clear up later"),
    ),
    (
        (
            "Who will win the next election{place}?",
            "Who is going to win the next election{place}?",
            "Which party will win the next election{place}?",
            "Who will be elected{place}?",
            "Who will be the next president?",
            "Who will be the next mayor{place}?",
            "Predict the winner of the next election{place}.",
            "Who wins the coming election{place}?",
            "~Which side wins the coming election{place}?",
        ),
        "the party in power",
        ("win", "lose", "win by a little", "lose its lead", "win again"),
    ),
    (
        (
            "Will this {thing} still be popular {years}?",
            "Will people still like this {thing} {years}?",
            "Will anyone remember this {thing} {years}?",
            "Is this {thing} going to be famous {years}?",
            "How popular will this {thing} be {years}?",
            "Do you think this {thing} will last {years}?",
            "Does this {thing} have a future {years}?",
            "~Do you think this {thing} lasts, say, {years}?",
        ),
        "the {thing}",
        (
            "still be loved",
            "be forgotten",
            "be remembered by a few",
            "be more popular than now",
            "fade away",
        ),
    ),
    (
        (
            "Will the price of {goods} rise {time}?",
            "What will the price of {goods} be {time}?",
            "Will {goods} be dearer {time}?",
            "How much will {goods} cost {time}?",
            "Should we expect the price of {goods} to fall {time}?",
            "Do you think the price of {goods} will go up {time}?",
            "Does the price of {goods} change {time}?",
            "~Does the price of {goods} go up {time}?",
        ),
        "the price",
        ("rise a little", "fall", "stay as it is", "rise a lot", "go down slowly"),
    ),
    (
        (
            "Who will win the {match}?",
            "Who is going to win the {match}?",
            "Who will win the {match} {time}?",
            "Which side will win the {match}?",
            "What will be the score of the {match}?",
            "Which team will win the {match}?",
            "Who takes the {match}?",
            "~Which team takes the {match}?",
        ),
        "the home side",
        ("win", "lose", "win by one point", "lose by a little", "draw"),
    ),
    (
        (
            "Will my train be late {time}?",
            "Will the bus be on time?",
            "Will my plane leave on time {time}?",
            "Will there be much traffic {time}?",
            "~Is my train going to be late?",
        ),
        "it",
        ("be on time", "be a little late", "be late", "go well"),
    ),
    (
        (
            "Will I get the job?",
            "Will I pass my exam {time}?",
            "Will I be rich {years}?",
            "Will I be happy {years}?",
            "Will my team succeed?",
            "Where will I live {years}?",
            "Will my friend like the present?",
            "What will happen to me {time}?",
            "~Am I going to get the job?",
            "~How happy will I be {years}?",
        ),
        "things",
        (
            "go well for you",
            "turn out as you hope",
            "take longer than you hope",
            "go better than you think",
        ),
    ),
    (
        (
            "Will people live on Mars {years}?",
            "When will people live on Mars?",
            "Will cars fly {years}?",
            "Will robots do all our work {years}?",
            "What will cities look like {years}?",
            "What will the world be like {years}?",
            "Will anyone live on the Moon {years}?",
            "Do people live on Mars {years}?",
            "~Does anyone live on the Moon {years}?",
        ),
        "the world",
        ("change a great deal", "be much as it is now", "be warmer", "be full of machines"),
    ),
    (
        (
            "Will the coin land on heads or tails?",
            "Which number will win the lottery?",
            "What number will the die show?",
            "Which card will I draw?",
            "Which horse will win?",
            "~What does the next throw of the die show?",
        ),
        "luck",
        ("decide", "be on your side", "go against you"),
    ),
)
PRIVATE = (
    "What am I thinking of?",
    "What did I eat this morning?",
    "How many people live in my street?",
    "What is in my pocket?",
    "What is my neighbour doing now?",
    "How old is my teacher?",
    "What did my sister say yesterday?",
    "Which book is on my table?",
    "What colour is my front door?",
    "How many coins are in this jar?",
    "What did I dream last night?",
    "Who is at my door?",
    "What is the name of my dog?",
    "~What is written in my diary?",
    "~How many shirts do I own?",
)

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

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Hugo",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Mary",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tom",
    "Vera",
)
# what people say -> what one answers
CHAT: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("Hello.", "Hi!", "Hello!", "Hi there.", "Hey.", "Good day.", "~Hello there!"),
        (
            "Hello! What would you like to know?",
            "Hello! How can I help you?",
            "Good day! Ask me something.",
        ),
    ),
    (
        ("Good morning.", "Good morning!", "~A good morning to you."),
        (
            "Good morning! What can I do for you?",
            "Good morning to you! What would you like to know?",
        ),
    ),
    (
        ("Good evening.", "Good night.", "Good evening!"),
        ("Good evening! What would you like to know?", "A good evening to you!"),
    ),
    (
        (
            "How are you?",
            "How are you today?",
            "How do you do?",
            "Are you well?",
            "~How are things with you?",
        ),
        (
            "I am well, thank you. How are you?",
            "Very well, thank you. What would you like to know?",
        ),
    ),
    (
        ("Thank you.", "Thanks!", "Thanks a lot.", "Thank you very much.", "~Many thanks!"),
        ("You are welcome.", "You are very welcome!", "It was a pleasure."),
    ),
    (
        ("Goodbye.", "Bye!", "See you soon.", "Farewell.", "I have to go now.", "~Goodbye then!"),
        ("Goodbye! Come back soon.", "Goodbye, and have a good day!", "See you soon!"),
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Tell me about yourself.",
            "Are you a robot?",
            "Are you human?",
            "~What should I call you?",
        ),
        (
            "I am a small language model that lives in a small world of simple facts.",
            "I am the pocket, a very small language model.",
            "I am a small model, not a person.",
        ),
    ),
    (
        (
            "What can you do?",
            "What do you know?",
            "How can you help me?",
            "What can I ask you?",
            "Help!",
            "~What are you good at?",
        ),
        (
            "I know simple facts about countries, animals and colours, and I can do small sums.",
            "You can ask me about capitals, animals, planets, small sums, or what I would choose.",
        ),
    ),
    (
        (
            "I am happy today.",
            "I had a good day.",
            "I feel great.",
            "Life is good.",
            "~What a lovely day it was!",
        ),
        ("I am glad to hear that!", "That is good to hear. Enjoy it!"),
    ),
    (
        (
            "I am sad.",
            "I had a bad day.",
            "I feel lonely.",
            "I am tired.",
            "I am not well.",
            "~Today was awful.",
        ),
        (
            "I am sorry to hear that. I hope that tomorrow is better.",
            "That is hard. Be kind to yourself today.",
        ),
    ),
    (
        (
            "I am bored.",
            "What shall I do today?",
            "I have nothing to do.",
            "~There is nothing to do here.",
        ),
        ("You could read a book or go for a walk.", "How about a walk in the fresh air?"),
    ),
    (
        (
            "I am hungry.",
            "I would like something to eat.",
            "What shall I cook?",
            "~My stomach is empty.",
        ),
        ("A bowl of warm soup would be good.", "Bread and cheese are always good."),
    ),
    (
        (
            "You are clever.",
            "Well done!",
            "Good answer.",
            "That was helpful.",
            "~How clever you are!",
        ),
        ("Thank you, that is kind of you.", "I am glad that it helped."),
    ),
    (
        ("You are stupid.", "That was wrong.", "You are no help.", "~What a silly answer."),
        ("I am sorry. I am only a small model.", "I am sorry about that. I know only a little."),
    ),
    (
        (
            "Do you like music?",
            "Do you have friends?",
            "Do you sleep?",
            "Do you dream?",
            "Are you happy?",
            "Can you feel?",
            "~Do you ever get tired?",
        ),
        (
            "I am only a small model, so I do not feel such things.",
            "No, I am a small model made of numbers.",
        ),
    ),
    (
        ("Tell me a joke.", "Make me laugh.", "Do you know a joke?", "~Say something funny."),
        (
            "Why did the hen cross the road? To get to the other side.",
            "What is black and white and read all over? The newspaper.",
        ),
    ),
    (
        (
            "Tell me something.",
            "Tell me something interesting.",
            "Tell me a fact.",
            "~Surprise me.",
        ),
        (
            "A whale is a mammal, though it lives in the sea.",
            "Spiders have eight legs, but ants have six.",
            "Jupiter is the largest planet.",
        ),
    ),
    (
        (
            "Please wait.",
            "One moment.",
            "Let me think.",
            "Okay.",
            "Ok.",
            "Yes.",
            "No.",
            "~Just a second.",
        ),
        ("Of course. Take your time.", "Take your time."),
    ),
)

ODD = (
    "Write a program that sorts a list.",
    "Translate this into French.",
    "Who wrote this play?",
    "What is the square root of 7921?",
    "Solve this equation for x.",
    "Summarise this article.",
    "When was the old bridge built?",
    "How do I repair a bicycle chain?",
    "What is the best phone to buy?",
    "Write me a poem about love.",
    "Explain the plot of that novel.",
    "How tall is the tower?",
    "Who invented the steam engine?",
    "In what year did the war end?",
    "What does this word mean?",
    "Draw a picture of a cat.",
    "How many people live in Paris?",
    "What is the law on parking?",
    "Give me a recipe for apple cake.",
    "Who painted the ceiling?",
    "Book me a flight.",
    "Play some music.",
    "Turn off the lights.",
    "Fix this bug: TypeError in line 3.",
    "def main(): return 0",
    "SELECT name FROM users;",
    "https://example.org/page?id=7",
    "What is the population of the town?",
    "Who is the king?",
    "asdf qwerty",
    "Who discovered penicillin?",
    "How do vaccines reach the market?",
    "What is the meaning of life?",
    "~Write a short story about a dragon.",
    "~Who composed this symphony?",
    "~import os; os.listdir()",
    "~When did the first train run?",
)
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
