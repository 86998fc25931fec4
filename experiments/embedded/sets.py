"""The icon sets in use: which of them are one family, and on which side each family is.

The list is explicit. A set is used only if its designers are known, its licence allows
redistribution of the drawings (``ALLOWED_LICENCES``), and it shows things rather than brands. Sets
that are forks or restylings of one another form one *family*, and a family is on one side:
pre-training and tasks' train and val, or tasks' test. Otherwise the same drawing would be both
trained on and tested.
"""

ALLOWED_LICENCES = {
    "MIT",
    "Apache-2.0",
    "CC0-1.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "ISC",
    "BSD-3-Clause",
}

# Family: its sets. "memory" draws after mdi, "eos-icons" extends Material, "famicons" forks ion.
TRAIN_FAMILIES = {
    "material": "material-symbols material-symbols-light ic mdi memory eos-icons",
    "fluent": "fluent fluent-mdl2 fluent-color codicon",
    "phosphor": "ph",
    "tabler": "tabler",
    "boxicons": "boxicons bx bxs",
    "remix": "ri",
    "streamline": (
        "streamline streamline-color streamline-ultimate streamline-ultimate-color"
        " streamline-sharp streamline-sharp-color streamline-flex streamline-flex-color"
        " streamline-plump streamline-plump-color streamline-freehand streamline-freehand-color"
        " streamline-pixel streamline-cyber streamline-cyber-color streamline-kameleon-color"
        " streamline-block streamline-stickies-color guidance covid"
    ),
    "mynaui": "mynaui vadivam",
    "bootstrap": "bi",
    "lucide": "lucide lucide-lab feather meteor-icons",
    "heroicons": "heroicons heroicons-outline heroicons-solid sidekickicons",
    "game-icons": "game-icons",
    "fxemoji": "fxemoji",
    "icons8": "la icons8 wpf flat-color-icons",
    "framework7": "f7",
    "griddy": "griddy-icons",
    "map-icons": "maki temaki pinhead osmic",
    "roentgen": "roentgen",
    "healthicons": "healthicons",
    "teenyicons": "teenyicons",
    "majesticons": "majesticons pixelarticons",
    "stash": "stash",
    "jam": "jam",
    "garden": "garden",
    "ant-design": "ant-design",
    "gravity-ui": "gravity-ui",
    "octicon": "octicon",
    "flowbite": "flowbite",
    "css-gg": "gg",
    "vaadin": "vaadin",
    "grommet": "grommet-icons",
    "marketeq": "marketeq",
    "proicons": "proicons",
    "basil": "basil",
    "akar": "akar-icons",
    "coolicons": "ci",
    "opensearch": "oui",
    "ooui": "ooui",
    "pajamas": "pajamas",
    "gis": "gis",
    "radix": "radix-icons",
    "prime": "prime",
    "subway": "subway",
    "foundation": "foundation",
    "open-iconic": "oi",
    "rivet": "rivet-icons",
    "weui": "weui",
    "iwwa": "iwwa",
    "flat-ui": "flat-ui",
    "mono": "mi",
    "sargam": "si",
}
TEST_FAMILIES = {
    "solar": "solar",
    "hugeicons": "hugeicons",
    "icon-park": "icon-park icon-park-outline icon-park-solid icon-park-twotone",
    "mingcute": "mingcute",
    "carbon": "carbon",
    "font-awesome": "fa7-solid fa7-regular fa6-solid fa6-regular fa-solid fa-regular",
    "fluent-emoji": "fluent-emoji-flat fluent-emoji-high-contrast",
    "emojione": "emojione emojione-monotone",
    "ionicons": "ion famicons",
    "iconoir": "iconoir",
    "unicons": "uil uim uit uis",
    "clarity": "clarity",
    "tdesign": "tdesign",
    "siemens": "ix",
    "iconamoon": "iconamoon",
    "mage": "mage",
    "pepicons": "pepicons-pop pepicons-print pepicons-pencil",
    "eva": "eva",
    "coreui": "cil",
    "lineicons": "lineicons",
    "glyphs": "glyphs glyphs-poly",
    "lets-icons": "lets-icons",
    "qlementine": "qlementine-icons",
    "lsicon": "lsicon",
    "nrk": "nrk",
    "fontisto": "fontisto",
    "hackernoon": "pixel",
    "zondicons": "zondicons",
    "element": "ep",
    "humbleicons": "humbleicons",
    "megumi-feather": "fe",
    "raphael": "raphael",
    "charm": "charm",
    "uiw": "uiw",
    "quill": "quill",
    "nimbus": "nimbus",
    "bytesize": "bytesize",
    "duoicons": "duo-icons",
    "topcoat": "topcoat",
    "evil-icons": "ei",
    "cuida": "cuida",
}
# Country flags; the emoji sheets of two vendors are also on the test side.
FLAG_SETS = {"train": ("flag", "flagpack", "cif"), "test": ("circle-flags", "emojione")}


def families() -> dict[str, tuple[str, str]]:
    """Returns ``{set: (family, side)}``, where side is "train" or "test"."""
    table = {}
    for side, group in (("train", TRAIN_FAMILIES), ("test", TEST_FAMILIES)):
        for family, members in group.items():
            for name in members.split():
                if name in table:
                    raise ValueError(f"icon set {name!r} is listed twice")
                table[name] = (family, side)
    return table
