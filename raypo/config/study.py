"""Studies: cells of a table, each a pipeline with settings of its own, over several seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from raypo.config.base import BaseConfig, NonNegativeInt, PositiveInt
from raypo.config.loading import parse_config, parse_overridden, read_yaml
from raypo.config.overrides import with_settings
from raypo.config.paths import LocalPath
from raypo.config.pipeline import PipelineConfig
from raypo.errors import InputError

Heuristic = Literal["popularity", "item-knn", "markov-chain"]
Model = Literal["recommender", "base", "sft", "aligned"] | Heuristic


class StudyCell(BaseConfig):
    """One row of a study's table."""

    model: Model = Field(
        "aligned", description="which of the pipeline's models, or which heuristic, is evaluated"
    )
    settings: dict[str, Any] = Field(
        default={}, description="dotted key of the pipeline -> value, for this cell alone"
    )
    paper: dict[str, float] = Field(
        default={}, description="metric -> what the source reports, shown beside"
    )


class Claim(BaseConfig):
    """A comparison that is stated before anything runs."""

    text: str = Field(description="what is asked, in words")
    cell: str = Field(description="the cell that is expected to be better")
    than: str = Field(description="the cell that it is compared with")


class StudyConfig(BaseConfig):
    """`raypo study run` and `raypo study report`."""

    output: LocalPath = Field(description="folder of the study's tables and of its record")
    runs: LocalPath | None = Field(
        None, description="folder of run folders, which studies may share; None is `output`"
    )
    title: str
    source: str = Field("", description="the table or figure that it repeats; empty for none")
    differs: str = Field("", description="what differs from the source, for the head of the table")
    seeds: tuple[NonNegativeInt, ...] = Field((0, 1, 2), min_length=1, description="of training")
    pipeline: dict[str, Any] = Field(
        description="settings of `raypo pipeline` that all cells have, without output and seed"
    )
    settings: dict[str, Any] = Field(
        default={},
        description="dotted key of the pipeline -> value, for all cells: what a study changes of "
        "its base's pipeline",
    )
    cells: dict[str, StudyCell] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()
    num_bootstrap: PositiveInt = Field(2000, description="resamples of the intervals")

    @model_validator(mode="after")
    def _claims_name_cells(self) -> StudyConfig:
        for claim in self.claims:
            for cell in (claim.cell, claim.than):
                if cell not in self.cells:
                    known = ", ".join(self.cells)
                    raise ValueError(f"claims: {cell!r} is no cell; cells are {known}")
        return self

    @property
    def run_folders(self) -> Path:
        """Where the run folders of all cells are."""
        return self.runs or self.output

    @property
    def ranks_catalogue(self) -> bool:
        """Whether cells rank the whole catalogue, by the pipeline's `catalogue`, or candidates."""
        return self.cell_pipeline(next(iter(self.cells)), self.seeds[0]).catalogue is not None

    def require_one_scope(self) -> None:
        """Require that all cells rank the catalogue, or that none does.

        Raises:
            InputError: some do and others do not; the message names two.
        """
        of_catalogue = self.ranks_catalogue
        for name in self.cells:
            ranks = self.cell_pipeline(name, self.seeds[0]).catalogue is not None
            if ranks != of_catalogue:
                first = next(iter(self.cells))
                one, other = (name, first) if ranks else (first, name)
                raise InputError(
                    f"cells: {one!r} ranks the catalogue and {other!r} candidates, which cannot "
                    "be compared; give pipeline.catalogue for all cells or for none"
                )

    def cell_hash(self, name: str, seed: int) -> str:
        """Identifies a cell's settings: an evaluation of other settings is not this cell's.

        Of what is given alone, as the stages' folders: a new setting's default changes no cell.
        """
        pipeline = self.cell_pipeline(name, seed)
        settings = pipeline.model_dump_json(exclude={"output"}, exclude_unset=True)
        return hashlib.sha256(f"{self.cells[name].model} {settings}".encode()).hexdigest()[:16]

    def cell_pipeline(self, name: str, seed: int) -> PipelineConfig:
        """The pipeline of a cell.

        Raises:
            InputError: its settings are wrong; the message names the cell.
        """
        source = f"cells.{name}"
        changes = (self.settings, self.cells[name].settings)
        values = self.pipeline
        _require_free(values, source)
        for changed in changes:
            _require_free(changed, source)
            values = with_settings(values, changed, source=source)
        return parse_config(
            PipelineConfig, values | {"output": self.run_folders, "seed": seed}, source=source
        )


def load_study(file: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study.

    `base` names files, relative to the one that names them, whose settings it takes: those of a
    later one replace those of an earlier one, and its own replace all, by top-level key. So a
    table's cells and claims meet the models and data of several sizes.

    Args:
        file: YAML file.
        overrides: `dotted.key=value`.

    Raises:
        InputError: a file cannot be read or names itself, or a setting is wrong.
    """
    return parse_overridden(StudyConfig, _with_bases(file, ()), overrides, str(file))


def _with_bases(file: Path, named_by: tuple[Path, ...]) -> dict[str, Any]:
    if file.resolve() in named_by:
        raise InputError(f"{file}: base: the file is its own base")
    values = read_yaml(file)
    bases = values.pop("base", ())
    merged: dict[str, Any] = {}
    for base in (bases,) if isinstance(bases, str) else bases:
        merged |= _with_bases(file.parent / str(base), (*named_by, file.resolve()))
    return merged | values


def _require_free(values: Mapping[str, Any], source: str) -> None:
    taken = {"output", "seed"} & values.keys()
    if taken:
        raise InputError(f"{source}: the study sets {', '.join(sorted(taken))} itself")
