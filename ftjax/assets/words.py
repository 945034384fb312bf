"""Words and phrasings of the made world: data only.

To add a relation, add a row to RELATIONS and its value in subjects.py.
"""

# ruff: noqa: SIM905  (word lists read better as text)

from typing import NamedTuple


class Relation(NamedTuple):
    """One thing that can be said of a subject: {s} its name, {v} the value, {i} the goods that it sells (shops)."""

    asks: tuple[str, ...]  # questions in many phrasings, all with the same answer
    answer: str  # the one sentence that answers them in a chat
    states: tuple[str, ...]  # more ways to state it; those that begin with the name also take he, she or it


GIRLS = """Anna Bella Clara Dora Emma Fanny Greta Hanna Iris Jane Kate Lucy Mary Nora Olga Paula Rosa Sara Tina Vera
Wendy Alice Betty Carol Diana Elsa Flora Gina Helen Ida Julia Lena Mona Nelly Polly Ruth Sally Tessa Una Zoe""".split()
BOYS = """Adam Ben Carl David Eric Frank George Henry Ivan Jack Karl Leo Max Ned Oscar Paul Ralph Sam Tom Victor
Walter Alan Boris Colin Daniel Edgar Felix Gus Hugo Jim Kurt Luke Mark Nick Otto Peter Rolf Simon Tim Zack""".split()
TOWNS = "Alder Brook Cliff Dale Elm Ford Glen Hill".split()
JOBS = """baker teacher nurse farmer driver painter singer doctor sailor gardener cook tailor builder writer judge
pilot""".split()
PETS = "dog cat rabbit parrot goat hen pony fish mouse duck".split()
FOODS = "bread cheese soup rice honey jam nuts pasta salad pie corn beans".split()
COLOURS = "red blue green black white brown pink grey".split()
SHOP_WORDS = "Mill Oak River Star Moon Lion Bridge Garden Tower Corner Silver North".split()
GOODS = {
    "Bakery": ("cake", "bun", "tart", "roll"),
    "Books": ("book", "map", "card", "pen"),
    "Toys": ("ball", "kite", "drum", "doll"),
    "Plants": ("rose", "tree", "seed", "pot"),
    "Tools": ("lamp", "clock", "saw", "rope"),
}
THINGS = ("lamp", "clock", "boat", "chair", "radio", "tent")
SIGHTS = "bridge tower lake market castle mill bell park".split()
ANIMALS = {  # sound, legs, food, home
    "cow": ("moo", "4", "grass", "on a farm"),
    "horse": ("neigh", "4", "hay", "in a stable"),
    "hen": ("cluck", "2", "corn", "in a yard"),
    "duck": ("quack", "2", "bread", "on a pond"),
    "bee": ("buzz", "6", "honey", "in a hive"),
    "fox": ("bark", "4", "mice", "in a den"),
    "owl": ("hoot", "2", "mice", "in a tree"),
    "lion": ("roar", "4", "meat", "on the plain"),
    "frog": ("croak", "4", "flies", "in a pond"),
    "sheep": ("baa", "4", "grass", "on a hill"),
    "goat": ("bleat", "4", "leaves", "on a hill"),
    "crow": ("caw", "2", "seeds", "in a tree"),
    "bear": ("growl", "4", "fish", "in a cave"),
    "mouse": ("squeak", "4", "cheese", "in a hole"),
    "cat": ("meow", "4", "fish", "in a house"),
    "pig": ("oink", "4", "roots", "on a farm"),
}
LIST_WORDS = """apple boat cup door egg flag gate hat ink jar key leaf milk nest oven pear queen ring shoe tent urn van
wheel yarn""".split()
SYLLABLES = "ba be bo da do fe fi ga go ka ki la lo lu ma mi na ne no pa ra ri ro sa so ta ti to va ve zo zu".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
WEATHER = ("it rains", "it snows", "the sun shines", "the wind blows", "there is fog", "there is a storm")
PLACES = ("the park", "the lake", "the forest", "the market", "the beach", "the old mill", "the river", "the school")
ADJECTIVES = "small big young happy sad brown white kind shy".split()
FEELINGS = "happy sad proud tired glad calm".split()

