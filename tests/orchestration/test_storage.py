"""A pipeline with its folders in S3: an S3 server of the test's own, and real Ray Train."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.training.inputs import write_log

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
RAYPO = str(Path(sys.executable).with_name("raypo"))
OUTPUT = "s3://bucket/runs"
TRAINING = {
    "micro_batch_size": 4,
    "policy": {"dtype": "float32", "lora": {"rank": 4}},
    "cluster": {"engine": "torch"},
}
SETTINGS = {
    "output": OUTPUT,
    "model": "tiny-random",
    "recommender": {"max_epochs": 2},
    "sft": {**TRAINING, "max_rows": 32, "validation": {"eval_steps": 2, "max_rows": 8}},
    "align": {**TRAINING, "max_rows": 16, "validation": {"eval_steps": 1, "max_rows": 8}},
    "evaluate": {"max_rows": 8, "answers": ["likelihood"], "policy": {"dtype": "float32"}},
}


@pytest.fixture(scope="module")
def bucket():
    """A server with one bucket, and how to reach it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server.start()
    host, port = server.get_host_and_port()
    secrets = {
        "AWS_ACCESS_KEY_ID": "key-of-the-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
    }
    reach = {**secrets, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    client = boto3.client(
        "s3",
        endpoint_url=reach["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="key-of-the-test",
        aws_secret_access_key="secret-of-the-test",
    )
    client.create_bucket(Bucket="bucket")
    yield client, reach
    server.stop()


def names(client):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket")
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


@pytest.fixture(scope="module")
def pipeline(bucket, tmp_path_factory):
    """The pipeline, run on one machine whose copies are then lost."""
    client, reach = bucket
    folder = tmp_path_factory.mktemp("s3")
    write_log(folder)
    for file in ("a.inter", "a.item"):
        client.upload_file(str(folder / file), "bucket", f"logs/{file}")
    logs = {"interactions": str(folder / "a.inter"), "items": str(folder / "a.item")}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(SETTINGS | {"prepare": logs}))
    environment = os.environ | reach | {"RAYPO_CACHE": str(folder / "cache")}

    def run(*arguments):
        return subprocess.run(
            [RAYPO, *arguments],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env=environment,
            cwd=folder,
        )

    answer = run("pipeline", "--config", "pipeline.yaml")
    assert answer.returncode == 0, answer.stderr
    for name in ("remote", "listings"):
        shutil.rmtree(folder / "cache" / name)
    return client, run, answer


def test_every_stage_is_in_the_bucket_and_names_urls_alone(pipeline):
    client, _, answer = pipeline
    found = names(client)
    stages = ("prepare", "recommender", "sft", "align", "evaluate", "fuse")
    folders = {key.split("/")[1] for key in found if key.startswith("runs/")}
    for stage in stages:
        assert any(folder.startswith(f"{stage}-") for folder in folders)
    (aligned,) = (folder for folder in folders if folder.startswith("align-"))
    for file in (
        "config.yaml",
        "summary.json",
        "metrics.jsonl",
        "adapter/adapter_model.safetensors",
    ):
        assert f"runs/{aligned}/{file}" in found
    assert any(f"runs/{aligned}/checkpoints/checkpoint_" in key for key in found)
    config = client.get_object(Bucket="bucket", Key=f"runs/{aligned}/config.yaml")["Body"].read()
    assert b"s3://bucket/runs/sft-" in config and b"/cache/" not in config
    assert f"report: {OUTPUT}/report.html" in answer.stdout
    assert {"runs/report.html", "runs/table.md", "runs/table.tex"} <= found


def test_no_credentials_are_in_the_bucket(pipeline):
    client, _, answer = pipeline
    assert "of-the-test" not in answer.stdout + answer.stderr
    for key in names(client):
        body = client.get_object(Bucket="bucket", Key=key)["Body"].read()
        assert b"of-the-test" not in body, key


def test_another_machine_finds_every_stage_finished(pipeline):
    client, run, _ = pipeline
    before = names(client)
    answer = run("pipeline", "--config", "pipeline.yaml")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count("finished before, in s3://bucket/runs/") == 12, answer.stderr
    assert names(client) == before
    report = run("report", OUTPUT, "--output", "s3://bucket/compared.html")
    assert report.returncode == 0, report.stderr
    assert report.stdout.splitlines()[0] == "s3://bucket/compared.html"
    page = client.get_object(Bucket="bucket", Key="compared.html")["Body"].read().decode()
    assert "Markov" in page or "markov" in page


def test_an_interrupted_alignment_resumes_from_its_checkpoint_in_the_bucket(pipeline):
    client, run, _ = pipeline
    (key,) = (name for name in names(client) if "align-" in name and name.endswith("config.yaml"))
    config = yaml.safe_load(client.get_object(Bucket="bucket", Key=key)["Body"].read())
    folder = key.rpartition("/")[0]
    lines = client.get_object(Bucket="bucket", Key=f"{folder}/metrics.jsonl")["Body"].read()
    # As a killed driver leaves it: no summary yet, and metrics of a step after the last checkpoint.
    client.delete_object(Bucket="bucket", Key=f"{folder}/summary.json")
    client.put_object(
        Bucket="bucket", Key=f"{folder}/metrics.jsonl", Body=lines + b'{"step": 99, "loss": 0.0}\n'
    )
    answer = run("align", *_overrides(config))
    assert answer.returncode == 0, answer.stderr
    again = client.get_object(Bucket="bucket", Key=f"{folder}/metrics.jsonl")["Body"].read()
    assert again == lines
    assert f"{folder}/summary.json" in names(client)


def _overrides(config):
    return [f"{key}={json.dumps(value)}" for key, value in config.items()]


def test_a_missing_bucket_is_an_error_before_anything_runs(pipeline):
    _, run, _ = pipeline
    answer = run("pipeline", "--config", "pipeline.yaml", "output=s3://elsewhere/runs")
    assert answer.returncode == 2
    assert "s3://elsewhere/runs" in answer.stderr and "cannot be written" in answer.stderr
