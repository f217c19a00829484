"""Small inputs that the training tests share."""

import numpy as np

from raypo.config import PrepareConfig, RecommenderConfig, SftConfig, parse_config
from raypo.data.prepare import prepare
from raypo.recommenders.train import train_recommender
from raypo.training.local import train_locally


def write_log(folder):
    """Interactions and items of 24 users, `a.inter` and `a.item`."""
    generator = np.random.default_rng(0)
    items = "\n".join(f"{i}\tFilm {chr(65 + i % 26)}{i}" for i in range(60))
    (folder / "a.item").write_text("item_id:token\tmovie_title:token_seq\n" + items + "\n")
    lines = [
        f"{user}\t{item}\t{time}"
        for time, step in enumerate(range(12))
        for user in range(24)
        for item in [(user * 5 + step + int(generator.integers(2))) % 60]
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "a.inter").write_text(header + "\n".join(lines) + "\n")


def log_config(folder, output):
    """How to prepare a data set of `write_log`'s files, which are written into `folder`."""
    write_log(folder)
    return PrepareConfig(interactions=folder / "a.inter", items=folder / "a.item", output=output)


def make_inputs(folder):
    """A prepared data set, a recommender and an SFT adapter."""
    data = folder / "data"
    prepare(log_config(folder, data))
    recommender = folder / "recommender"
    train_recommender(RecommenderConfig(data=data, output=recommender, max_epochs=2))
    sft = parse_config(SftConfig, settings(data, folder / "sft"), "test")
    train_locally(sft)
    return data, recommender, folder / "sft" / "adapter"


def settings(data, output):
    return {
        "data": data,
        "output": output,
        "max_rows": 24,
        "micro_batch_size": 4,
        "epochs": 2,
        "policy": {"model": "tiny-random", "dtype": "float32", "lora": {"rank": 4}},
        "cluster": {"workers": 1, "launcher": "local", "engine": "torch"},
        "validation": {"eval_steps": 4, "max_rows": 8},
        "optimiser": {"learning_rate": 1e-2},
    }
