"""A training step of raypo beside those of S-DPO's public trainer and of TRL's DPOTrainer.

`python benchmarks/peers.py`

All run in this process, on the same model, adapter, users and responses. The first run fetches the
trainers' own code into raypo's cache (`peer_code.py`); S-DPO's comes from GitHub, or by `--sdpo`
from a git repository on this machine. A step (`peer_steps.py`) is batch, log-probs, reference
log-probs where the trainer computes them at each step, loss and gradients, no optimiser step.
Rounds take turns, after one that is not counted. Peak memory is above what was in use before the
step; a trainer's weights are a column of their own.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peer_code import sdpo_trainer, trl_trainer
from peer_steps import Step, Texts, adapter_weights, make_raypo, set_adapter
from peer_trainers import PeerSettings, make_sdpo, make_trl
from torch import Tensor, nn

from raypo.bench.inputs import InputSettings, load_inputs
from raypo.bench.measure import Measurement, measure_in_turn, write_csv
from raypo.data.tokenisation import load_tokenizer
from raypo.io.files import atomic_path

Dtype = Literal["float32", "bfloat16"]
Rows = list[dict[str, object]]
# How far the policy is from the reference: log-probs differ by some nats, as in training.
_REFERENCE_SCALE, _POLICY_SCALE = 0.02, 0.01


@dataclass(frozen=True)
class Agreement:
    """What a peer computes, beside raypo.

    Attributes:
        step: the peer's.
        num_responses: over all users.
        num_same: responses that the peer's own tokenisation gives the same tokens.
        logps: largest difference of a response's log-prob, relative to raypo's.
        loss: difference of the loss, relative to raypo's.
        gradient: norm of the difference of the adapter's gradients, relative to raypo's.
    """

    step: Step
    num_responses: int
    num_same: int
    logps: float
    loss: float
    gradient: float

    def row(self, dtype: str) -> dict[str, object]:
        """Plain values for a table."""
        return {
            "dtype": dtype,
            "negatives": self.step.num_negatives,
            "trainer": self.step.trainer,
            "reference": self.step.reference,
            "responses with the same tokens": f"{self.num_same} of {self.num_responses}",
            "max log-prob difference": f"{self.logps:.1e}",
            "loss difference": f"{self.loss:.1e}",
            "gradient difference": f"{self.gradient:.1e}",
        }


def compare(peer: Step, own: Step) -> Agreement:
    """Compare a peer's numbers with raypo's, both in one precision."""
    theirs, ours = peer.logps(), own.logps()
    their_loss, our_loss = float(peer()), float(own())
    pairs = [
        (parameter.grad, adapter_weights(own.models[0])[name].grad)
        for name, parameter in adapter_weights(peer.models[0]).items()
    ]
    difference, norm = (
        sum(float(value.double().square().sum()) for value in values) ** 0.5
        for values in (
            [_given(one) - _given(other) for one, other in pairs],
            [_given(other) for _, other in pairs],
        )
    )
    expected = own.sequences()
    return Agreement(
        step=peer,
        num_responses=len(expected),
        num_same=len(expected & peer.sequences()),
        logps=float(((theirs - ours) / ours).abs().max()),
        loss=abs(their_loss - our_loss) / abs(our_loss),
        gradient=difference / norm,
    )


def _given(gradient: Tensor | None) -> Tensor:
    assert gradient is not None, "a step left a weight of the adapter without gradient"
    return gradient


def cost_rows(dtype: str, steps: Sequence[Step], measured: Sequence[Measurement]) -> Rows:
    """A row per step, with ratios to raypo's step that treats the reference alike.

    Args:
        dtype: of the base model.
        steps: raypo's and its peers'.
        measured: of each step.
    """
    own = {
        (step.num_negatives, step.reference): measurement
        for step, measurement in zip(steps, measured, strict=True)
        if step.trainer == "raypo"
    }
    rows: Rows = []
    for step, one in zip(steps, measured, strict=True):
        base = own[step.num_negatives, step.reference]
        rows.append(
            {
                "dtype": dtype,
                "negatives": step.num_negatives,
                "trainer": step.trainer,
                "reference": step.reference,
                "seconds": round(one.best, 3),
                "median seconds": round(one.median, 3),
                "time / raypo": round(one.best / base.best, 2),
                "median / raypo": round(one.median / base.median, 2),
                "peak memory added (MiB)": one.peak_bytes and round(one.peak_bytes / 2**20),
                "peak / raypo": _ratio(one.peak_bytes, base.peak_bytes),
                "weights (MiB)": round(weight_bytes(step.models) / 2**20),
            }
        )
    return rows


def _ratio(one: int | None, base: int | None) -> float | None:
    return round(one / base, 2) if one is not None and base else None


def weight_bytes(models: Sequence[nn.Module]) -> int:
    """Bytes of the distinct weights that a trainer holds, its reference's included."""
    weights = {id(p): p.numel() * p.element_size() for model in models for p in model.parameters()}
    return sum(weights.values())


