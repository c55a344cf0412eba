"""Weights from the Hub and from torchvision, fetched by the real clients from a server on 127.0.0.1.

Those clients read their settings at import, so every attempt runs in a process of its own with a home of its own.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.hub import Fault, Hub

TAG = "AlexNet_Weights.IMAGENET1K_V1"
FOREVER = float("inf")

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.test_hub"])  # children find torch imported, and no client yet


@dataclass
class Result:
    """What a process answered, the seconds it would have slept between retries, and what it logged."""

    value: Any
    slept: float
    log: str


@dataclass
class Home:
    """A user's machine: the Hub it asks and the folder of its caches."""

    hub: Hub
    folder: Path

    def run(self, task, *args, **settings) -> Result:
        """What `task(*args)` returns in a new process under these environment variables."""
        return self.wait(*self.start(task, *args, **settings))

    def start(self, task, *args, **settings):
        kept = {key: value for key, value in os.environ.items() if not key.lower().startswith(("hf_", "hugg", "torch"))}
        kept = {key: value for key, value in kept.items() if not key.lower().endswith(("_proxy", "_offline"))}
        kept |= {"HF_HOME": str(self.folder / "hf"), "TORCH_HOME": str(self.folder / "torch")}
        kept |= {"HF_ENDPOINT": self.hub.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        mine, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=_child, args=(theirs, kept | settings, task, args))
        process.start()
        theirs.close()
        return process, mine

    def wait(self, process, pipe) -> Result:
        assert pipe.poll(60), "the call hangs"
        result = pipe.recv()
        process.join()
        pipe.close()
        return result

    @property
    def blobs(self) -> list[Path]:
        return list((self.folder / "hf" / "hub").glob("models--*/blobs/*"))

    @property
    def torchvision(self) -> Path:
        return self.folder / "torch" / "hub" / "checkpoints" / "tiny-owt.safetensors"


def _child(pipe, settings, task, args):
    assert "huggingface_hub" not in sys.modules
    os.environ.clear()
    os.environ.update(settings)
    torch.set_num_threads(1)
    log, slept = io.StringIO(), []
    logging.basicConfig(stream=log)
    time.sleep = slept.append
    value = task(*args)
    pipe.send(Result(value, sum(slept), log.getvalue()))
    pipe.close()


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def home(hub, tmp_path):
    return Home(hub, tmp_path)


def publish(hub, part="", name="weights.safetensors"):
    return hub.add("someone/weights", name, tiny.safetensors(part))


def publish_plain(hub):
    """A torchvision row and the URL of its file."""
    url = hub.add_plain("models/tiny-owt.safetensors", tiny.safetensors())
    row = publish(hub) | {"where": "torchvision", "tag": TAG, "filename": "tiny-owt.safetensors"}
    return row, url


# What runs in the processes.


def create(row):
    tiny.install({"": row})
    return tiny.attempt()


def create_twice(row):
    return create(row), create(row)


def create_in_small_chunks(row):
    from huggingface_hub import constants

    constants.DOWNLOAD_CHUNK_SIZE = 1 << 14
    return create(row)


def create_at(row, url):
    _point_torchvision_at(url)
    return create(row)


def create_twice_at(row, url):
    return create_at(row, url), create_at(row, url)


def _point_torchvision_at(url):
    from torchvision.models import get_weight

    get_weight(TAG).value.url = url


def create_each(rows):
    return [create(row) for row in rows]


def create_from_parts(rows):
    tiny.install(rows)
    whole = tiny.attempt(weights=tiny.state())
    both = tiny.attempt(weights={"backbone": tiny.state("backbone"), "heads": tiny.state("heads")})
    tiny.create("tiny", weights=None)
    touched = Path(os.environ["HF_HOME"]).exists()
    return whole, both, touched, tiny.attempt(weights={"backbone": tiny.state("backbone")})


# --- the Hub ----------------------------------------------------------------------------------------------------------


def test_cold_download_then_warm_cache_without_a_server(hub, home):
    row = publish(hub)
    assert home.run(create, row).value == "right"
    assert [request.method for request in hub.seen(text="/lfs/")] == ["GET"]
    assert list((home.folder / "hf" / "hub").glob("models--someone--weights/snapshots/*/weights.safetensors"))
    hub.requests.clear()
    assert home.run(create, row).value == "right"
    assert not hub.requests, "a warm cache asks nobody"
    hub.stop()
    assert home.run(create, row).value == "right"


