"""The words that generated catalogues are made of."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Department:
    """A part of the shop whose products share features and options.

    Attributes:
        category: WebShop's first-level category.
        path: First parts of the product category; the noun is its last part.
        nouns: What is sold, with the lowest and the highest price in dollars.
        features: Attributes a product may have.
        options: Kinds of options, most important first.
    """

    category: str
    path: tuple[str, str]
    nouns: tuple[tuple[str, float, float], ...]
    features: tuple[str, ...]
    options: tuple[str, ...]


# No value of a kind may look like another one to the reward's fuzzy comparison.
OPTION_VALUES = {
    "color": ("red", "blue", "green", "black", "white", "yellow", "purple", "orange"),
    "size": ("small", "medium", "large", "mini", "king", "petite", "jumbo", "tall"),
    "pattern": ("plain", "striped", "dotted", "checked", "floral", "paisley", "zigzag", "starry"),
    "style": ("modern", "rustic", "classic", "vintage", "nordic", "coastal", "urban", "royal"),
    "edition": ("basic", "plus", "pro", "studio", "travel", "family", "junior", "limited"),
    "scent": ("rose", "lemon", "lavender", "mint", "vanilla", "coconut", "pine", "jasmine"),
    "flavor": ("cocoa", "caramel", "cherry", "ginger", "honey", "almond", "apple", "cinnamon"),
    "pack": ("single", "double", "triple", "quad", "bulk", "sampler", "refill", "gift"),
}

# Where an option stands in an instruction: before the features, or in a clause of its own.
OPTION_PHRASES = {
    "color": "{value} ",
    "pattern": "{value} ",
    "style": "{value} ",
    "size": " in size {value}",
    "edition": " in {value} edition",
    "scent": " with {value} scent",
    "flavor": " with {value} flavor",
    "pack": " in {value} pack",
}

DEPARTMENTS = (
    Department(
        category="fashion",
        path=("Clothing", "Everyday Wear"),
        nouns=(
            ("shirt", 12.0, 48.0),
            ("jacket", 30.0, 120.0),
            ("dress", 20.0, 90.0),
            ("scarf", 8.0, 35.0),
            ("sweater", 18.0, 75.0),
            ("skirt", 15.0, 60.0),
        ),
        features=("cotton", "wool", "linen", "slim fit", "machine washable", "hand made", "soft"),
        options=("color", "size", "pattern"),
    ),
    Department(
        category="garden",
        path=("Home", "Living Spaces"),
        nouns=(
            ("lamp", 14.0, 80.0),
            ("pillow", 9.0, 40.0),
            ("curtain", 16.0, 65.0),
            ("rug", 25.0, 150.0),
            ("mug", 5.0, 22.0),
            ("vase", 10.0, 55.0),
        ),
        features=(
            *("easy clean", "non slip", "hand painted", "space saving", "fade resistant"),
            *("heavy duty", "eco friendly"),
        ),
        options=("color", "size", "style"),
    ),
    Department(
        category="electronics",
        path=("Electronics", "Portable Devices"),
        nouns=(
            ("speaker", 18.0, 130.0),
            ("charger", 8.0, 45.0),
            ("keyboard", 20.0, 110.0),
            ("camera", 60.0, 400.0),
            ("radio", 15.0, 85.0),
            ("headset", 16.0, 140.0),
        ),
        features=(
            *("wireless", "fast charging", "noise cancelling", "water proof", "light weight"),
            *("long lasting", "hands free"),
        ),
        options=("color", "edition", "pack"),
    ),
    Department(
        category="beauty",
        path=("Beauty", "Daily Care"),
        nouns=(
            ("soap", 3.0, 18.0),
            ("shampoo", 5.0, 28.0),
            ("lotion", 6.0, 36.0),
            ("candle", 7.0, 32.0),
            ("balm", 4.0, 20.0),
            ("scrub", 6.0, 30.0),
        ),
        features=(
            *("paraben free", "cruelty free", "alcohol free", "sulfate free", "plant based"),
            *("sensitive skin", "deep cleansing"),
        ),
        options=("scent", "pack", "edition"),
    ),
    Department(
        category="grocery",
        path=("Grocery", "Pantry Staples"),
        nouns=(
            ("coffee", 6.0, 34.0),
            ("tea", 4.0, 26.0),
            ("granola", 5.0, 24.0),
            ("cookie", 3.0, 18.0),
            ("syrup", 5.0, 22.0),
            ("yogurt", 4.0, 16.0),
        ),
        features=(
            *("gluten free", "sugar free", "organic", "fair trade", "low sodium"),
            *("dairy free", "high protein"),
        ),
        options=("flavor", "pack", "edition"),
    ),
)

BRANDS = (
    *("Lina", "Orva", "Tesk", "Mabro", "Quill", "Vendo", "Sarnia", "Kelb", "Pireth", "Jomla"),
    *("Zantic", "Ulmer", "Ferrin", "Dovet", "Hask", "Ivela", "Noreth", "Brisk", "Calden", "Wispa"),
)
