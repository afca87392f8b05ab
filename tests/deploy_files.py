"""What stands in the files below deploy/, read with as little as it takes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prefect.settings import Settings
from pydantic import AliasChoices, BaseModel

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
IMAGES = ("Dockerfile", "server.Dockerfile")
COMPOSE = ("compose.yaml", "compose.gpu.yaml")
EXAMPLES = ("env.example", "systemd/server.env.example", "systemd/worker.env.example")
HELM = ("helm/prefect-server-values.yaml", "helm/prefect-worker-values.yaml")


def read(name: str) -> str:
    return (DEPLOY / name).read_text()


def document(name: str) -> Any:
    return yaml.safe_load(read(name))


def image_environment(name: str) -> dict[str, str]:
    """What ENV sets in a Dockerfile; a line that ends with a backslash goes on."""
    joined = read(name).replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in joined.splitlines() if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def example(name: str) -> dict[str, str]:
    """Name -> value of an example of an environment file."""
    lines = [line for line in read(name).splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def all_environments() -> dict[str, dict[str, str]]:
    """File -> what it sets in the environment of something."""
    found = {name: image_environment(name) for name in IMAGES}
    found |= {name: example(name) for name in EXAMPLES}
    for name, service in document("compose.yaml")["services"].items():
        found[f"compose.yaml {name}"] = service.get("environment", {})
    server = document(HELM[0])["server"]["env"]
    found[HELM[0]] = {each["name"]: each["value"] for each in server}
    return found


def prefect_variables() -> set[str]:
    """Every environment variable that this Prefect reads."""
    return {name.upper() for name in _settings_below(Settings)}


def _settings_below(model: type[BaseModel]) -> Iterator[str]:
    prefix = str(model.model_config.get("env_prefix", "prefect_"))
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _settings_below(nested)
        yield f"{prefix}{name}"
        if isinstance(field.validation_alias, AliasChoices):
            yield from (each for each in field.validation_alias.choices if isinstance(each, str))


def placeholders(text: str) -> set[str]:
    """The names in `{{ name }}` of Prefect's job templates."""
    return set(re.findall(r"\{\{ (\w+) \}\}", text))
