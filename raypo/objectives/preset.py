"""A preset: a named composition, whose options are those of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from raypo.objectives.links import Link, Logistic
from raypo.objectives.margins import ConfidenceMargin, FixedMargin, Margin
from raypo.objectives.objective import Objective
from raypo.objectives.options import Option, one_of, options_of, require_known, switch
from raypo.objectives.rewards import REWARDS, Reward
from raypo.objectives.selection import SELECTIONS, All, Selection, TopK
from raypo.objectives.sft import SftObjective
from raypo.objectives.sharing import NegativeSource, Own, Shared
from raypo.objectives.temperature import BetaPerNegative, FixedBeta, Temperature

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PartT = TypeVar("PartT", bound="DataclassInstance")


@dataclass(frozen=True)
class PresetOption:
    """An option of a preset.

    Attributes:
        default: value of this preset.
        option: meaning and values.
        part, field: the field of the part that it sets; empty where it exchanges a part.
    """

    default: object
    option: Option
    part: str = ""
    field: str = ""


@dataclass(frozen=True)
class Switch:
    """An ablation of a paper as an option: any value but the default exchanges a part.

    Attributes:
        default: value at which the preset keeps its parts.
        option: meaning and values.
        exchange: the objective -> the objective with the other part.
    """

    default: bool
    option: Option
    exchange: Callable[[Objective], Objective]


def _normalise_lengths(objective: Objective) -> Objective:
    return replace(objective, reward=REWARDS["free-normalised"])


def _fix_margin(objective: Objective) -> Objective:
    assert isinstance(objective.margin, ConfidenceMargin)
    return replace(objective, margin=FixedMargin(objective.margin.gamma))


def _fix_beta(objective: Objective) -> Objective:
    assert isinstance(objective.temperature, BetaPerNegative)
    return replace(objective, temperature=FixedBeta(objective.temperature.beta))


SWITCHES = {
    "length_normalised": Switch(
        False, switch("divide log-probs by the number of response tokens"), _normalise_lengths
    ),
    "dynamic_margin": Switch(
        True, switch("let the margin follow the recommender's confidence"), _fix_margin
    ),
    "dynamic_beta": Switch(True, switch("give each negative its own beta"), _fix_beta),
}
# Options that every preference preset has, beside those of its parts.
_SELECTION_OPTIONS = {
    "selection": PresetOption(
        None,
        one_of(
            tuple(SELECTIONS),
            "all, boundary, violations, clusters or top-k, else the preset's own",
            optional=True,
        ),
    ),
    "top_k": PresetOption(TopK().k, options_of(TopK)["k"]),
}


@dataclass(frozen=True)
class Preset:
    """A named composition of parts, each with the preset's own defaults.

    In a formula, R is the reward before beta, g_i = beta (R+ - R-_i), and sigma the logistic
    function.

    Attributes:
        source: paper and section or equation.
        formula: one paragraph, with the paper's ablations and the options that give them.
        reward, negatives, selection, temperature, aggregation, link: the parts.
        margin: the margin; None is 0 without an option.
        renamed: (part, field) -> option, where the field's name alone would be ambiguous.
        switches: names of ablations in `SWITCHES`.
    """

    source: str
    formula: str
    reward: Reward = REWARDS["reference"]
    negatives: NegativeSource = field(default_factory=Own)
    selection: Selection = field(default_factory=All)
    temperature: Temperature = field(default_factory=FixedBeta)
    aggregation: str = "pairwise"
    margin: Margin | None = None
    link: Link = field(default_factory=Logistic)
    renamed: Mapping[tuple[str, str], str] = field(default_factory=dict)
    switches: tuple[str, ...] = ()

    def options(self) -> dict[str, PresetOption]:
        """Options by name: those of the parts, the ablations, then the selection."""
        options: dict[str, PresetOption] = {}
        for part, given in self._configurable().items():
            for name, option in options_of(type(given)).items():
                public = self.renamed.get((part, name), name)
                assert public not in options, f"two parts have an option {public}: rename one"
                options[public] = PresetOption(getattr(given, name), option, part, name)
        for name in self.switches:
            options[name] = PresetOption(SWITCHES[name].default, SWITCHES[name].option)
        return options | _SELECTION_OPTIONS

    def build(self, name: str, values: Mapping[str, object]) -> Objective:
        """Build the objective.

        Args:
            name: of the preset.
            values: by option, converted to their types; others keep the preset's default.
        """
        known = self.options()

        def with_values(part: str, given: PartT) -> PartT:
            # Each field has a type of its own, which the part checks.
            fields: dict[str, Any] = {
                known[name].field: values[name] for name in values if known[name].part == part
            }
            return replace(given, **fields)

        objective = Objective(
            name,
            self.reward,
            with_values("negatives", self.negatives),
            self.selection,
            with_values("temperature", self.temperature),
            self.aggregation,
            FixedMargin() if self.margin is None else with_values("margin", self.margin),
            with_values("link", self.link),
        )
        if isinstance(objective.negatives, Shared) and objective.negatives.rho == 0:
            objective.negatives = Own()
        for option in self.switches:
            if values.get(option, SWITCHES[option].default) != SWITCHES[option].default:
                objective = SWITCHES[option].exchange(objective)
        return _with_selection(objective, values)

    def _configurable(self) -> dict[str, NegativeSource | Temperature | Margin | Link]:
        """The parts that may have options, by name."""
        parts: dict[str, NegativeSource | Temperature | Margin | Link] = {
            "temperature": self.temperature
        }
        if self.margin is not None:
            parts["margin"] = self.margin
        return parts | {"negatives": self.negatives, "link": self.link}


@dataclass(frozen=True)
class SftPreset:
    """Supervised fine-tuning, which has no parts and no options."""

    source: str
    formula: str = ""

    def options(self) -> dict[str, PresetOption]:
        """Empty: there are none."""
        return {}

    def build(self, name: str, values: Mapping[str, object]) -> SftObjective:
        """Build the objective."""
        return SftObjective(name)


def parse_preset_options(
    name: str, known: Mapping[str, PresetOption], given: Mapping[str, object]
) -> dict[str, object]:
    """Convert a preset's option values to their types.

    Args:
        name: of the preset, for errors.
        known: its options.
        given: values by option.

    Raises:
        OptionError: unknown option (names the nearest known one), or a value that it does not take.
    """
    for option in given:
        # A configuration has `name` beside the options.
        require_known(option, f"objective {name!r} has no option", option, known, ["name"])
    return {option: known[option].option.parse(option, value) for option, value in given.items()}


def _with_selection(objective: Objective, values: Mapping[str, object]) -> Objective:
    kind = values.get("selection")
    if kind is None:
        return objective
    assert isinstance(kind, str)
    options = {"k": values["top_k"]} if kind == "top-k" and "top_k" in values else {}
    return replace(objective, selection=SELECTIONS[kind](**options))
