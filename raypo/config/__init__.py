"""Configuration: one pydantic model per stage, read from YAML and `key=value` overrides."""

from raypo.config.base import InputError, Paper, StoppedRun
from raypo.config.data import ImportConfig, PrepareConfig, RecommenderConfig
from raypo.config.evaluation import EngineConfig, EvaluateConfig, ScorerConfig
from raypo.config.loading import dump_config, load_config, parse_config
from raypo.config.objective import ObjectiveConfig
from raypo.config.paths import LocalPath, cache_folder, url_of
from raypo.config.pipeline import PipelineConfig
from raypo.config.search import AshaConfig, SearchRange, TuneConfig
from raypo.config.training import (
    AlignConfig,
    ClusterConfig,
    LoraConfig,
    OptimiserConfig,
    PolicyConfig,
    SftConfig,
    ValidationConfig,
    WorkerRange,
)

__all__ = [
    "AlignConfig",
    "AshaConfig",
    "ClusterConfig",
    "EngineConfig",
    "EvaluateConfig",
    "ImportConfig",
    "InputError",
    "LocalPath",
    "LoraConfig",
    "ObjectiveConfig",
    "OptimiserConfig",
    "Paper",
    "PipelineConfig",
    "PolicyConfig",
    "PrepareConfig",
    "RecommenderConfig",
    "ScorerConfig",
    "SearchRange",
    "SftConfig",
    "StoppedRun",
    "TuneConfig",
    "ValidationConfig",
    "WorkerRange",
    "cache_folder",
    "dump_config",
    "load_config",
    "parse_config",
    "url_of",
]
