"""The report as a file, as its markup says, and as a real browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdiqa_metric.evaluation.agreement import agreement, compare
from mdiqa_metric.evaluation.logistic import logistic4
from mdiqa_metric.evaluation.report import THUMBNAIL, WORST, scatter_plot, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=alert(1)> & 'it' \"is\".png"
VOID = {"meta", "img", "br", "path", "use", "image", "rect"}


class Markup(HTMLParser):
    """Elements with their attributes and text, and whether each tag that opened was closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.tables: list[dict[str, Any]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag == "table":
            self.tables.append({"headers": [], "rows": [], "keys": []})
        elif tag == "tr" and "tbody" in self.open:
            self.tables[-1]["rows"].append([])
            self.tables[-1]["keys"].append([])
        elif tag in ("td", "th") and "tbody" in self.open:
            self.tables[-1]["rows"][-1].append("")
            self.tables[-1]["keys"][-1].append(dict(attrs).get("data-sort"))
        elif tag == "th":
            self.tables[-1]["headers"].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.elements[-1][2].append(data)
        in_cell = "td" in self.open or "th" in self.open
        if "tbody" in self.open and in_cell:
            self.tables[-1]["rows"][-1][-1] += data
        elif in_cell:
            self.tables[-1]["headers"][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def evaluation(root: Path, count: int = 40, against: bool = False) -> dict[str, Any]:
    """What `evaluate` returns, for images on disk: a good metric, a poor one, and one that fails on two."""
    random = np.random.default_rng(0)
    images = []
    for index in range(count):
        name = HOSTILE if index == 0 else f"photo {index}.png"
        base = random.integers(0, 256, (48, 200 + index, 3), dtype=np.uint8)
        Image.fromarray(base).save(root / name)
        mos = index / count
        scores = {
            "sharp": 5 * np.tanh(3 * mos - 1.5) + random.normal(0, 0.7),
            "noise": -mos + random.normal(0, 0.5),
            "picky": mos + random.normal(0, 0.2) if index not in (5, 9) else None,
        }
        errors = {"picky": f"picky cannot <score> {name}."} if scores["picky"] is None else {}
        images.append({"image": name, "mos": mos, "distortion": "blur <1>" if index % 2 else "noise", "scores": scores})
        images[-1] |= {"errors": errors, **({"reference": "photo 1.png"} if against else {})}
    names = {"sharp": False, "noise": True, "picky": False}

    def oriented(name: str, rows: list[dict[str, Any]]) -> np.ndarray:
        return np.array([(-1 if names[name] else 1) * row["scores"][name] for row in rows])

    def agree(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        there = [row for row in rows if row["scores"][name] is not None]
        found = agreement(oriented(name, there), [row["mos"] for row in there], resamples=100)
        return {"images": len(rows), **found}

    def agree_in_group(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        absent = ("plcc_interval", "krcc_interval")
        return {key: value for key, value in agree(name, rows).items() if "logistic" not in key and key not in absent}

    metrics = {}
    for name, lower in names.items():
        failed = sum(name in row["errors"] for row in images)
        groups = {
            label: agree_in_group(name, [row for row in images if row["distortion"] == label])
            for label in ("blur <1>", "noise")
        }
        metrics[name] = {"fingerprint": f"{name} weights=none", "lower_is_better": lower, "scored": count - failed}
        metrics[name] |= {"failed": failed, "agreement": agree(name, images), "groups": {"distortion": groups}}
    comparisons = []
    for a, b in combinations(names, 2):
        there = [row for row in images if not {a, b} & set(row["errors"])]
        found = compare(oriented(a, there), oriented(b, there), [row["mos"] for row in there], resamples=100)
        comparisons.append({"a": a, "b": b, **found})
    facts = {
        "table": str(root / "table.csv"),
        "split": "test",
        "images": count,
        "root": str(root),
        "sha256": "ab" * 32,
    }
    return {"dataset": facts, "metrics": metrics, "comparisons": comparisons, "images": images}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluation(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def page(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(results, path)
    return path


def test_the_file_stands_alone_and_is_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]
    assert len(text) < 400_000
    markup = Markup(text)
    for tag, attributes, _ in markup.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:image/", "#")), (tag, name, value)
    assert markup.all("link") == []
    style = "".join("".join(parts) for tag, _, parts in markup.elements if tag == "style")
    assert "@import" not in style
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    policy = next(meta for meta in markup.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'")


def test_ids_are_unique_and_each_reference_to_one_is_met(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    markup = Markup(text)
    ids = [attributes["id"] for _, attributes, _ in markup.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert len(wanted) > 10
    assert {one or other for one, other in wanted} <= set(ids)


def test_names_are_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "onerror=alert" in text
    for image in Markup(text).all("img"):
        assert "onerror" not in image
    assert "blur &lt;1&gt;" in text
    assert "picky cannot &lt;score&gt; photo 5.png." in text


def test_the_summary_says_what_the_results_say(page: Path, results: dict[str, Any]) -> None:
    summary = Markup(page.read_text(encoding="utf-8")).tables[0]
    headers = [" ".join(header.split()) for header in summary["headers"]]
    assert headers[:3] == ["metric", "images", "SRCC"]
    assert headers[4:] == ["PLCC raw", "PLCC 4-par.", "PLCC 5-par.", "KRCC", "RMSE 4-par.", "RMSE 5-par."]
    assert len(summary["rows"]) == 3
    keys = ("srcc", None, "plcc", "plcc_logistic4", "plcc_logistic5", "krcc", "rmse_logistic4", "rmse_logistic5")
    for (name, facts), cells, sort in zip(results["metrics"].items(), summary["rows"], summary["keys"], strict=True):
        found = facts["agreement"]
        assert cells[0] == name
        assert cells[1].strip() == ("38 of 40" if name == "picky" else "40")
        for key, cell, value in zip(keys, cells[2:], sort[2:], strict=True):
            if key is None:
                continue
            assert float(value) == found[key]
            digits = f"{found[key]:.3f}" if "rmse" not in key else f"{found[key]:#.4g}"
            assert cell.strip().startswith(digits.replace("-", "\N{MINUS SIGN}"))
            for end in found.get(f"{key}_interval", []):
                assert f"{end:.3f}".replace("-", "\N{MINUS SIGN}") in cell


def test_comparisons_groups_and_failures_are_tables(page: Path, results: dict[str, Any]) -> None:
    _, comparisons, groups, failures = Markup(page.read_text(encoding="utf-8")).tables
    assert [row[:2] for row in comparisons["rows"]] == [["sharp", "noise"], ["sharp", "picky"], ["noise", "picky"]]
    assert [row[2].strip() for row in comparisons["rows"]] == ["40", "38 of 40", "38 of 40"]
    for row, keys, found in zip(comparisons["rows"], comparisons["keys"], results["comparisons"], strict=True):
        assert [float(key) for key in keys[3:8]] == [
            found[key]
            for key in ("srcc_difference", "srcc_difference_p", "meng_p_srcc", "meng_p_plcc", "residual_variance_p")
        ]
        ahead = found["a"] if found["srcc_difference"] > 0 else found["b"]
        assert row[8] == (f"{ahead} ahead" if found["srcc_difference_p"] < 0.05 else "not told apart")
    assert [row[:2] for row in groups["rows"]] == [
        [label, name] for name in ("sharp", "noise", "picky") for label in ("blur <1>", "noise")
    ]
    assert [row[2].strip() for row in groups["rows"]] == ["20"] * 4 + ["18 of 20", "20"]
    assert failures["rows"] == [[f"photo {i}.png", "picky", f"picky cannot <score> photo {i}.png."] for i in (5, 9)]


def test_headers_are_buttons_over_cells_with_sort_keys(page: Path) -> None:
    """What the script needs to sort; that it does is seen in a browser below."""
    markup = Markup(page.read_text(encoding="utf-8"))
    sortable = [th for th in markup.all("th") if "aria-sort" in th]
    assert len(sortable) == len([button for button in markup.all("button") if button == {"type": "button"}])
    assert {(th["aria-sort"], th["scope"]) for th in sortable} == {("none", "col")}
    assert {th["data-kind"] for th in sortable} == {"number", "text"}
    for table in markup.tables:
        for keys in table["keys"]:
            assert len(keys) == len(table["headers"])
            assert [index for index, key in enumerate(keys) if key is None] == [
                index
                for index, header in enumerate(table["headers"])
                if re.fullmatch("(0|\N{MINUS SIGN}1)1", header.strip())
            ]


def test_the_worst_disagreements_are_those_farthest_from_the_curve(page: Path, results: dict[str, Any]) -> None:
    markup = Markup(page.read_text(encoding="utf-8"))
    images = markup.all("img")
    assert len(images) == 3 * WORST
    for place, (name, facts) in enumerate(results["metrics"].items()):
        rows = [row for row in results["images"] if row["scores"][name] is not None]
        sign = -1 if facts["lower_is_better"] else 1
        mos = np.array([row["mos"] for row in rows])
        residuals = np.abs(logistic4([sign * row["scores"][name] for row in rows], mos).predicted - mos)
        expected = [rows[index]["image"] for index in np.argsort(-residuals)[:WORST]]
        assert [image["alt"] for image in images[place * WORST : (place + 1) * WORST]] == expected


def test_thumbnails_are_small_images(page: Path) -> None:
    import base64
    import io

    for image in Markup(page.read_text(encoding="utf-8")).all("img"):
        data = base64.b64decode(str(image["src"]).removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(data)) as photo:
            assert photo.format == "JPEG"
            assert photo.width == THUMBNAIL
            assert 30 <= photo.height <= 48  # 48 x 200 and wider, with their shape kept


def test_references_stand_beside_and_missing_images_are_told(tmp_path: Path) -> None:
    results = evaluation(tmp_path, against=True)
    worst = results["images"][:]
    for row in worst[:20]:
        (tmp_path / row["image"]).unlink(missing_ok=True)
    (tmp_path / "photo 30.png").write_bytes(b"no image")
    write_report(results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count('class="gone"') > 3 * WORST  # the reference, deleted too, of each
    assert "There is no image" in text
    assert f"{tmp_path}/photo 1.png: check the path." in text
    assert "beside each its reference" in text
    Image.new("RGB", (20, 10)).save(tmp_path / "photo 1.png")
    write_report(results, tmp_path / "report.html")
    alts = [image["alt"] for image in Markup((tmp_path / "report.html").read_text(encoding="utf-8")).all("img")]
    assert len([alt for alt in alts if str(alt).startswith("reference of ")]) == 3 * WORST


def test_what_could_not_be_computed_is_said(tmp_path: Path) -> None:
    results = evaluation(tmp_path, count=12)
    for row in results["images"]:
        row["scores"]["sharp"] = 1.0
    constant = agreement([1.0] * 12, [row["mos"] for row in results["images"]], resamples=100)
    results["metrics"]["sharp"]["agreement"] = {"images": 12, **constant}
    write_report(results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    summary = Markup(text).tables[0]
    assert "All scores are 1: what does not vary has no correlation." in summary["rows"][0][2]
    assert summary["keys"][0][2] == ""
    assert "No curve could be fitted" in text


def test_one_metric_alone_and_no_failure(tmp_path: Path) -> None:
    results = evaluation(tmp_path)
    results["metrics"] = {"noise": results["metrics"]["noise"]}
    results["comparisons"] = []
    for row in results["images"]:
        row["scores"], row["errors"] = {"noise": row["scores"]["noise"]}, {}
    results["metrics"]["noise"]["dimensions"] = {"sharpness": results["metrics"]["noise"]["agreement"]}
    results["dataset"]["small_groups"] = {"distortion": {"rain": 2}}
    write_report(results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Between metrics" not in text
    assert "None: every metric scored every image." in text
    assert "Too small for a row by distortion: rain (2)." in text
    tables = Markup(text).tables
    assert tables[-1]["rows"][0][:2] == ["noise", "sharpness"]


def test_a_report_is_written_whole_or_not_at_all(results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")
    broken = {**results, "comparisons": [{"a": "sharp"}]}
    with pytest.raises(Exception, match="has no attribute"):
        write_report(broken, path)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_same_results_make_the_same_report(results: dict[str, Any], page: Path, tmp_path: Path) -> None:
    write_report(results, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == page.read_bytes()


def test_results_read_back_from_json_make_the_same_report(results: dict[str, Any], page: Path, tmp_path: Path) -> None:
    write_report(json.loads(json.dumps(results, allow_nan=False)), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == page.read_bytes()


def test_scatter_plot_draws_each_image_and_both_curves(results: dict[str, Any], tmp_path: Path) -> None:
    figure = scatter_plot(results, "noise")
    (axes,) = figure.axes
    dots = axes.collections[0].get_offsets()
    assert dots.tolist() == [[row["scores"]["noise"], row["mos"]] for row in results["images"]]
    curves = [line for line in axes.lines if len(line.get_xdata()) == 200]
    assert [curve.get_label() for curve in curves] == ["4-parameter logistic", "5-parameter logistic"]
    fit = logistic4(-np.array(dots[:, 0]), np.array(dots[:, 1]))
    assert curves[0].get_ydata() == pytest.approx(fit.curve(-np.asarray(curves[0].get_xdata())))
    assert curves[0].get_ydata()[0] > curves[0].get_ydata()[-1]  # lower scores are better
    assert len(axes.texts) == WORST
    assert axes.get_xlabel() == "noise (lower is better)"
    figure.savefig(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 400
    assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_many_images_make_one_image_of_dots(results: dict[str, Any], tmp_path: Path) -> None:
    many = {**results, "images": [row for row in results["images"] for _ in range(60)]}
    few = len((write_report(results, tmp_path / "few.html"), (tmp_path / "few.html").read_bytes())[1])
    write_report(many, tmp_path / "many.html")
    text = (tmp_path / "many.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in text
    assert len(text) < few + 300_000


def test_an_unknown_metric_is_refused(results: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no metric lpips, expected one of sharp, noise, picky"):
        scatter_plot(results, "lpips")


def test_without_matplotlib_the_extra_is_named(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'mdiqa_metric\[evaluate\]'"):
        scatter_plot(results, "sharp")


# In a browser.

# Clicks headers as a reader does and writes down what is then seen.
PROBE = """
<script>
const seen = {errors: [], steps: [], requests: performance.getEntriesByType("resource").map(e => e.name)};
addEventListener("error", event => seen.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", event => seen.errors.push("policy: " + event.violatedDirective));
addEventListener("load", () => {
  const table = document.querySelector("table");
  const headers = [...table.tHead.rows[0].cells];
  const look = () => seen.steps.push({
    names: [...table.tBodies[0].rows].map(row => row.cells[0].textContent),
    sorted: headers.map(header => header.getAttribute("aria-sort")),
  });
  look();
  for (const column of [2, 2, 0, 0, 9]) { headers[column].querySelector("button").click(); look(); }
  seen.images = [...document.images].map(image => image.complete && image.naturalWidth);
  const plot = document.querySelector(".plot svg").getBoundingClientRect();
  seen.plot = [plot.width, plot.height];
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  seen.background = getComputedStyle(document.body).backgroundColor;
  seen.axis = getComputedStyle(document.querySelector(".plot svg text")).fill;
  seen.ink = getComputedStyle(document.body).color;
  document.body.dataset.seen = JSON.stringify(seen);
});
</script>
</body>
"""


def browse(page: Path, folder: Path, *flags: str) -> tuple[dict[str, Any], str, set[str]]:
    """What the probe saw, what the console said, and what the page asked the network for."""
    folder.mkdir()
    probed = folder / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>\n", PROBE), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
    ]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={folder / 'net.json'}",
        "--window-size=1280,900",
    ]
    command += ["--enable-logging=stderr", "--v=0", "--dump-dom", *flags, probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    bodies = [attributes for attributes in Markup(done.stdout).all("body") if "data-seen" in attributes]
    assert bodies, done.stderr
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    events = [event.get("params", {}) for event in json.loads((folder / "net.json").read_text())["events"]]
    # The browser asks its makers for updates too; such requests are of no page.
    asked = {event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"}
    return json.loads(str(bodies[0]["data-seen"])), console, {url for url in asked if not url.startswith("data:")}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_sorts_shows_everything_and_asks_the_network_nothing(
    results: dict[str, Any], page: Path, tmp_path: Path
) -> None:
    seen, console, asked = browse(page, tmp_path / "light")
    assert console == ""
    assert seen["errors"] == []
    srcc = {name: facts["agreement"]["srcc"] for name, facts in results["metrics"].items()}
    rmse = {name: facts["agreement"]["rmse_logistic5"] for name, facts in results["metrics"].items()}
    falling = sorted(srcc, key=lambda name: -srcc[name])
    assert [step["names"] for step in seen["steps"]] == [
        list(srcc),
        falling,
        falling[::-1],
        sorted(srcc),
        sorted(srcc)[::-1],
        sorted(rmse, key=lambda name: -rmse[name]),
    ]
    assert falling != list(srcc) != sorted(srcc)
    for step, (column, order) in zip(
        seen["steps"][1:],
        [(2, "descending"), (2, "ascending"), (0, "ascending"), (0, "descending"), (9, "descending")],
        strict=True,
    ):
        assert step["sorted"] == [
            None if index == 3 else order if index == column else "none" for index in range(len(step["sorted"]))
        ]
    assert seen["images"] == [THUMBNAIL] * (3 * WORST)
    assert min(seen["plot"]) > 300
    assert seen["overflow"] <= 0
    assert seen["axis"] == seen["ink"]
    assert all(name.startswith("data:") for name in seen["requests"])
    assert asked <= {(tmp_path / "light" / "probed.html").as_uri()}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_page_that_asks_the_network_would_be_seen(page: Path, tmp_path: Path) -> None:
    """That the test above can fail, and that the page's own policy forbids what it looks for."""
    outside = "http://127.0.0.1:9/outside.png"
    text = page.read_text(encoding="utf-8").replace("<main>", f'<main><img src="{outside}">', 1)
    (tmp_path / "guarded.html").write_text(text, encoding="utf-8")
    (tmp_path / "open.html").write_text(text.replace("Content-Security-Policy", "nothing"), encoding="utf-8")
    _, console, asked = browse(tmp_path / "guarded.html", tmp_path / "guarded")
    assert "Content Security Policy" in console
    assert outside not in asked
    _, _, asked = browse(tmp_path / "open.html", tmp_path / "open")
    assert outside in asked


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_it_dark_to_who_prefers_dark(page: Path, tmp_path: Path) -> None:
    shades = {}
    for name, flags in {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}.items():
        seen, console, _ = browse(page, tmp_path / name, *flags)
        assert console == ""
        back, ink = ([int(part) for part in re.findall(r"\d+", seen[key])[:3]] for key in ("background", "ink"))
        assert abs(sum(back) - sum(ink)) > 450  # read with ease
        assert seen["axis"] == seen["ink"]
        shades[name] = sum(back)
    assert shades["light"] > 700
    assert shades["dark"] < 100


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_keeps_missing_numbers_last(tmp_path: Path) -> None:
    results = evaluation(tmp_path, count=20)
    middle = results["metrics"]["noise"]["agreement"]
    middle |= {"srcc": None, "srcc_interval": None, "reasons": {"srcc": "Nobody knows."}}
    write_report(results, tmp_path / "report.html")
    seen, console, _ = browse(tmp_path / "report.html", tmp_path / "browser")
    assert console == ""
    assert [step["names"][-1] for step in seen["steps"][1:3]] == ["noise", "noise"]
    assert seen["steps"][1]["names"][:2] == seen["steps"][2]["names"][1::-1]
