"""The fields of results.json. All accuracies are fractions from 0 to 1.

The file also has "sha256", the hash of all fields; a file that was edited is refused.
"""

from __future__ import annotations

from typing import NotRequired  # pydantic needs these on Python 3.11

from typing_extensions import TypedDict

FORMAT = 5


class NegationAt(TypedDict):
    """Negation of one task under one constraint, measured on test."""

    alpha: float  # chosen on validation
    at_edge: bool  # the largest alpha that was tried: a larger one might change it
    target: float  # accuracy on the task that is to be forgotten
    control: float  # accuracy on the control task


class TaskNegation(TypedDict):
    """Negation of one task: validation curves over `alphas`, and the choice for each share."""

    alphas: list[float]  # all that were tried, rising from 0
    length: float  # ||tau|| / ||theta_0||
    target_val: list[float]
    control_val: list[float]
    shares: dict[str, NegationAt]  # by fraction of control accuracy to keep, e.g. "0.95"


class Added(TypedDict):
    """Test accuracies of an added model."""

    test: dict[str, float]  # by task
    absolute: float  # "Abs": mean of `test`
    # "Norm": mean of test / this method's single-task test accuracy; None if one of these is 0
    normalised: float | None


class PerTask(Added):
    """The sum with one alpha for each task vector, by coordinate search on validation data."""

    alphas: dict[str, float]


class Addition(Added):
    """The sum of all task vectors, scaled by one alpha."""

    alphas: list[float]  # all that were tried, rising from 0
    length: float  # ||sum of tau|| / ||theta_0||
    val: dict[str, list[float]]  # validation accuracy over `alphas`, by task
    alpha: float  # best mean normalised accuracy on validation
    at_edge: bool
    failed: list[str]  # tasks whose own model has accuracy 0, on validation or test
    flat: list[float]  # smallest and largest alpha around it within a point of mean accuracy
    at_one: Added  # at alpha 1, which needs no validation data
    per_task: PerTask | None  # None if not measured


class AtAlpha(TypedDict):
    """One edit at the alpha with the best validation accuracy."""

    alpha: float
    at_edge: bool
    test: float


class Analogy(TypedDict):
    """a is to b as c is to d: test accuracies on d."""

    tasks: list[str]  # a, b, c, d
    analogy: AtAlpha  # of tau_c + (tau_b - tau_a)
    third_alone: AtAlpha  # of tau_c
    fine_tuned: float  # of tau_d at alpha 1, which sees d's own images


class Comparison(TypedDict):
    """A difference of accuracies on the same test images, mean over tasks and seeds."""

    baseline: str  # a method, or "zero-shot"
    method: str
    measure: str  # "single", "added", "negated/SHARE" (on the target) or "control/SHARE"
    difference: float  # method minus baseline
    low: float  # 95 % bootstrap interval over test images
    high: float
    deviation: float | None  # standard deviation over seeds, which share images; None if one seed


class Geometry(TypedDict):
    """Geometry of task vectors. Matrices are those that the penalty sees; some modes have none."""

    norms: dict[str, float]  # ||tau||, by task
    cosines: list[list[float]]  # between task vectors, in the order of `tasks`
    singular_values: dict[str, dict[str, list[list[float]]]]  # task -> leaf -> layer -> descending
    column_cosines: dict[str, float]  # mean |cosine| of two columns, mean over matrices, by task
    stable_ranks: dict[str, float]  # mean over matrices, by task
    gram_deviations: dict[str, float]  # ||G - I||_F, mean over matrices, by task
    angles: dict[str, list[float]]  # leaf -> fraction of column pairs by angle, mean over tasks


class Features(TypedDict):
    """How tasks use the layers' features, each task in its own model."""

    overlap: float  # of the features that two tasks depend on: 0 disjoint, 1 identical
    by_layer: dict[str, list[float]]  # the same by leaf and layer
    tau_jacobian: list[list[float]]  # E||J tau||: rows are vectors, columns inputs; [] if none


class Disentanglement(TypedDict):
    """Disentanglement error of a pair of tasks over `disentanglement_alphas` squared."""

    tasks: list[str]  # the two
    error: list[list[float]]  # xi(a1, a2): rows a1, columns a2; 0 to 2


class OtherSearch(TypedDict):
    """Results of the other alpha search, the one not named by `evaluation.alpha_search`."""

    addition: Addition  # without an alpha for each task
    negation: dict[str, TaskNegation]


class GivenModel(TypedDict):
    """A model that was fine-tuned elsewhere."""

    name: str  # as the config has it
    sha256: str  # of its weights' files; of a vector's file, of its content
    revision: str  # on the hub; empty for other models


class Run(TypedDict):
    """One method with one seed."""

    method: str
    label: str
    seed: int
    strength: float  # lambda; 0 without a penalty, the sum for several
    strengths: NotRequired[dict[str, float]]  # by penalty; older files have OrthoReg's only
    learning_rate: float
    models: NotRequired[dict[str, GivenModel]]  # by task; of the method "given", which has no rate
    vectors: dict[str, str]  # content hash of each measured task vector, by task
    single: dict[str, dict[str, float]]  # "val" or "test" -> task -> accuracy at alpha 1
    addition: Addition
    negation: dict[str, TaskNegation]  # by task
    other_search: NotRequired[OtherSearch]  # with `evaluation.other_search`
    analogies: list[Analogy]
    disentanglement: list[Disentanglement]  # by pair of tasks
    geometry: Geometry
    features: Features | None  # None if not measured


class Results(TypedDict):
    """The whole file."""

    format: int  # FORMAT
    config: dict[str, object]  # as config.json
    provenance: dict[str, object]  # as provenance.json
    tasks: dict[str, str]  # name -> title, in the order of the config
    control: str  # title of the control task
    disentanglement_alphas: list[float]
    zero_shot: dict[str, dict[str, float]]  # "val" or "test" -> task (and control) -> accuracy
    weight_angles: dict[str, list[float]]  # of the pre-trained weights, like `Geometry.angles`
    features: Features | None  # of the pre-trained model
    runs: list[Run]
    comparisons: list[Comparison]
