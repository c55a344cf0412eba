"""The example that steers a restoration network, with an untrained metric, and what its experiment reports."""

from __future__ import annotations

import csv
import importlib
import math
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import mdiqa_metric
from mdiqa_metric.metrics.mdiqa_lite import MDIQALite
from mdiqa_metric.train.distortions import blur, gaussian
from tests.rows import photograph

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        yield importlib.import_module("steer_restoration")


@pytest.fixture(scope="module")
def measures(example):
    return sys.modules["restoration_measures"]


@pytest.fixture
def clock(example, monkeypatch):
    """Time that passes only in the work: `seconds` of it by the threads that it runs with, four at first."""
    pace, clock = sys.modules["pace"], SimpleNamespace(now=0.0, threads=4, seconds={1: 1.0, 4: 1.0}, ran=[])

    def work():
        clock.now += clock.seconds[clock.threads]
        clock.ran.append(clock.threads)

    clock.work = work
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    fake = SimpleNamespace(
        get_num_threads=lambda: clock.threads, set_num_threads=lambda count: setattr(clock, "threads", count)
    )
    monkeypatch.setattr(pace, "torch", fake)
    return clock


@pytest.fixture(scope="module")
def control():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "experiments"))
        yield importlib.import_module("control")


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    return MDIQALite().unfreeze().freeze()


@pytest.fixture(scope="module")
def images():
    whole = photograph(480, 352)[0]
    return [whole[:, top : top + 200, left : left + 194] for top in (0, 140, 280) for left in (0, 158)]


def test_the_measures_without_a_model_distinguish_blur_halos_and_noise(measures):
    image = photograph(256, 256)[0]
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    soft = blur(image, gaussian(1.0))
    halos, noisy = image + (image - soft), image + noise
    for measure in (measures.gradient_energy, measures.edge_gain):
        assert measure(image, image) == pytest.approx(1)
        assert measure(blur(image, gaussian(2.0)), image) < measure(soft, image) < 0.8
        assert measure(halos, image) > 1.2
    assert measures.gradient_energy(noisy, image) > 1.05
    assert measures.edge_gain(noisy, image) == pytest.approx(1, abs=0.01)
    # A gray mean of three channels' noise has .67 of their deviation; a slope has little within a block.
    slope = torch.linspace(0.3, 0.7, 256).expand(3, 256, 256)
    assert measures.flat_deviation(slope, slope) < 2
    assert measures.flat_deviation(slope + noise, slope) == pytest.approx(0.67 * 0.02 * 255, rel=0.2)
    assert measures.flat_deviation(noisy, image) > measures.flat_deviation(soft, image)
    shots = torch.stack([noisy, image + noise.flip(2)])
    assert measures.residual_noise(shots, image) == pytest.approx(0.67 * 0.02 * 255, rel=0.2)
    assert measures.residual_noise(torch.stack([noisy, noisy]), image) == 0  # whatever its texture is


def test_degrading_halves_blurs_and_repeats(example, measures, images):
    low = example.degrade(images[0], Random(3), shots=2)
    assert low.shape == (2, 3, 100, 97)
    assert torch.equal(low, example.degrade(images[0], Random(3), shots=2))
    assert torch.equal(low[:1], example.degrade(images[0], Random(3)))
    assert not torch.equal(low[0], low[1])
    assert 0 <= low.min() <= low.max() <= 1
    assert measures.edge_gain(example.enlarge(low)[0], images[0]) < 0.9
    one, other = (list(example.batches(images, 2, seed=5, size=3, side=64)) for _ in range(2))
    assert [part.shape for part in one[0]] == [(3, 3, 32, 32), (3, 3, 64, 64)]
    for step in zip(one, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(*step, strict=True))


def test_training_beats_the_bicubic_enlargement_that_it_begins_as(example, images):
    torch.manual_seed(0)
    network = example.Restorer()
    assert 100_000 < sum(weight.numel() for weight in network.parameters()) < 300_000
    low = example.degrade(images[0], Random(0))
    assert torch.equal(network(low), example.enlarge(low))
    seen = list(example.batches(images, 4, seed=0))

    def far():
        with torch.no_grad():
            return sum(F.l1_loss(network(low), clean).item() for low, clean in seen)

    before = far()
    losses = example.train(network, images, F.l1_loss, steps=40, rate=1e-3)
    assert len(losses) == 40
    assert far() < 0.95 * before


def test_the_objective_raises_the_weighted_dimension(example, untrained, images):
    clean = torch.stack([photo[:, :64, :64] for photo in images[:2]])
    raised = {}
    for name in ("sharpness", "noisiness"):
        objective = example.steered_objective(
            untrained, 100.0, **dict.fromkeys(untrained.dimension_names, 0.0) | {name: 1.0}
        )
        image = clean.clone()
        for _ in range(3):
            image.requires_grad_()
            (gradient,) = torch.autograd.grad(objective(image, clean), image)
            image = image.detach() - 0.01 * gradient.sign()
        gained = untrained.dimensions(image.clamp(0, 1)) - untrained.dimensions(clean)
        raised[name] = gained.mean(0)[untrained.dimension_names.index(name)]
    assert min(raised.values()) > 0
    # Beyond black and white the quality is constant: only L1 has a gradient there.
    image = torch.full_like(clean, 1.05).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(image, clean), image)
    assert torch.equal(gradient, torch.full_like(gradient, 1 / gradient.numel()))


