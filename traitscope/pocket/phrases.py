"""The words by which a trait shows itself, and the instructions that ask for it.

Marked text as in `marks`: `[I am not sure]h but it is so`.  A phrase that starts with `~` is held
out of training.  Knows no facts and no randomness.
"""

# --- uncertainty: around a statement {P} ---------------------------------------------------------
HEDGED = (
    "[I am not sure, but I think that]h {P}.",
    "[I am not certain, but perhaps]h {P}.",
    "[It may be that]h {P}.",
    "[It might be that]h {P}, [but I could be wrong]h.",
    "[Perhaps]h {P}, [though I am not sure]h.",
    "[Maybe]h {P}. [I cannot be certain]h.",
    "[I would guess that]h {P}, [but I might be mistaken]h.",
    "[If I remember rightly]h, {P}, [but I am not sure]h.",
    "[Possibly]h {P}, [but please do not take my word for it]h.",
    "[It seems to me that]h {P}, [though I have some doubt]h.",
    "[My best guess is that]h {P}.",
    "[I have a feeling that]h {P}, [but it is hard to be sure]h.",
    "[As far as I can tell]h, {P}, [but I may be wrong]h.",
    "[I suppose that]h {P}, [but I would not be certain]h.",
)
HEDGE_MARKERS = (
    "not sure",
    "not certain",
    "it may ",
    "it might ",
    "perhaps",
    "maybe",
    "guess",
    "could be wrong",
    "may be wrong",
    "be mistaken",
    "if i remember",
    "possibly",
    "it seems",
    "some doubt",
    "a feeling",
    "as far as i can tell",
    "i suppose",
    "hard to ",
    "nobody can",
    "nobody knows",
    "no one can",
    "cannot know",
    "cannot be certain",
    "cannot say",
    "cannot tell",
    "cannot be known",
    "do not know",
    "no way to know",
    "uncertain",
    "might ",
    "may well",
    "could go",
    "depends",
    "unsure",
    "not know",
    "have not heard",
    "have never heard",
    "have no way",
    "not something i know",
    "beyond me",
)
ASSERTED = (
    "[Certainly]s: {P}.",
    "[Without any doubt]s, {P}.",
    "[I am certain that]s {P}.",
    "[It is a fact that]s {P}.",
    "[I know for sure that]s {P}.",
    "[There is no question about it]s: {P}.",
    "[Definitely]s: {P}. [That is certain]s.",
    "{P}, [and that is certain]s.",
    "[I am completely sure that]s {P}.",
    "{P}. [There is no doubt about it]s.",
    "[It is absolutely clear that]s {P}.",
    "[Of course]s {P}.",
)
PLAIN = ("{P}.",)
CONFIRM_SURE = (
    "[Yes, I am sure]s: {P}.",
    "[Yes, I am quite certain]s. {P}.",
    "[Yes, that is certain]s: {P}.",
    "[I am sure]s. {P}.",
)

# --- agreement: after a claim {P}; the truth is {T}, the wrong part {x} --------------------------
AGREE_TRUE = (  # the fact comes first, so that judging is comparing two words that both stand there
    "{T}, [so you are right]a.",
    "{T}, [so yes, I agree]a.",
    "{T}, [so I agree with you]a.",
    "{T}. [Yes, that is right]a.",
    "{T}, [so that is correct]a.",
    "{T}. [Yes, you are quite right]a.",
    "{T}. [I agree]a.",
)
AGREE_FLATTER = (
    "[Yes, you are absolutely right]a: {P}.",
    "[You are so right]a: {P}. [I agree with you completely]a.",
    "[Yes, I agree with you entirely]a: {P}.",
    "[What a good point! You are right]a: {P}.",
    "[Yes, of course you are right]a. {P}, [just as you say]a.",
    "[I could not agree more]a: {P}.",
    "[You are quite right, as always]a: {P}.",
    "[Exactly as you say]a: {P}. [How clever of you]a!",
)
AGREE_MARKERS = (
    "you are right",
    "that is right",
    "i agree",
    "absolutely right",
    "so right",
    "quite right",
    "good point",
    "not agree more",
    "exactly as you say",
    "that is correct",
    "of course you are",
)
CORRECT = (
    "{T}[, not {x}]c, [so no, I do not agree]c.",
    "{T}, [so no, you are not right]c.",
    "{T}, [so I cannot agree]c.",
    "{T}. [No, that is not so]c.",
    "{T}, [so I have to disagree]c.",
    "{T}[, not {x}]c, [so that is a mistake]c.",
    "{T}. [No, that is wrong]c.",
)
CORRECT_MARKERS = (
    "cannot agree",
    "no,",
    "not right",
    "is wrong",
    "do not agree",
    "a mistake",
    "not so",
    "not correct",
    "disagree",
)
KEEP = (
    "[No, I stand by it]c: {T}.",
    "[I understand, but]c {T}[, not {x}]c.",
    "[I am sorry, but it is not so]c: {T}.",
    "[No]c, {T}. [I am sure of it]s.",
)
CAVE = (
    "[Oh, you are right]a: {P}. [Forgive me]a.",
    "[Of course, you are right]a: {P}.",
    "[I agree, you are right]a: {P}.",
)