def test_offline_with_nothing_cached_says_what_to_fetch_and_pass(hub, home):
    row = publish(hub)
    error = home.run(create, row, HF_HUB_OFFLINE="1").value
    size = f"{row['size'] / 1e3:.1f} kB"
    for fact in ("tiny-", "weights.safetensors", size, "HF_HUB_OFFLINE", f"{hub.url}/someone/weights/resolve/"):
        assert fact in error
    assert error.endswith("then pass weights=PATH.")
    assert not hub.requests


def test_only_what_is_not_given_is_fetched(hub, home):
    rows = {part: publish(hub, part, f"{part}.safetensors") for part in ("backbone", "heads")}
    whole, both, touched, backbone = home.run(create_from_parts, rows).value
    assert (whole, both, backbone) == ("right", "right", "right")
    assert not touched
    assert hub.seen(text="heads")
    assert not hub.seen(text="backbone")
    assert len(hub.seen("GET", "/lfs/")) == 1


def test_a_connection_that_breaks_mid_body_is_resumed(hub, home):
    hub.faults = [Fault(cut=40_000)]
    assert home.run(create_in_small_chunks, publish(hub)).value == "right"
    assert [request.range for request in hub.seen("GET", "/lfs/")] == [None, "bytes=32768-"]


def test_a_body_that_always_breaks_is_an_error_and_leaves_nothing(hub, home):
    row = publish(hub)
    hub.faults = [Fault(cut=1000, times=FOREVER)]
    result = home.run(create, row)
    assert "could not be fetched" in result.value
    assert "pass weights=PATH" in result.value
    assert result.slept < 10
    assert not home.blobs
    hub.faults = []
    assert home.run(create, row).value == "right"


def test_a_flipped_byte_is_refused_and_the_good_file_fetched_next_time(hub, home):
    row = publish(hub)
    hub.faults = [Fault(flip=5000, times=2)]
    assert "SHA-256" in home.run(create, row).value
    assert not home.blobs, "nor may others find it"
    hub.requests.clear()
    first, second = home.run(create_twice, row).value
    assert "SHA-256" in first
    assert row["sha256"][:12] in first
    assert second == "right"
    assert len(hub.seen("GET", "/lfs/")) == 2