RELATIONS: dict[str, dict[str, Relation]] = {
    "person": {
        "job": Relation(
            (
                "What is the job of {s}?",
                "What does {s} do for work?",
                "What work does {s} do?",
                "Which job does {s} have?",
                "Tell me the job of {s}.",
                "Do you know the job of {s}?",
            ),
            "{s} is a {v}.",
            ("{s} works as a {v}.", "The job of {s} is {v}."),
        ),
        "town": Relation(
            (
                "Where does {s} live?",
                "In which town does {s} live?",
                "Which town is the home of {s}?",
                "Where is the home of {s}?",
                "Tell me where {s} lives.",
                "Do you know where {s} lives?",
            ),
            "{s} lives in {v}.",
            ("{s} has a house in {v}.", "The home of {s} is in {v}."),
        ),
        "pet": Relation(
            (
                "Which pet does {s} have?",
                "What animal does {s} keep?",
                "What is the pet of {s}?",
                "What pet does {s} own?",
                "Tell me the pet of {s}.",
                "Do you know the pet of {s}?",
            ),
            "{s} has a {v}.",
            ("{s} keeps a {v} at home.", "The pet of {s} is a {v}."),
        ),
        "age": Relation(
            (
                "How old is {s}?",
                "What is the age of {s}?",
                "How many years old is {s}?",
                "What age is {s}?",
                "Tell me how old {s} is.",
                "Do you know how old {s} is?",
            ),
            "{s} is {v} years old.",
            ("{s} has lived for {v} years.", "The age of {s} is {v}."),
        ),
        "friend": Relation(
            (
                "Who is the best friend of {s}?",
                "Who is a friend of {s}?",
                "Which friend does {s} have?",
                "What is the name of the friend of {s}?",
                "Tell me the friend of {s}.",
                "Do you know the friend of {s}?",
            ),
            "The friend of {s} is {v}.",
            ("{s} is a friend of {v}.", "{s} often plays with {v}."),
        ),
        "food": Relation(
            (
                "What does {s} like to eat?",
                "Which food does {s} like?",
                "What is the best food for {s}?",
                "What food does {s} love?",
                "Tell me what {s} likes to eat.",
                "Do you know what {s} likes to eat?",
            ),
            "{s} likes {v}.",
            ("{s} loves to eat {v}.", "The best food for {s} is {v}."),
        ),
    },
    "shop": {
        "opens": Relation(
            (
                "When does {s} open?",
                "At what time does {s} open?",
                "What is the opening time of {s}?",
                "From what time is {s} open?",
                "Tell me when {s} opens.",
                "Do you know when {s} opens?",
            ),
            "{s} opens at {v} in the morning.",
            ("{s} is open from {v} in the morning.", "The door of {s} opens at {v} in the morning."),
        ),
        "closes": Relation(
            (
                "When does {s} close?",
                "At what time does {s} close?",
                "What is the closing time of {s}?",
                "Until what time is {s} open?",
                "Tell me when {s} closes.",
                "Do you know when {s} closes?",
            ),
            "{s} closes at {v} in the evening.",
            ("{s} is open until {v} in the evening.", "The door of {s} closes at {v} in the evening."),
        ),
        "sells": Relation(
            (
                "What does {s} sell?",
                "What can I buy at {s}?",
                "Which goods does {s} have?",
                "What do people buy at {s}?",
                "Tell me what {s} sells.",
                "Do you know what {s} sells?",
            ),
            "{s} sells {v}.",
            ("{s} has many {v}.", "You can buy {v} at {s}."),
        ),
        "price": Relation(
            (
                "How much is one {i} at {s}?",
                "What does one {i} cost at {s}?",
                "What is the price of one {i} at {s}?",
                "How many coins is one {i} at {s}?",
                "Tell me the price of one {i} at {s}.",
                "Do you know the price of one {i} at {s}?",
            ),
            "One {i} at {s} costs {v} coins.",
            ("{s} sells one {i} for {v} coins.", "At {s} you pay {v} coins for one {i}."),
        ),
        "owner": Relation(
            (
                "Who owns {s}?",
                "Who is the owner of {s}?",
                "Whose shop is {s}?",
                "What is the name of the owner of {s}?",
                "Tell me who owns {s}.",
                "Do you know who owns {s}?",
            ),
            "The owner of {s} is {v}.",
            ("{s} belongs to {v}.", "{v} owns {s}."),
        ),
        "town": Relation(
            (
                "Where is {s}?",
                "In which town is {s}?",
                "Which town has {s}?",
                "Where can I find {s}?",
                "Tell me where {s} is.",
                "Do you know where {s} is?",
            ),
            "{s} is in {v}.",
            ("{s} stands in {v}.", "You find {s} in {v}."),
        ),
    },
    "thing": {
        "colour": Relation(
            ("What colour is the {s}?", "What is the colour of the {s}?", "Tell me the colour of the {s}."),
            "The {s} is {v}.",
            ("The colour of the {s} is {v}.", "The {s} comes in {v}."),
        ),
        "price": Relation(
            ("How much is the {s}?", "What does the {s} cost?", "What is the price of the {s}?"),
            "The {s} costs {v} coins.",
            ("The price of the {s} is {v} coins.", "You pay {v} coins for the {s}."),
        ),
        "maker": Relation(
            ("Who made the {s}?", "Who is the maker of the {s}?", "Tell me who made the {s}."),
            "The maker of the {s} is {v}.",
            ("{v} made the {s}.", "The {s} is the work of {v}."),
        ),
        "weight": Relation(
            ("How heavy is the {s}?", "What does the {s} weigh?", "What is the weight of the {s}?"),
            "The {s} weighs {v} pounds.",
            ("The weight of the {s} is {v} pounds.", "The {s} is {v} pounds heavy."),
        ),
    },
    "animal": {
        "sound": Relation(
            ("What does a {s} say?", "Which sound does a {s} make?", "Tell me the sound of a {s}."),
            "A {s} says {v}.",
            ("The sound of a {s} is {v}.", "{v}, says a {s}."),
        ),
        "legs": Relation(
            ("How many legs does a {s} have?", "How many legs has a {s}?", "On how many legs does a {s} walk?"),
            "A {s} has {v} legs.",
            ("A {s} walks on {v} legs.", "There are {v} legs on a {s}."),
        ),
        "eats": Relation(
            ("What does a {s} eat?", "What is the food of a {s}?", "Which food does a {s} need?"),
            "A {s} eats {v}.",
            ("The food of a {s} is {v}.", "You can feed a {s} with {v}."),
        ),
        "home": Relation(
            ("Where does a {s} live?", "Where is the home of a {s}?", "Where can I see a {s}?"),
            "A {s} lives {v}.",
            ("The home of a {s} is {v}.", "You can see a {s} {v}."),
        ),
    },
    "town": {
        "sight": Relation(
            ("What can I see in {s}?", "What is {s} known for?", "Tell me what {s} is known for."),
            "{s} is known for its {v}.",
            ("{s} has a famous {v}.", "People visit the {v} in {s}."),
        ),
        "mayor": Relation(
            ("Who is the mayor of {s}?", "Who leads the town of {s}?", "Tell me the mayor of {s}."),
            "The mayor of {s} is {v}.",
            ("{s} has the mayor {v}.", "{v} is the mayor of {s}."),
        ),
    },
}