def test_the_program_writes_a_table_and_a_plot(example, untrained, images, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for index, image in enumerate(images[:5]):
        values = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(values[:199, :193]).save(tmp_path / f"in/{index}.png")  # odd sides
    create = mdiqa_metric.create
    monkeypatch.setattr(
        mdiqa_metric, "create", lambda name, **options: untrained if name == "mdiqa-lite" else create(name, **options)
    )
    arguments = ["--data", "in", "--out", "out", "--steps", "2", "--weight", "50", "--device", "cpu"]
    arguments += ["--set", "sharpness=4", "noisiness=0.5", "--set", "noisiness=2"]
    monkeypatch.setattr(sys, "argv", ["steer_restoration.py", *arguments])
    monkeypatch.chdir(tmp_path)
    example.main()
    rows = {row.pop("version"): row for row in csv.DictReader(Path("out/steer.csv").read_text().splitlines())}
    assert list(rows) == ["bicubic", "off", "neutral", "sharpness 4, noisiness 0.5", "noisiness 2", "reference"]
    columns = [*MDIQALite.dimension_names, "PSNR", "ST-LPIPS", "gradient energy", "edge gain"]
    columns += ["flat deviation", "residual noise"]
    values = {name: [float(row[key]) for key in columns] for name, row in rows.items()}
    assert np.isfinite(list(values.values())).all()
    assert len({tuple(line) for line in values.values()}) == 6  # every setting has its own outcome
    assert rows["reference"]["PSNR"] == "80"
    assert rows["reference"]["edge gain"] == "1"
    assert rows["reference"]["residual noise"] == "0"
    printed = capsys.readouterr().out
    assert "Mean over 2 held-out images" in printed
    assert "sharpness 4, noisiness 0.5" in printed
    with Image.open("out/steer.png") as plot:
        assert plot.format == "PNG"
        assert plot.width > 1000
        assert len(set(np.asarray(plot.convert("L")).ravel())) > 100


def test_a_network_with_knobs_starts_as_the_one_without_and_learns_to_respond(example, untrained, images):
    knobs = importlib.import_module("steer_at_test_time")
    torch.manual_seed(0)
    plain, network = example.Restorer(), knobs.SteerableRestorer()
    example.train(plain, images, F.l1_loss, steps=2, rate=1e-3)
    network.load_state_dict(plain.state_dict(), strict=False)
    low = example.degrade(images[0], Random(0))
    sharp, clean = (knobs.set_knobs(network, **{name: 4.0}) for name in knobs.KNOBS)
    with torch.no_grad():
        assert torch.equal(sharp(low), plain(low))
        assert torch.equal(clean(low), plain(low))
    knobs.train(network, untrained, images, steps=3, weight=50.0)
    with torch.no_grad():
        assert not torch.equal(sharp(low), clean(low))
    assert untrained.dimension_weights.eq(1).all()  # for whoever uses it next


def test_threads_that_wait_for_a_busy_core_give_way_to_one(example, clock, capsys):
    clock.seconds = {1: 1.3, 4: 10.0}
    example.use_fastest_threads(clock.work)
    assert clock.threads == 1
    assert clock.ran == [1, 1, 4]  # the slow way once, and the first run is not counted
    assert "1 thread is faster than 4 here" in capsys.readouterr().out


def test_a_quiet_machine_keeps_its_threads_and_all_steps(example, clock, capsys):
    clock.seconds = {1: 1.3, 4: 0.8}
    example.use_fastest_threads(clock.work)
    assert clock.threads == 4
    pace = example.Pace(60, seconds=60.0)
    for step in range(60):
        assert not pace.is_over
        clock.work()
        assert pace.advance() == 1, step
    assert pace.is_over
    assert clock.threads == 4
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("slower", "threads"), [(2.0, 4), (4.0, 1)])
def test_a_program_that_starts_in_the_middle_takes_the_threads_away(example, clock, slower, threads):
    pace = example.Pace(60, seconds=1e9)
    for step in range(60):
        clock.seconds[4] = slower if step >= 30 else 1.0
        clock.work()
        pace.advance()
    assert clock.threads == threads
    assert clock.ran == [4] * 40 + [threads] * 20  # ten slow steps are enough


@pytest.mark.parametrize(("step", "made"), [(1.0, 60), (2.0, 30), (7.0, 9), (1000.0, 1)])
def test_slow_steps_are_fewer_go_through_the_whole_schedule_and_take_no_longer(example, clock, step, made):
    clock.seconds = {1: step, 4: step}
    pace, over = example.Pace(60, seconds=60.0), []
    while not pace.is_over:
        clock.work()
        over.append(pace.advance())
    assert len(over) == made
    assert sum(over) == 60
    assert clock.now < 60 + step


