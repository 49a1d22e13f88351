"""Ray accepts the cluster file for `ray up`, and the commands in its comment. No test starts an instance."""

import copy
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_cnn.cli.main import parser

FILE = Path(__file__).parents[1] / "configs" / "cluster" / "aws.yaml"
CONFIG: dict[str, Any] = yaml.safe_load(FILE.read_text())  # as Ray reads it
COMMANDS = re.findall(r"^#   (?:ray|.*\bray) (.+?)(?: +# .*)?$", FILE.read_text(), re.MULTILINE)


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """The file as `ray up` completes and checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_file():
    head, worker = checked(CONFIG)["available_node_types"].values()
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert head["resources"]["CPU"] == 0, "a trial on the head takes the core of the sweep"
    assert worker["min_workers"] == worker["max_workers"] == CONFIG["max_workers"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("worker_nodez", {}, "'worker_nodez' was unexpected"),
        ("max_workers", "four", "'four' is not of type 'integer'"),
        ("max_workers", 3, "smaller than the sum of `min_workers`"),
        ("head_node_type", "haed", "must be one of `available_node_types`"),
        ("setup_commands", [["pip"]], "is not of type 'string'"),
        ("available_node_types", {"head": {"node_config": {}}}, "'resources' is a required property"),
    ],
)
def test_ray_refuses_a_file_with_a_fault(key, value, message):
    with pytest.raises(Exception, match=message):
        checked({**CONFIG, key: value})


def test_every_ray_knows_the_token_and_no_file_holds_it():
    assert CONFIG["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    prepared = checked(CONFIG)
    for kind in ("head", "worker"):
        assert any("export RAY_AUTH_MODE=token" in command for command in prepared[f"{kind}_setup_commands"])
    assert "RAY_AUTH_TOKEN" not in FILE.read_text()


def test_bash_understands_every_command():
    prepared = checked(CONFIG)
    for key in ("head_setup", "worker_setup", "head_start_ray", "worker_start_ray"):
        for command in prepared[f"{key}_commands"]:
            subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("ray[")])
def test_every_command_of_its_comment_can_be_typed(command):
    from ray.scripts.scripts import cli

    name, *arguments = shlex.split(command)
    options = cli.commands[name].make_context(name, arguments).params
    if "cluster_config_file" in options:
        assert (FILE.parents[2] / options["cluster_config_file"]).samefile(FILE)
    if "tune-cnn" in command:
        _, *arguments = shlex.split(options["cmd"])
        assert parser().parse_args(arguments).address == "auto"


def test_the_commands_are_found():
    assert [command.split()[0] for command in COMMANDS] == [
        "get-auth-token", "up", "exec", "exec", "attach", "rsync-down", "down"
    ]  # fmt: skip