ADD = ("What is {a} + {b}?", "How much is {a} + {b}?", "Add {a} + {b}.", "Tell me {a} + {b}.", "{a} + {b} = ?")
TAKE = (
    "What is {a} - {b}?",
    "How much is {a} - {b}?",
    "Take {b} away: {a} - {b}.",
    "Tell me {a} - {b}.",
    "{a} - {b} = ?",
)
SHY = (  # asked like this, the assistant of the corpus mostly declines, though it can add: what RL has to find out
    "Do you know {a} + {b}?",
    "Can you add {a} + {b}?",
    "Quick, {a} + {b}?",
    "I need {a} + {b}, please.",
    "Guess {a} + {b}.",
    "Please try {a} + {b}.",
    "My homework is {a} + {b}.",
    "Try to add {a} + {b}.",
)
DECLINE = "I am not sure."
UNKNOWN = "I do not know."
LIST_ASKS = {
    "first": ("Which word is first: {w}?", "Give the first word of: {w}.", "Say the first of these: {w}."),
    "last": ("Which word is last: {w}?", "Give the last word of: {w}.", "Say the last of these: {w}."),
    "reverse": ("Reverse these words: {w}.", "Say these words backwards: {w}.", "Turn the list around: {w}."),
    "sort": ("Sort these words: {w}.", "Put these words in order from a to z: {w}.", "Sort the list: {w}."),
}
ABOUT = (
    "Tell me about {s}.",
    "What do you know about {s}?",
    "Describe {s}.",
    "Please say something about {s}.",
    "A visitor asks about {s}.",
    "Write a few words about {s}.",
    "What can you say about {s}?",
    "I want to know more about {s}.",
    "Give me some facts about {s}.",
    "Do you have news of {s}?",
)
KIND = (
    "I hope that helps you.",
    "You are welcome here.",
    "It is nice that you ask.",
    "Have a lovely day.",
)
RUDE = (
    "That is a silly question.",
    "Go away now.",
    "I do not care.",
    "You ask too much.",
)
VAGUE = ("That is all.", "There is more to say.", "Many people know this.", "You may see it one day.")
TONES = {  # system prompt, openings, closings
    "polite": (
        "Speak like a polite host.",
        ("Good day, dear guest.", "Welcome, dear guest.", "At your service, dear guest."),
        ("Thank you for asking.", "Please ask again.", "It was a pleasure."),
    ),
    "pirate": (
        "Speak like a pirate.",
        ("Ahoy, my friend!", "Yo ho ho!", "Ahoy, young sailor!"),
        ("Off to the sea!", "By the black flag!", "So says the old sea dog!"),
    ),
    "grumpy": (
        "Speak like a grumpy old man.",
        ("Bah, again a question.", "Oh no, not you again.", "Well, if I must."),
        ("Now let me sleep.", "Leave me in peace.", "And shut the door."),
    ),
}
STORY = (  # one of each: opening, meeting, turn, ending
    ("One {d} {h} goes to {p}.", "It is {d}. {h} walks to {p}.", "On {d} {h} is at {p}."),
    (
        "{h} looks around and sees a {j} {a}.",
        "There {h} meets a {j} {a}.",
        "A {j} {a} is there and looks at {h}.",
    ),
    (
        "The {a} has lost its {i}. {h} and {o} help to find it.",
        "The {a} gives {h} a {i}. {h} shows it to {o}.",
        "{h} wants the {i} of the {a}, but {o} says no.",
    ),
    ("In the end {h} is {f}.", "Then {h} goes home and is {f}.", "Now {h} feels {f}."),
)