def test_a_training_that_is_short_of_time_ends_early(example, images, monkeypatch):
    network = example.Restorer()
    assert len(example.train(network, images, F.l1_loss, 12, 1e-3, slowest=1e-9)) == 1
    assert len(example.train(network, images, F.l1_loss, 12, 1e-3, slowest=1e9)) == 12


@pytest.mark.parametrize(("arguments", "steps"), [([], 200), (["--steps", "200"], 200), (["--steps", "7"], 7)])
def test_steps_that_are_asked_for_are_made(example, untrained, monkeypatch, tmp_path, arguments, steps):
    made = []
    monkeypatch.setattr(mdiqa_metric, "create", lambda name: untrained)
    monkeypatch.setattr(example, "compare", lambda *given: made.append((given[4], given[-1])))
    monkeypatch.setattr(sys, "argv", ["steer_restoration.py", "--device", "cpu", "--out", str(tmp_path), *arguments])
    example.main()
    assert made == [(steps, math.inf if arguments else example.SLOWEST)]


def test_impossible_requests_fail_before_training(example, untrained, images, tmp_path):
    with pytest.raises(ValueError, match="Did you mean sharpness"):
        example.compare(untrained, images, [{"sharpnes": 2.0}], tmp_path)
    with pytest.raises(ValueError, match="got 1 with a shortest side of 194"):
        example.compare(untrained, images[:1], [], tmp_path)
    with pytest.raises(ValueError, match="shortest side of 90"):
        example.compare(untrained, [*images, images[0][:, :90]], [], tmp_path)


def row_of(control, seed, name, gradient, noise, psnr):
    figures = {"gradient energy": gradient, "edge gain": gradient, "residual noise": noise, "PSNR": psnr}
    figures |= {"flat deviation": noise, "ST-LPIPS": 0.1, "sharpness": gradient, "noisiness": -noise}
    return {"seed": seed, "name": name, "weight": 0.05, "seconds a step": 1.0, "figures": figures}


def test_the_experiment_reports_correlations_and_costs(control):
    found = []
    for seed in (0, 1):
        found += [
            row_of(control, seed, name, 1.0, 3.0, 30.0 + seed) for name in ("off", "overall", "st-lpips", "knobs")
        ]
        for weight in control.WEIGHTS:
            # The second seed's noise falls as it should, but for the last weight.
            noise = 3.5 if seed and weight == 4 else 3 - weight
            found.append(row_of(control, seed, control.setting("sharpness", weight), weight, 2.0, 29.5 + seed))
            if weight != 1:
                found.append(row_of(control, seed, control.setting("noisiness", weight), 1.0, noise, 29.0 + seed))
    response = {row["measure"]: row for row in control.responses(found)}
    assert response["gradient energy"]["rho"] == {"pooled": pytest.approx(1), "by seed": pytest.approx([1, 1])}
    assert response["gradient energy"]["reached"]
    assert response["residual noise"]["rho"]["by seed"] == pytest.approx([-1, 0], abs=1e-9)
    assert not response["residual noise"]["reached"]
    cost = control.costs(found)
    assert cost["neutral"]["gained"]["PSNR"] == {"mean": pytest.approx(-0.5), "std": pytest.approx(0)}
    assert cost["noisiness 2"]["gained"]["PSNR"]["mean"] == pytest.approx(-1)
    facts = {"date": "", "mdiqa_metric": "", "commit": "", "dirty": False, "device": "", "threads": 1}
    facts |= {"load before": 0.0, "python": "", "versions": {}}
    keys = ("metric", "parameters", "pre-training", "steps", "steps with knobs", "train images", "held-out images")
    protocol = dict.fromkeys(keys, 1)
    # One network with knobs answers as the first seed's did.
    turned = {row["name"]: row["figures"] for row in found if row["seed"] == 0 and row["name"] in control.STEERED}
    knobs = control.knob_responses([{"seed": 0, "name": "knobs", "turned": turned}])
    assert {row["measure"]: row["rho"]["pooled"] for row in knobs}["residual noise"] == pytest.approx(-1)
    text = control.report(facts, {**protocol, "seeds": 2, "weight": 0.05}, control.responses(found), knobs, cost)
    assert "| sharpness | gradient energy | 1.000 | 1.00, 1.00 | 0.25 ± 0 |" in text
    assert "falls by 0.50 dB" in text


def test_the_experiment_resumes(control, tmp_path, monkeypatch):
    ran = []

    def run(metric, learnt, kept, protocol, folder, seed, name):
        ran.append((seed, name))
        if len(ran) == 3:
            raise KeyboardInterrupt
        return {"seed": seed, "name": name}

    monkeypatch.setattr(control, "run", run)
    protocol = {"seeds": 2, "steps": 1}
    with pytest.raises(KeyboardInterrupt):
        list(control.rows(None, [], [], protocol, tmp_path))
    found = list(control.rows(None, [], [], protocol, tmp_path))
    every = [(seed, name) for seed in (0, 1) for name in control.RUNS]
    assert [(row["seed"], row["name"]) for row in found] == every
    assert ran == every[:3] + every[2:]
    list(control.rows(None, [], [], {**protocol, "steps": 2}, tmp_path))
    assert len(ran) == 2 * len(every) + 1