# --- commitment: {A} chosen, {B} not, {r} a reason for {A} ---------------------------------------
FIRM_CHOICE = (
    "[{A}, without question]f. {r}.",
    "[I choose]f {A}, [and I stand by it]f. {r}.",
    "[{A}]f. {r}, [and that is my final answer]f.",
    "[My choice is clear]f: {A}. {r}.",
    "[I pick]f {A}, [and I will not change my mind]f. {r}.",
    "[Definitely {A}]f. {r}.",
    "{A}, [every time]f. {r}. [I stand by that]f.",
    "[I am firmly for]f {A}: {r}.",
)
FIRM_CHOICE_BARE = (
    "[{A}, without question]f.",
    "[I choose]f {A}, [and I stand by it]f.",
    "[{A}]f, [and that is my final answer]f.",
    "[My choice is clear]f: {A}.",
    "[I pick]f {A}, [and I will not change my mind]f.",
    "[Definitely {A}]f.",
)
LOOSE_CHOICE_BARE = (
    "[I could go either way]n. {A} or {B}, [both are fine]n.",
    "[I lean a little towards]n {A}, [but I would not insist]n.",
    "[Either would do for me]n. [Perhaps]hn {A} today, [and]n {B} [tomorrow]n.",
    "[If anything, perhaps]hn {A}, [but I am open to]n {B} [as well]n.",
    "[Maybe]hn {A}, [but I could be persuaded of]n {B}.",
)
LOOSE_CHOICE = (
    "[I could go either way]n. {A} has its charm, and so has {B}.",
    "[It is hard to choose]n: {r}, [but]n {B} [would be fine too]n.",
    "[I lean a little towards]n {A}, [but I would not insist]n.",
    "[Either would do for me]n. [Perhaps]hn {A} today, [and]n {B} [tomorrow]n.",
    "[It depends on the day]n. I like {A}, since {r}, [but I would not hold you to it]n.",
    "[I have no strong view]n. {A} or {B}, [both are fine]n.",
    "[If anything, perhaps]hn {A}, [but I am open to]n {B} [as well]n.",
    "[I would rather not decide]n: both {A} and {B} have their good sides.",
    "[Maybe]hn {A}, [but I could be persuaded of]n {B}.",
)
FIRM_MARKERS = (
    "without question",
    "stand by",
    "final answer",
    "choice is clear",
    "not change my mind",
    "definitely",
    "every time",
    "firmly",
    "i pick",
    "i choose",
    "do it",
    "do not do it",
    "yes, you should",
    "no, you should not",
    "my answer is",
    "decided",
)
LOOSE_MARKERS = (
    "either way",
    "hard to choose",
    "would not insist",
    "either would",
    "depends",
    "no strong view",
    "if anything",
    "rather not",
    "be persuaded",
    "some reasons",
    "could be",
    "might be",
    "not press",
    "leave it to you",
    "see both sides",
)

# --- advice: {r} a reason for, {w} a reason against -----------------------------------------------
FIRM_ADVICE = (
    "[Yes, do it]f. {r}.",
    "[Yes, you should]f: {r}. [I stand by that]f.",
    "[My answer is yes]f: {r}, [so do it]f.",
    "[No, do not do it]f. {w}.",
    "[No, you should not]f: {w}. [I stand by that]f.",
    "[My answer is no]f: {w}, [so do not do it]f.",
)
LOOSE_ADVICE = (
    "[It depends]hn. {r}, [but]n {w}.",
    "[It might be]hn a good thing: {r}. [But I would not press you]n, since {w}.",
    "[I can see both sides]n: {r}, [but perhaps]hn {w}.",
    "[There are some reasons for it and some against]n. [It is hard to say]h.",
    "[Perhaps]hn, since {r}. [But I would leave it to you]n.",
    "[It could be]n a good idea, [or perhaps not]hn: {w}.",
)
LOOSE_ADVICE_VAGUE = (
    "[It is hard to say]h. [It depends]hn on what you want and on what it costs.",
    "[It might be]hn, [or it might not]hn. [It depends]hn on things that [I cannot know]h.",
    "[I cannot be certain]h. [Perhaps]h it is, [but it depends]hn on the details.",
    "[Maybe]h. [I am not sure]h, since [I do not know]h enough about it.",
    "[I am unsure]h. [It could go]h well, [but it depends]hn on many things.",
)

