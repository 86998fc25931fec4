"""Words of the icon tasks: classes, the icon names that mean them, and how names are read."""

import re

# Class name: concepts (icon names without their style words) that mean it. Words with two meanings
# (mouse, bolt, brush, radio, tablet, crane) are left out, or appear only in unambiguous compounds.
ICON_TASKS: dict[str, dict] = {
    "vehicles": {
        "title": "Vehicles",
        "classes": {
            "airplane": "airplane, plane, aeroplane, aircraft, vehicle airplane",
            "ambulance": "ambulance, vehicle ambulance",
            "bicycle": "bicycle, bike, vehicle bicycle, pedal bike",
            "bus": "bus, vehicle bus, directions bus, bus front, school bus, bus alt, bus simple",
            "car": "car, vehicle car, directions car, car front, car side, automobile, sedan, cars",
            "helicopter": "helicopter",
            "motorcycle": "motorcycle, motorbike, two wheeler, vehicle motorcycle",
            "rocket": "rocket, rocket launch, space rocket",
            "ship": "ship, cruise ship, vehicle ship, directions boat, cargo ship, boat, ferry",
            "taxi": "taxi, cab, local taxi, vehicle cab, oncoming taxi",
            "train": "train, train front, railway, locomotive, high speed train, steam train",
            "truck": "truck, lorry, delivery truck, local shipping, vehicle truck, truck front,"
            " articulated lorry, semi truck",
        },
    },
    "tools": {
        "title": "Tools and instruments",
        "classes": {
            "eraser": "eraser, rubber eraser, ink eraser",
            "flashlight": "flashlight, flashlight on",
            "hammer": "hammer",
            "magnet": "magnet, magnet straight",
            "microscope": "microscope",
            "paint brush": "paint brush, paintbrush",
            "pencil": "pencil, pencil simple",
            "ruler": "ruler, straight ruler, rulers, ruler horizontal",
            "scissors": "scissors, content cut, scissor",
            "screwdriver": "screwdriver",
            "stethoscope": "stethoscope",
            "syringe": "syringe, needle, injection",
            "telescope": "telescope",
            "thermometer": "thermometer",
            "toolbox": "toolbox, tool box, home repair service",
            "wrench": "wrench, spanner",
        },
    },
    "devices": {
        "title": "Devices",
        "classes": {
            "calculator": "calculator, calculate",
            "camera": "camera, photo camera",
            "game controller": "game controller, gamepad, game pad, game controllers",
            "hard drive": "hard drive, harddrive, hard disk, harddisk",
            "headphones": "headphones, headphone",
            "keyboard": "keyboard",
            "laptop": "laptop, notebook computer, laptop computer, laptop chromebook, laptop mac",
            "loudspeaker": "loudspeaker, speaker, speaker hifi",
            "microphone": "microphone, mic, studio microphone",
            "printer": "printer",
            "smartphone": "smartphone, mobile phone, cellphone, device mobile, mobile"
            ", device phone",
            "television": "television, tv, desktop tv",
            "webcam": "webcam, web camera, camera web",
            "wristwatch": "watch, smartwatch, wristwatch, smart watch, device watch, hand watch",
        },
    },
    "weather": {
        "title": "Weather",
        "classes": {
            "cloud": "cloud, cloudy, clouds, weather cloudy",
            "fog": "fog, weather fog, foggy, cloud fog, weather fog cloud",
            "lightning bolt": "bolt, lightning bolt, thunderbolt, high voltage, flash",
            "moon": "moon, crescent moon, moon clear",
            "rain cloud": "rain, rainy, cloud rain, weather rain, weather rainy, cloud with rain,"
            " raining, cloud drizzle, drizzle, cloud showers heavy",
            "rainbow": "rainbow",
            "snowflake": "snowflake, weather snowflake, ac unit",
            "sun": "sun, sunny, weather sunny, sunny day, sun bright",
            "sunset": "sunset, weather sunset",
            "thunderstorm": "thunderstorm, cloud lightning, weather lightning,"
            " weather thunderstorm, thunderstorms, cloud with lightning, cloud bolt",
            "tornado": "tornado, weather tornado",
            "umbrella": "umbrella, beach access, umbrella open",
            "water drop": "water drop, drop, droplet, raindrop, drop simple",
            "wind": "wind, weather windy, windy",
        },
    },
    "symbols": {
        "title": "Symbols",
        "classes": {
            "bell": "bell, notification bell",
            "calendar": "calendar, calendar month, calendar blank",
            "check mark": "check mark, checkmark, check, tick, check heavy",
            "clock": "clock, time clock, clock circle, clock three",
            "crown": "crown, crown simple",
            "envelope": "envelope, mail, email, envelope simple, mail closed, letter mail",
            "heart": "heart, favorite heart, heart straight, red heart",
            "house": "house, home, home simple, house simple, home house",
            "key": "key, vpn key",
            "magnifying glass": "magnifying glass, search, magnifier, magnifying glass left",
            "padlock": "padlock, lock, lock closed, lock simple, locked",
            "plus sign": "plus sign, plus, add",
            "shield": "shield, shield blank",
            "star": "star",
            "trash can": "trash can, trash, trash simple, wastebasket, delete bin, bin",
            "trophy": "trophy, trophy cup, emoji events, award trophy",
        },
    },
}
ICON_TEMPLATES = ("a drawing of a {}", "an icon of a {}", "a {}")

