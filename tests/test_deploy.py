"""What is deployed: the compose file by its own schema, pinned and local; the dashboard by the table of metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.metrics import METRICS
from app.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
FOREIGN = {"process_resident_memory_bytes", "process_cpu_seconds_total"}


def test_compose_by_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_services_are_there_and_local() -> None:
    assert set(SERVICES) == {"weir", "prometheus", "grafana", "object-store"}
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+\.\d+$|^weir:local$", service["image"]), f"{name} is not pinned"
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), f"{name} listens to everybody"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source} is not there"


def test_settings_of_the_container_are_settings() -> None:
    names = set(re.findall(r"WEIR_(\w+)", DOCKERFILE)) | {
        key.removeprefix("WEIR_") for key in SERVICES["weir"]["environment"] if not key.startswith("AWS_")
    }
    assert names <= {name.upper() for name in Settings.model_fields}
    Settings(**{key.removeprefix("WEIR_").lower(): value for key, value in SERVICES["weir"]["environment"].items()})


def test_the_image_is_slim_pinned_and_not_root() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert stages
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", stage) for stage in stages)
    assert re.search(r"^USER (?!root)\w+", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in copied.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().split(), f"{source} is ignored"


def test_prometheus_scrapes_weir() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    assert [target for job in config["scrape_configs"] for c in job["static_configs"] for target in c["targets"]] == [
        "weir:8080"
    ]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_show_metrics_that_exist(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    labels = {described.name: set(described.labels) for described in METRICS}
    shown = set()
    assert dashboard["panels"]
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == uid
        for target in panel["targets"]:
            names = set(re.findall(r"\b(?:weir|process)_[a-z0-9_]+", target["expr"]))
            assert names, target
            for name in names - FOREIGN:
                base = name if name in labels else name.removesuffix("_bucket")
                assert base in labels, f"{panel['title']}: there is no metric {name}"
                used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                assert used <= labels[base], f"{panel['title']}: {base} has no label {used - labels[base]}"
                shown.add(base)
    assert shown == set(labels), f"not on the dashboard: {set(labels) - shown}"
