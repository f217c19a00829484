"""Configuration: one pydantic model per stage, read from YAML and `key=value` overrides."""

from raypo.config.base import Paper
from raypo.config.data import (
    ImportConfig,
    PrepareConfig,
    PrepareSettings,
    RecommenderConfig,
    RecommenderSettings,
)
from raypo.config.evaluation import (
    EngineConfig,
    EvaluateConfig,
    EvaluateSettings,
    PromptsConfig,
    ScorerConfig,
)
from raypo.config.fusion import FuseConfig, FuseSettings
from raypo.config.loading import dump_config, load_config, parse_config
from raypo.config.objective import ObjectiveConfig
from raypo.config.overrides import with_settings
from raypo.config.paths import LocalPath, cache_folder, url_of
from raypo.config.pipeline import PipelineConfig
from raypo.config.policy import LoraConfig, PolicyConfig, PolicySettings
from raypo.config.search import AshaConfig, SearchRange, TuneConfig
from raypo.config.serving import ServeConfig
from raypo.config.training import (
    AlignConfig,
    AlignSettings,
    ClusterConfig,
    OptimiserConfig,
    SftConfig,
    SharingScope,
    TrainingSettings,
    ValidationConfig,
    WorkerRange,
)

__all__ = [
    "AlignConfig",
    "AlignSettings",
    "AshaConfig",
    "ClusterConfig",
    "EngineConfig",
    "EvaluateConfig",
    "EvaluateSettings",
    "FuseConfig",
    "FuseSettings",
    "ImportConfig",
    "LocalPath",
    "LoraConfig",
    "ObjectiveConfig",
    "OptimiserConfig",
    "Paper",
    "PipelineConfig",
    "PolicyConfig",
    "PolicySettings",
    "PrepareConfig",
    "PrepareSettings",
    "PromptsConfig",
    "RecommenderConfig",
    "RecommenderSettings",
    "ScorerConfig",
    "SearchRange",
    "ServeConfig",
    "SftConfig",
    "SharingScope",
    "TrainingSettings",
    "TuneConfig",
    "ValidationConfig",
    "WorkerRange",
    "cache_folder",
    "dump_config",
    "load_config",
    "parse_config",
    "url_of",
    "with_settings",
]