def moved(weights: Mapping[str, Tensor], scale: float, seed: int) -> dict[str, Tensor]:
    """Weights with normal noise added, as if trained: a new adapter's own would change nothing."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.detach().cpu() + scale * torch.randn(value.shape, generator=generator)
        for name, value in weights.items()
    }


def make_steps(arguments: argparse.Namespace, dtype: Dtype, folder: Path) -> list[Step]:
    """Every trainer's steps, with the reference's adapter behind and the policy's trained.

    Args:
        arguments: of the command line.
        dtype: of the base model.
        folder: for adapters and what trainers write.
    """
    most = max(1, *arguments.negatives)
    inputs = load_inputs(
        InputSettings(arguments.model, arguments.data, arguments.users, most, dtype)
    )
    tokenizer = load_tokenizer(inputs.model_folder)
    texts = Texts.of(inputs.users, tokenizer)
    reference = moved(adapter_weights(inputs.model), _REFERENCE_SCALE, 1)
    for name, parameter in adapter_weights(inputs.model).items():
        parameter.data.copy_(reference[name])
    inputs.model.save_pretrained(folder / "reference")
    negatives = sorted({1, *arguments.negatives})
    steps: list[Step] = [
        *make_raypo(inputs.model, inputs.users, tokenizer, negatives, arguments.beta)
    ]
    settings = PeerSettings(
        inputs.model_folder,
        folder / "reference",
        getattr(torch, dtype),
        arguments.beta,
        arguments.recompute,
        folder / "output",
    )
    steps += make_trl(trl_trainer(), settings, texts)
    steps += make_sdpo(sdpo_trainer(arguments.sdpo), settings, texts, arguments.negatives)
    policy = moved(reference, _POLICY_SCALE, 2)
    for step in steps:
        set_adapter(step, policy)
    return sorted(steps, key=lambda step: step.num_negatives)


def run(arguments: argparse.Namespace, dtype: Dtype) -> tuple[Rows, Rows]:
    """Costs and agreement in one precision."""
    with tempfile.TemporaryDirectory() as name:
        steps = make_steps(arguments, dtype, Path(name))
        own = {(step.num_negatives, step.reference): step for step in steps if is_own(step)}
        agreement = [
            compare(step, own[step.num_negatives, step.reference]).row(dtype)
            for step in steps
            if not is_own(step)
        ]
        calls: dict[str, Any] = {
            f"{step.trainer}, {step.num_negatives} negatives, reference {step.reference}": step
            for step in steps
        }
        device = next(steps[0].models[0].parameters()).device
        measured = measure_in_turn(calls, device, arguments.repeats, report)
    return cost_rows(dtype, steps, list(measured.values())), agreement


def report(name: str, turn: int) -> None:
    """Say on stderr what is measured."""
    print(f"round {turn}: {name}", file=sys.stderr, flush=True)


def is_own(step: Step) -> bool:
    """Whether a step is raypo's."""
    return step.trainer == "raypo"


def forget_precision() -> None:
    """Let the next trainers choose another precision: accelerate keeps the first of a process."""
    state: Any = importlib.import_module("accelerate.state")
    gc.collect()
    state.AcceleratorState._reset_state(reset_partial_state=True)


def markdown(rows: Rows) -> str:
    """Rows as a Markdown table with aligned columns."""
    cells = [list(rows[0])]
    cells += [["" if value is None else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in cells
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="smollm2-135m-instruct", help="folder or built-in model")
    add("--data", type=Path, help="prepared data set; otherwise MovieLens-100K")
    add("--users", type=int, default=2, help="users of a step")
    add("--negatives", type=int, nargs="+", default=[3, 15], help="of S-DPO; TRL has 1")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    add("--beta", type=float, default=1.0, help="of the loss")
    add("--repeats", type=int, default=3, help="rounds that count")
    add("--no-recompute", dest="recompute", action="store_false", help="peers keep activations")
    add("--sdpo", type=Path, help="git repository of S-DPO on this machine; otherwise GitHub")
    add("--output", type=Path, help="CSV file; agreement and Markdown beside it")
    return parser.parse_args(arguments)


def main() -> None:
    """Print both tables, and write them if asked."""
    arguments = parse()
    # The trainers' libraries have nothing to ask of a hub, and nothing to tell.
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1")
    tables: dict[str, Rows] = {"costs": [], "agreement": []}
    for dtype in arguments.dtypes:
        for name, rows in zip(tables, run(arguments, dtype), strict=True):
            tables[name] += rows
        forget_precision()
    text = "\n\n".join(markdown(rows) for rows in tables.values())
    print(text)
    if arguments.output:
        write_csv(arguments.output, tables["costs"])
        stem = arguments.output.with_suffix("")
        write_csv(stem.with_name(f"{stem.name}_agreement.csv"), tables["agreement"])
        with atomic_path(stem.with_suffix(".md")) as file:
            file.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