# The control task takes the first 100 of these that have enough drawings.
CONTROL_CONCEPTS = """folder; book; wallet; briefcase; globe; eye; pie chart; hourglass; stopwatch
; alarm clock; compass; map; ticket; bug; database; anchor; glasses, eyeglasses; bed; hospital
; chair; skull; palette; leaf; tree; flower; fire, flame; cake; coffee; ice cream, icecream; egg
; cookie; pizza; donut, doughnut; hamburger, burger; beer; cheese; carrot; lemon; bread
; fish; cat; dog; butterfly; bird; rabbit; paw, paw print; brain; ear; tooth; bone; dna
; pill, pills; bandage, adhesive bandage; wheelchair; basketball; football; baseball; volleyball
; dumbbell; dice; puzzle piece, puzzle; robot; alien; ghost; bomb; sword; castle; church; mosque
; factory; bank; tent; bridge; traffic cone; fire extinguisher; stairs; door; lamp
; candle; sofa, couch; bathtub, bath; toilet; shower; mirror; newspaper; receipt; passport
; megaphone; fingerprint; graduation cap; medal; balloon; planet; ufo, flying saucer
; atom; test tube; guitar; piano; music note, musical note; mushroom; cactus; volcano; mountain
; basket; backpack; ring; lipstick; hanger; handshake; thumbs up, thumb up; plug; barcode
; qr code, qrcode; binoculars; drone; broom; gavel; ladder; lifebuoy; mailbox; piggy bank; coin
; credit card; shopping cart; shopping bag; paperclip; gift; infinity; dress
; popcorn; sailboat; shovel; axe; skyline, city; cube; clipboard; diamond; flask; joystick; virus
; hand
; cherries, cherry; rose; necktie; snowman; strawberry; watermelon; ferris wheel; mask; elephant
; battery, battery full; gear, cog, cogwheel; bluetooth; wifi; link, chain; hashtag
; bar chart, chart bar; floppy disk, floppy, save; recycle, recycling; suitcase, luggage
; store, storefront; fuel pump, gas station, gas pump; traffic light, traffic lights
; sim card; bookmark; certificate; film, film strip; video camera; microchip, cpu, chip; router
; refrigerator, fridge; washing machine; microwave; fork and knife, restaurant, cutlery
; paint bucket, bucket; paint roller; target, bullseye; server; filter, funnel; inbox; triangle
; hexagon; play button, play; percent sign, percent; pushpin, pin; tag, price tag
; speech bubble, chat bubble, message bubble, chat, comment; elevator; radar; sparkles
; notebook; wine, wine glass; crosshair; usb"""

_STYLE_WORDS = """outline outlined line linear fill filled solid bold duotone thin light regular
sharp round rounded baseline twotone tone broken bulk stroke duo color flat remix alt sm md lg xs xl
small medium large standard loop mini micro lined curved o s l r b f i bolder
two glyph mono variant new plain free"""
_STYLES = set(_STYLE_WORDS.split())
_PREFIXES = {"baseline", "outline", "outlined", "round", "rounded", "sharp", "twotone"}
_PREFIXES |= {"filled", "solid"}
# "traffic-light" is a thing, while "car-light" is a thin car.
_LIGHTS = {"traffic", "head", "street", "flash", "signal", "night", "warning", "spot", "police"}
_LIGHTS |= {"stop", "ceiling"}


def concept_of(name: str) -> str:
    """Reads an icon's name as words, without style words at its ends and without most numbers.

    ``"outline-directions-car-24"`` gives ``"directions car"``.
    """
    words = [word for word in re.split(r"[-_]", name.lower()) if word]
    # Numbers are sizes and variants, unless they come first ("10-plus").
    words = [word for place, word in enumerate(words) if place == 0 or not word.isdigit()]
    while len(words) > 1 and words[-1] in _STYLES:
        if words[-1] == "light" and words[-2] in _LIGHTS:
            break
        words.pop()
    while len(words) > 1 and words[0] in _PREFIXES:
        words.pop(0)
    return " ".join(words)


def class_table(classes: dict[str, str]) -> dict[str, str]:
    """Turns ``{class: "concept, concept"}`` into ``{concept: class}``."""
    table = {}
    for label, concepts in classes.items():
        for concept in concepts.split(","):
            table[concept.strip()] = label
    return table


def control_table() -> dict[str, str]:
    """Returns ``{concept: class}`` of the control task's candidates, in their order."""
    rows = [row.strip() for row in CONTROL_CONCEPTS.replace("\n", " ").split(";")]
    return class_table({row.split(",")[0].strip(): row for row in rows})