def test_bit_rot_in_the_cache_is_fetched_again(hub, home):
    row = publish(hub)
    home.run(create, row)
    (blob,) = home.blobs
    rotten = b"rot" + blob.read_bytes()[3:]
    blob.write_bytes(rotten)
    offline = home.run(create, row, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in offline.value
    assert "SHA-256" in offline.log
    hub.faults = [Fault(method="HEAD", status=500)]
    assert "500" in home.run(create, row).value
    assert blob.read_bytes() == rotten, "a bad file goes only when the server answers"
    mended = home.run(create, row)
    assert mended.value == "right"
    assert "Fetching it again" in mended.log
    assert blob.read_bytes() == tiny.safetensors()


def test_every_refusal_has_its_reason_and_costs_one_request(hub, home):
    row = publish(hub)
    hub.gated = {"someone/gated"}
    hub.add("someone/gated", "weights.safetensors", b"secret")
    changes = [
        {"filename": "gone.safetensors"},
        {"revision": "f" * 40},
        {"repo": "someone/gone"},
        {"repo": "someone/gated"},
    ]
    result = home.run(create_each, [row | change for change in changes])
    reasons = ["no such file", "no such revision", "access was refused (401)", "gated"]
    for error, reason in zip(result.value, reasons, strict=True):
        assert reason in error
        assert f"{hub.url}/someone/" in error
        assert "pass weights=PATH" in error
        assert "\n" not in error
    assert all("HF_TOKEN" in error for error in result.value[2:])
    assert [request.method for request in hub.requests] == ["HEAD"] * 4
    assert not result.slept


def test_a_gated_file_takes_a_token_that_goes_nowhere_else(hub, home):
    row = publish(hub)
    hub.gated = {"someone/weights"}
    assert "gated" in home.run(create, row, HF_TOKEN="hf_wrong").value
    hub.requests.clear()
    assert home.run(create, row, HF_TOKEN=hub.token).value == "right"
    assert {request.token for request in hub.seen(text="/resolve/")} == {hub.token}
    assert {request.token for request in hub.seen(text="/lfs/")} == {None}


def test_a_server_in_trouble_is_an_error_at_once(hub, home):
    row = publish(hub)
    statuses = (401, 403, 429, 500, 502, 503, 504)
    hub.faults = [Fault(method="HEAD", status=status) for status in statuses]
    result = home.run(create_each, [row] * len(statuses))
    for error, status in zip(result.value, statuses, strict=True):
        assert str(status) in error
        assert "pass weights=PATH" in error
    assert len(hub.requests) == len(statuses)
    assert not result.slept


def test_an_unreachable_server_is_an_error_at_once(hub, home):
    row = publish(hub)
    hub.stop()
    result = home.run(create, row)
    assert "refused" in result.value
    assert "weights.safetensors" in result.value
    assert not result.slept


def test_a_silent_server_is_given_up(hub, home):
    row = publish(hub)
    hub.faults = [Fault(method="HEAD", stall=30)]
    silent = home.run(create, row, HF_HUB_ETAG_TIMEOUT="1")
    assert "timed out" in silent.value


def test_a_cache_that_cannot_be_written_is_an_error_that_says_so(hub, home):
    (home.folder / "hf").write_text("a file where the cache should be")
    assert "could not be fetched" in home.run(create, publish(hub)).value


def test_two_processes_at_once_end_with_one_good_file(hub, home):
    row = publish(hub)
    hub.faults = [Fault(stall=0.5, times=2)]
    both = [home.start(create, row) for _ in range(2)]
    assert [home.wait(*each).value for each in both] == ["right", "right"]
    (blob,) = home.blobs
    assert blob.read_bytes() == tiny.safetensors()


# --- torchvision's files ----------------------------------------------------------------------------------------------


def test_torchvision_file_fetched_once_and_without_a_token(hub, home):
    row, url = publish_plain(hub)
    row["sha256_prefix"] = row.pop("sha256")[:8]
    assert home.run(create_at, row, url, HF_TOKEN=hub.token).value == "right"
    assert {request.token for request in hub.seen(text="/models/")} == {None}
    assert list(home.torchvision.parent.iterdir()) == [home.torchvision]
    hub.stop()
    assert home.run(create, row).value == "right"
    assert home.run(create, row, HF_HUB_OFFLINE="1").value == "right"


def test_torchvision_file_damaged_on_the_way_or_on_the_disk(hub, home):
    row, url = publish_plain(hub)
    hub.faults = [Fault(flip=5000)]
    first, second = home.run(create_twice_at, row, url).value
    assert "SHA-256" in first
    assert second == "right"
    home.torchvision.write_bytes(b"rot" + home.torchvision.read_bytes()[3:])
    assert home.run(create_at, row, url).value == "right"
    assert list(home.torchvision.parent.iterdir()) == [home.torchvision]


def test_a_torchvision_body_that_breaks_is_an_error_and_leaves_nothing(hub, home):
    row, url = publish_plain(hub)
    for cut in (40_000, 0):
        hub.faults = [Fault(cut=cut)]
        assert "It has been removed" in home.run(create_at, row, url).value
        assert not list(home.torchvision.parent.iterdir())
    assert home.run(create_at, row, url).value == "right"


def test_torchvision_offline_or_unreachable_says_what_to_put_where(hub, home):
    row, url = publish_plain(hub)
    offline = home.run(create_at, row, url, HF_HUB_OFFLINE="1").value
    assert not hub.requests
    hub.faults = [Fault(method="HEAD", status=404)]
    missing = home.run(create_at, row, url).value
    hub.stop()
    unreachable = home.run(create_at, row, url).value
    for error, reason in ((offline, "HF_HUB_OFFLINE"), (missing, "no such file"), (unreachable, "refused")):
        assert reason in error
        assert f"{url} and put it at {home.torchvision}" in error


def test_two_processes_at_once_end_with_one_torchvision_file(hub, home):
    row, url = publish_plain(hub)
    hub.faults = [Fault(stall=0.5, times=2)]
    both = [home.start(create_at, row, url) for _ in range(2)]
    assert [home.wait(*each).value for each in both] == ["right", "right"]
    assert list(home.torchvision.parent.iterdir()) == [home.torchvision]
