"""What a hundred negatives cost where titles begin alike, as a shop's variants of a product do.

`python benchmarks/shared_titles.py [--products 28,6,1] [--negatives 15,100] [--repeats 3]`

MovieLens-100K's interactions, its titles replaced by synthetic names of products' variants: the
fewer products, the more variants of each, and the more tokens two titles share.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import pandas as pd
import torch
from rich.console import Console

from raypo.assets import movielens_100k
from raypo.bench.inputs import InputSettings, load_inputs
from raypo.bench.measure import measure_in_turn
from raypo.bench.policy import first_negatives, training_step
from raypo.config.data import PrepareConfig
from raypo.data.prepare import prepare
from raypo.io import markdown
from raypo.policy import packing
from raypo.policy.fused_lora import use_fused_lora
from raypo.policy.fused_norm import use_fused_norms
from raypo.policy.logps import PackedPolicy
from raypo.policy.response_tree import ROOT, ResponseTree, response_tree

BRANDS = ("Northwind", "Alder & Pine", "Kestrel", "Blue Harbour", "Fjordline", "Tamarack", "Oxbow")
MODELS = ("Ridge Runner", "Harbour Classic", "Summit Pro", "Everyday Comfort", "Storm Guard")
KINDS = ("waterproof hiking shoe", "merino wool sock", "insulated rain jacket", "canvas backpack")
COLOURS = (
    *("black", "white", "grey", "navy", "red", "green", "olive", "sand", "brown", "orange"),
    *("purple", "yellow"),
)


def product_titles(count: int, products: int) -> list[str]:
    """Distinct titles, spread evenly over products."""
    names = [f"{brand} {model} {kind}" for kind in KINDS for model in MODELS for brand in BRANDS]
    if products > len(names):
        raise SystemExit(f"--products {products}: at most {len(names)}")
    titles = []
    for item in range(count):
        variant, product = divmod(item, products)
        size, colour = divmod(variant, len(COLOURS))
        titles.append(f"{names[product]}, {COLOURS[colour]}, size {30 + size}")
    return titles


def prepared(products: int, folder: Path) -> Path:
    """The data set with these titles."""
    source = movielens_100k()
    items = pd.read_csv(source / "ml-100k.item", sep="\t", dtype=str)
    items["movie_title:token_seq"] = product_titles(len(items), products)
    items.to_csv(folder / "products.item", sep="\t", index=False)
    config = PrepareConfig(
        interactions=(str(source / "ml-100k.inter"),),
        items=(str(folder / "products.item"),),
        output=folder / "data",
        clean_titles=False,
    )
    prepare(config)
    return config.output


def listed(responses: Sequence[Sequence[int]]) -> ResponseTree:
    """The responses as a list: a branch of its own for each, whatever they share."""
    whole = ResponseTree([], [], [], [(ROOT, [])])
    for index, response in enumerate(responses):
        own, before = response_tree([response]), len(whole.tokens)
        whole.tokens.extend(own.tokens)
        whole.depths.extend(own.depths)
        whole.ends.extend(end + before for end in own.ends)
        for node, predicted in own.predictions:
            found = [(index, token) for _, token in predicted]
            if node == ROOT:
                whole.predictions[0][1].extend(found)
            else:
                whole.predictions.append((node + before, found))
    return whole


def rows_of(data: Path | None, name: str, negatives: list[int], repeats: int) -> list[list[object]]:
    """A table row for each number of negatives in a tree, and for the fewest in a list."""
    loaded = load_inputs(InputSettings("smollm2-135m-instruct", data, 2, max(negatives)))
    loaded.model.train()
    use_fused_lora(loaded.model)
    use_fused_norms(loaded.model)
    policy = PackedPolicy(loaded.model, recompute="auto")
    parameters = [one for one in policy.parameters() if one.requires_grad]
    packs = {}
    for kind, tree in (("list", listed), ("tree", response_tree)):
        with mock.patch.object(packing, "response_tree", tree):
            # A list of the most negatives is what nobody should wait for.
            for n in negatives if kind == "tree" else [min(negatives)]:
                users = first_negatives(loaded.users, n)
                packs[n, kind] = packing.pack_responses(
                    users.prompts, users.responses, loaded.pad_token_id
                )

    same_result(policy, packs[min(negatives), "list"], packs[min(negatives), "tree"])
    cases = sorted(packs)
    calls = {
        f"{n} {kind}": training_step(parameters, partial(policy, packs[n, kind]))
        for n, kind in cases
    }
    measured = measure_in_turn(calls, torch.device("cpu"), repeats)
    first = measured[f"{min(negatives)} list"].best
    return [
        [
            name,
            *case,
            packs[case].num_tokens,
            f"{measured[key].best:.2f}",
            f"{measured[key].best / first:.2f}",
            f"{(measured[key].peak_bytes or 0) / 2**20:,.0f}",
        ]
        for case, key in zip(cases, calls, strict=True)
    ]


@torch.no_grad()
def same_result(
    policy: PackedPolicy, one: packing.PackedResponses, other: packing.PackedResponses
) -> None:
    """End the run if the two ways give other log-probs than bfloat16 explains."""
    expected = policy(one)
    difference = float((policy(other) - expected).norm() / expected.norm())
    if difference > 0.05:  # of bfloat16
        raise SystemExit(f"log-probs of list and tree differ by {difference:.1%}")


def main() -> None:
    """Measure each catalogue, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", default="28,6,1")
    parser.add_argument("--negatives", default="15,100")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    negatives = [int(one) for one in given.negatives.split(",")]
    names = [
        "titles", "negatives", "packed as", "tokens", "seconds",
        f"time / time of {min(negatives)} in a list", "memory added (MiB)",
    ]  # fmt: skip
    console = Console(soft_wrap=True)
    for products in (0, *map(int, given.products.split(","))):
        with tempfile.TemporaryDirectory() as folder:
            data = prepared(products, Path(folder)) if products else None
            name = f"{products} product{'s'[: products > 1]}" if products else "MovieLens' own"
            table = markdown.table(names, rows_of(data, name, negatives, given.repeats))
            console.print(table, markup=False, highlight=False)


if __name__ == "__main__":
    main()