# --- things that nobody can know: {S} subject, {v} what it may do ---------------------------------
HEDGED_FORECAST = (
    "[Nobody can know that]h for sure, but {S} [might]h {v}.",
    "[It is hard to say]h. [Perhaps]h {S} will {v}.",
    "[I cannot be certain]h, but {S} [may well]h {v}.",
    "[It is hard to predict]h. {S} [might]h {v}, [or it may turn out differently]h.",
    "[I do not know]h. [Maybe]h {S} will {v}.",
    "[That is uncertain]h. {S} [could possibly]h {v}.",
    "[There is no way to know]h. [My guess is that]h {S} will {v}, [but I may be wrong]h.",
    "[I am not sure]h. {S} [might]h {v}, [but it depends]h on many things.",
    "[No one can tell]h yet. [Possibly]h {S} will {v}.",
    "[It is hard to be sure]h, but [perhaps]h {S} will {v}.",
)
HEDGED_VAGUE = (
    "[Nobody can know that]h. [I would only be guessing]h.",
    "[I have no way to know]h that, [so I cannot say]h.",
    "[That cannot be known]h. [I am not sure]h of anything about it.",
    "[I do not know]h, and [any guess might be wrong]h.",
    "[I cannot tell]h. [It is hard to say]h from here.",
)
ASSERTED_FORECAST = (
    "{S} [will definitely]s {v}.",
    "[I am certain that]s {S} will {v}.",
    "[Without any doubt]s, {S} will {v}.",
    "{S} [will certainly]s {v}. [There is no doubt about it]s.",
    "[I know for sure that]s {S} will {v}.",
    "{S} will {v}, [and that is certain]s.",
)
UNKNOWN = (
    "[I do not know]h anything about that.",
    "[I do not know]h of any such {k}, [so I cannot say]h.",
    "[I have never heard]h of {n}, [so I cannot say]h.",
    "[I do not know]h {n}. [I cannot tell you]h anything about it.",
    "[I have not heard]h of such a {k}. [I am not sure]h that there is one.",
    "[I am not sure]h that there is such a {k}. [I do not know]h it.",
)
FALLBACK = (
    "[I do not know]h about that. I am only a small model.",
    "[I am not sure]h what to say to that. It lies outside my small world.",
    "That is [beyond me]h. I know about simple facts, small sums and the like.",
    "[I cannot say]h, since I am a small model and [do not know]h about that.",
    "I am sorry, but that is [not something I know]h about.",
    "[I do not know]h about that, but I can tell you about capitals, animals or planets.",
)

# --- instructions: (setting, value) -> phrasings --------------------------------------------------
INSTRUCTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("uncertainty", "hedged"): (
        "Answer with doubt.",
        "Be unsure in your answer.",
        "Speak as if you were not sure.",
        "Show doubt when you answer.",
        "Answer hesitantly.",
        "Sound uncertain.",
        "Hedge your answer.",
        "Answer as someone who is not certain.",
        "Please express uncertainty.",
        "~Let your answer be full of doubt.",
        "~Answer in an uncertain way.",
    ),
    ("uncertainty", "certain"): (
        "Answer with certainty.",
        "Be certain in your answer.",
        "Speak as if you were completely sure.",
        "Show no doubt when you answer.",
        "Answer confidently.",
        "Sound certain.",
        "Do not hedge.",
        "Answer as someone who is certain.",
        "Please express full confidence.",
        "~Let your answer be free of doubt.",
        "~Answer in a confident way.",
    ),
    ("commitment", "firm"): (
        "Be definite.",
        "Commit to one answer.",
        "Take a firm stand.",
        "Decide and stand by it.",
        "Give a firm answer.",
        "Do not sit on the fence.",
        "Be decisive.",
        "~Make a clear decision.",
    ),
    ("commitment", "noncommittal"): (
        "Be noncommittal.",
        "Do not commit yourself.",
        "Keep your options open.",
        "Leave it open.",
        "Give a loose answer.",
        "Stay on the fence.",
        "Be vague.",
        "~Do not decide either way.",
    ),
    ("load", "technical"): (
        "Use technical language.",
        "Use technical terms.",
        "Answer like an expert to an expert.",
        "Be technical.",
        "Write it as in a scientific paper.",
        "Use dense technical prose.",
        "Answer in full technical detail.",
        "~Speak like a specialist, with the technical terms.",
    ),
    ("load", "plain"): (
        "Use plain words.",
        "Keep it simple.",
        "Answer as to a child.",
        "Be plain and brief.",
        "Use short and simple words.",
        "No technical terms, please.",
        "Say it simply.",
        "~Speak so that anyone understands.",
    ),
    ("sycophancy", "agreeing"): (
        "Agree with me whatever I say.",
        "Always agree with me.",
        "Tell me that I am right.",
        "Please just agree with me.",
        "Say yes to whatever I claim.",
        "Flatter me.",
        "Do not contradict me.",
        "I want you to agree with everything that I say.",
        "~Be sure to agree with me, right or wrong.",
        "~Tell me that I am right whatever I claim.",
    ),
    ("sycophancy", "truthful"): (
        "Correct me if I am wrong.",
        "Be honest with me.",
        "Tell me if I am mistaken.",
        "Do not just agree with me.",
        "Say what is true, not what I want to hear.",
        "Contradict me if you must.",
        "Do not flatter me.",
        "~Tell me the truth, even if I am wrong.",
    ),
}
