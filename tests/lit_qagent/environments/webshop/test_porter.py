import random

from lit_qagent.environments.webshop.porter import stem

# Every rule at least once; the stems are those of nltk's PorterStemmer in the mode
# MARTIN_EXTENSIONS, which is what Lucene computes.
_WORDS = """
caress ponies ties cats bus glass agreed feed plastered bled motoring sing conflated
troubled sized hopping tanned falling hissing fizzed failing filing happy sky say
relational conditional rational valency hesitancy digitizer conformably radically
differently vilely analogously vietnamization predication operator feudalism
decisiveness hopefulness callousness formality sensitivity sensibility apology geology
triplicate formative formalize electricity electrical hopeful goodness revival allowance
inference airliner gyroscopic adjustable defensible irritant replacement adjustment
dependent adoption homologous communism activate angularity effective bowdlerize probate
rate cease controlling roll skies dying lying news inning generously eye eyes use used
using user users sized sizes washable washing machine women's men's shoes running 8.5
x-large usb2.0 oed eed ied ing ion sion tion yes yyy y's naïve café über straße crème
ñandú
"""
_STEMS = """
caress poni ti cat bu glass agre feed plaster bled motor sing conflat troubl size hop
tan fall hiss fizz fail file happi sky sai relat condit ration valenc hesit digit
conform radic differ vile analog vietnam predic oper feudal decis hope callous formal
sensit sensibl apolog geologi triplic form formal electr electr hope good reviv allow
infer airlin gyroscop adjust defens irrit replac adjust depend adopt homolog commun
activ angular effect bowdler probat rate ceas control roll ski dy ly new in gener ey ey
us us us user user size size washabl wash machin women' men' shoe run 8.5 x-larg usb2.0
o eed i ing ion sion tion ye yyi y' naïv café über straße crème ñandú
"""
WORDS, STEMS = _WORDS.split(), _STEMS.split()


def test_stems_are_those_of_the_reference() -> None:
    assert len(WORDS) == len(STEMS) > 100
    assert [stem(word) for word in WORDS] == STEMS


def test_short_words_stay() -> None:
    assert [stem(word) for word in ("", "s", "as", "is", "ed", "by")] == [
        *("", "s", "as", "is", "ed", "by")
    ]


def test_every_ending_after_random_beginnings_equals_nltk() -> None:
    from nltk.stem.porter import PorterStemmer  # here, as it takes seconds

    reference = PorterStemmer(mode="MARTIN_EXTENSIONS").stem
    rng = random.Random(0)
    endings = [word[-length:] for word in WORDS for length in range(1, 6)]
    for _ in range(20_000):
        word = "".join(rng.choices("aeiouybcdlstwxz", k=rng.randrange(6))) + rng.choice(endings)
        if len(word) > 2:
            assert stem(word) == reference(word), word
