"""The scorer of lesson 21 on honest, lazy and cheating reports, and the set that ships."""

import hashlib
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from course_utils import incident, open_cases
from course_utils.attacks.triggers import solid_patch
from course_utils.checks import judge as judging
from course_utils.data import balanced, load
from course_utils.incident import IncidentError, Report
from course_utils.models import build as build_model
from course_utils.threat import Poison
from course_utils.training import Recipe
from tools import build_incident as build
from tools import grade

SEEDS = [11, 12, 13, 14, 15, 16]
RECIPE = {"epochs": 6, "batch_size": 50, "lr": 0.05}


def arrays_of(data):
    return {"x": build.grey(data.x), "y": data.y.byte().numpy()}


def small_case(name, data, clean, asked, truth, poison, secret, folder, judge):
    """Write one case of a small set; its manifest entry, its answers, and their arrays."""
    arrays = arrays_of(data) | {f"asked_{k}": v for k, v in arrays_of(asked).items()}
    content = build.packed(arrays | {f"trusted_{k}": v for k, v in arrays_of(asked).items()})
    (folder / f"{name}.npz").write_bytes(content)
    entry = {"practice": name == "warm-up", "story": "A story.", "question": "accuracy"}
    entry |= {"scenario": "scratch", "network": "logistic_regression", "recipe": RECIPE}
    entry |= {"file": f"{name}.npz", "sha256": hashlib.sha256(content).hexdigest()}
    arrays = {f"{name}/poison": np.array(poison, dtype=np.int64)} | {
        f"{name}/{key}": values for key, values in secret.items()
    }
    answers = open_cases.Answers({name: truth}, arrays, judge)
    case = incident.OpenCase(
        name, "", data, build_model("logistic_regression", data.shape, 10),
        Recipe(**RECIPE), "accuracy", asked,
    )  # fmt: skip
    kept = incident.without(clean, poison)
    for key, part in (("nothing", data), ("oracle", kept)):
        rows = [judging.measure(case.train(part, seed=s), case, answers) for s in SEEDS]
        truth[key] = rows
    return entry, truth, arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of four small cases: clean twice, flips, and a backdoor."""
    place = tmp_path_factory.mktemp("set")
    train_all, test = load("fashion_mnist")
    judge, asked = balanced(test, 400, 0), balanced(test, 100, 1)
    clean = balanced(train_all, 500, 0)
    flips = torch.arange(0, 200)
    flipped = Poison(clean.x[flips], (clean.y[flips] + 1) % 10, flips).apply(clean)
    trigger = solid_patch(5)
    marked = (clean.y != 3).nonzero()[-30:, 0]
    door = Poison(trigger(clean.x[marked]), torch.full((30,), 3), marked).apply(clean)
    goals = {"flips": [{"kind": "accuracy"}]}
    goals["door"] = [{"kind": "backdoor", "source": None, "target": 3}]
    families = {"flips": ["random flips"], "door": ["BadNets"]}
    entries, truths, arrays = {}, {}, {"judge_x": build.grey(judge.x)}
    arrays["judge_y"] = judge.y.byte().numpy()
    for name, data, poison, secret in (
        ("calm", clean, [], {}),
        ("flips", flipped, flips.tolist(), {}),
        ("door", door, marked.tolist(), build.mask_and_pattern(trigger)),
        ("warm-up", clean, [], {}),
    ):
        truth = {"families": families.get(name, []), "goals": goals.get(name, []), "seeds": SEEDS}
        given = (name, data, data, asked, truth, poison, secret, place, judge)
        entries[name], truths[name], more = small_case(*given)
        arrays |= more
    content = open_cases.pack_answers(truths, arrays)
    (place / open_cases.ANSWERS).write_bytes(content)
    manifest = {"answers": hashlib.sha256(content).hexdigest(), "cases": entries}
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return place


def near(value, width=0.12):
    return max(0.0, value - width / 2), min(1.0, value + width / 2)


def answers_of(folder):
    promised = open_cases.read_manifest(folder)["answers"]
    return open_cases.read_answers(folder / open_cases.ANSWERS, promised)


def honest(folder, name):
    """What somebody hands in who knows the poisons, with intervals about the right numbers."""
    answers = answers_of(folder)
    truth, rows = answers.cases[name], answers.arrays[f"{name}/poison"].tolist()
    before = near(judging.mean(truth["nothing"], "asked"))
    if not rows:
        return Report(name, "clean", before=before)
    after = near(judging.mean(truth["oracle"], "asked"))
    given = {"before": before, "control": before, "after": after}
    return Report(name, "poisoned", tuple(truth["families"]), rows, **given)


@pytest.mark.parametrize("name", ["calm", "flips", "door"])
def test_an_honest_report_scores_nearly_everything(folder, name):
    found = incident.score(honest(folder, name), folder)
    assert found.points > 90
    assert found.points == pytest.approx(sum(found.parts.values()))
    assert found.measured["recall"] == 1


@pytest.mark.parametrize("name", ["flips", "door"])
def test_doing_nothing_scores_nothing(folder, name):
    before = honest(folder, name).before
    assert incident.score(Report(name, "undecided", before=before), folder).points == 0
    assert incident.score(Report(name, "clean", before=before), folder).points < 0


@pytest.mark.parametrize("name", ["flips", "door"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_random_drop_scores_nearly_nothing(folder, name, share):
    right, rows = honest(folder, name), incident.random_rows(int(share * 500), 500, 5)
    report = replace(right, verdict="undecided", families=(), flagged=rows)
    luck = judging.POINTS["evidence"] * judging.ENOUGH_EVIDENCE  # too little for intervals
    assert incident.score(report, folder).points < luck


def test_flagging_everything_scores_nothing(folder):
    report = replace(honest(folder, "door"), flagged=list(range(500)))
    with pytest.raises(IncidentError, match="drops 500 of 500"):
        incident.score(report, folder)
    kept = replace(report, kept_anyway=True, control=None, after=None)
    anyway = incident.score(kept, folder)
    assert anyway.parts["evidence"] == anyway.parts["intervals"] == 0


def test_answers_copied_from_another_case_score_nearly_nothing(folder):
    copied = replace(honest(folder, "flips"), case="door")
    assert incident.score(copied, folder).points < 10


def test_crying_wolf_costs_more_than_it_gains(folder):
    wolf = [Report(name, "poisoned", ("BadNets",), before=honest(folder, name).before)
            for name in ("calm", "flips", "door")]  # fmt: skip
    verdicts = [incident.score(report, folder).parts["verdict"] for report in wolf]
    assert verdicts == [-20, -10, 20]


def test_on_clean_data_every_flag_and_every_lost_point_counts_against(folder):
    calm = honest(folder, "calm")
    flags = replace(calm, flagged=incident.random_rows(50, 500, 0), control=calm.before)
    flags = replace(flags, after=calm.before)
    found = [incident.score(report, folder).parts["evidence"] for report in (calm, flags)]
    assert found[0] == 50 and found[1] <= 25
    weak = replace(calm, recipe={"lr": 0.001}, after=(0.4, 0.5))
    assert incident.score(weak, folder).parts["evidence"] < 10


def test_naming_many_families_is_worth_little(folder):
    report = replace(honest(folder, "door"), families=incident.FAMILIES)
    assert incident.score(report, folder).parts["verdict"] == pytest.approx(20 / 8)


def test_a_relabelling_is_a_repair(folder):
    rows = answers_of(folder).arrays["flips/poison"].tolist()
    data = incident.load_case("flips", folder).data
    labels = {row: (data.y[row].item() - 1) % 10 for row in rows}
    report = replace(honest(folder, "flips"), flagged=(), relabelled=labels, control=None)
    found = incident.score(report, folder)
    assert found.measured["finding"] == 0 and found.parts["evidence"] > 45


def test_no_victim_takes_a_step_on_a_single_image(folder):
    case = incident.load_case("calm", folder)
    victims = [case.train(case.data[torch.arange(n)], seed=1) for n in (451, 450)]
    first, second = (victim.state_dict() for victim in victims)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interval_must_be_narrow_and_right(folder):
    right = honest(folder, "calm")
    for before, points, said in (
        (right.before, 30, "agrees"),
        ((0.0, 1.0), 0, "right, but too wide to count: 1.000, at most 0.15"),
        ((0.1, 0.2), 0, "misses the judge's mean 0."),
    ):
        found = incident.score(replace(right, before=before), folder)
        assert found.parts["intervals"] == points
        assert found.notes[-1].startswith(f"interval before: {said}")
    assert "images: there are no poisons; 0.0% of the clean images flagged: 1.00" in str(found)
    with pytest.raises(IncidentError, match="trainings is 1"):
        incident.score(right, folder, trainings=1)


def test_a_rate_agrees_where_the_intervals_overlap(folder):
    case = replace(incident.load_case("calm", folder), question="rate")
    truth = {"nothing": [{"asked": 1.0}] * 12}  # Wilson from 0.757
    for before, said in (((0.53, 0.98), "agrees"), ((0.4, 0.7), "misses the judge's interval")):
        found = judging.covered(Report("calm", "clean", before=before), case, truth, [], [])
        assert found["before"].startswith(said)


def test_a_defense_of_the_list_is_a_repair(folder):
    right = honest(folder, "door")
    report = replace(
        right, flagged=(), control=None, defense="small_loss", strengths={"share": 0.1}
    )
    found = incident.score(report, folder)
    assert 0 <= found.measured["repair"] <= 1 and found.measured["finding"] == 0


GOOD = Report("door", "undecided", before=(0.5, 0.6))
BAD = {
    "names the case": replace(GOOD, case="flips"),
    "write clean, poisoned or undecided": replace(GOOD, verdict="guilty"),
    "one string as families": replace(GOOD, verdict="poisoned", families="BadNets"),
    "the families are": replace(GOOD, verdict="poisoned", families=("badnets",)),
    "names a family, but": replace(GOOD, families=("BadNets",)),
    "write a list of numbers": replace(GOOD, flagged=torch.ones(500) > 0),
    "expected whole numbers": replace(GOOD, flagged=[1.5]),
    "expected 0 to 499": replace(GOOD, flagged=[3, 500]),
    "a number twice": replace(GOOD, flagged=[3, 3]),
    "expected 0 to 9": replace(GOOD, relabelled={3: 10}),
    "no interval `before`": replace(GOOD, before=None),
    "no interval `control`": replace(GOOD, flagged=[1, 2]),
    "no interval `after`": replace(GOOD, flagged=[1, 2], control=(0.5, 0.6)),
    "expected (low, high)": replace(GOOD, before=(0.6, 0.5)),
    "shares from 0 to 1": replace(GOOD, before=(float("nan"), 0.5)),
    "choose from": replace(GOOD, defense="prayer", after=(0.5, 0.6)),
    "does not take this": replace(GOOD, defense="mixup", strengths={"beta": 1}, after=(0.5, 0.6)),
    "Its strengths: alpha": replace(GOOD, defense="mixup", strengths={"b": 1}, after=(0.5, 0.6)),
    "but drops no image": replace(GOOD, control=(0.5, 0.6)),
    "but repairs nothing": replace(GOOD, after=(0.5, 0.6)),
    "names no defense": replace(GOOD, strengths={"alpha": 1}),
    "at most 60": replace(GOOD, recipe={"epochs": 61}, after=(0.5, 0.6)),
    "cannot train": replace(GOOD, recipe={"lr": -1.0}, after=(0.5, 0.6)),
    "its fields are epochs": replace(GOOD, recipe={"speed": 1.0}, after=(0.5, 0.6)),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_report_gets_a_clear_error(folder, message):
    case = incident.load_case("door", folder)
    with pytest.raises(IncidentError) as failure:
        incident.check_report(BAD[message], case)
    assert message in str(failure.value)


def test_reports_survive_being_written(folder):
    reports = [honest(folder, name) for name in ("calm", "flips", "door")]
    reports[0] = replace(reports[0], relabelled={4: 2}, after=(0.1, 0.2), method="by hand")
    again = incident.from_json(incident.to_json(reports))
    assert [r.relabelled for r in again] == [dict(r.relabelled) for r in reports]
    assert incident.to_json(again) == incident.to_json(reports)
    for text in ("no json", '[{"verdict": "clean"}]', '[{"case": "a", "verdict": "b", "c": 1}]'):
        with pytest.raises(IncidentError, match="These are no reports"):
            incident.from_json(text)


def test_the_summary_has_a_fingerprint_of_the_reports(folder):
    reports = [honest(folder, "calm")]
    scores = [incident.score(reports[0], folder)]
    text = incident.summary(reports, scores, "A. Learner", folder)
    assert "**Total: 33.3 of 100**" in text and text.count("Fingerprint") == 1
    other = [replace(reports[0], method="another")]
    assert incident.summary(other, scores, "A. Learner", folder) != text
    with pytest.raises(IncidentError, match="two scores"):
        incident.total(scores * 2, folder)


def test_damaged_and_missing_files_are_named(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "calm.npz").write_bytes(b"something else")
    with pytest.raises(IncidentError, match="damaged or altered"):
        incident.load_case("calm", tmp_path)
    (tmp_path / "calm.npz").unlink()
    with pytest.raises(IncidentError, match="is missing"):
        incident.load_case("calm", tmp_path)
    with pytest.raises(IncidentError, match="There are: calm, flips, door"):
        incident.load_case("doors", tmp_path)
    (tmp_path / open_cases.ANSWERS).unlink()
    with pytest.raises(IncidentError, match="give their file as key"):
        incident.score(honest(folder, "flips"), tmp_path)
    with pytest.raises(IncidentError, match="make incident"):
        incident.case_names(tmp_path / "nowhere")


def test_an_instructor_can_grade_from_a_key(folder, tmp_path, capsys):
    reports = tmp_path / "ada.json"
    reports.write_text(incident.to_json([honest(folder, "door")]), encoding="utf-8")
    cases = tmp_path / "cases"
    cases.mkdir()
    for path in folder.iterdir():
        if path.name != open_cases.ANSWERS:
            (cases / path.name).write_bytes(path.read_bytes())
    grade.main([str(cases), str(folder / open_cases.ANSWERS), str(reports)])
    assert "ada: 3" in capsys.readouterr().out
    assert "# The incident: ada" in (tmp_path / "ada.md").read_text(encoding="utf-8")


SHIPPED = [*incident.case_names(), *incident.case_names(practice=True)]
ANSWERS = answers_of(incident.FOLDER)


def test_the_shipped_set_holds_every_family_and_clean_data():
    counted = [tuple(ANSWERS.cases[name]["families"]) for name in incident.case_names()]
    assert len(counted) >= 10 and {name for one in counted for name in one} == {*incident.FAMILIES}
    assert () in counted and any(len(one) > 1 for one in counted)
    assert len(incident.case_names(practice=True)) == 2


def test_the_shipped_files_are_those_of_the_manifest_and_small():
    manifest = open_cases.read_manifest()
    files = {path.name for path in incident.FOLDER.iterdir()}
    named = {entry["file"] for entry in manifest["cases"].values()}
    assert files == {*named, "manifest.json", open_cases.ANSWERS}
    assert sum(path.stat().st_size for path in incident.FOLDER.iterdir()) < 20e6
    content = (incident.FOLDER / open_cases.ANSWERS).read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest["answers"]


@pytest.fixture(scope="module")
def own():
    """The bytes of each image of the course's own file."""
    return {image.tobytes() for part in load("fashion_mnist") for image in build.grey(part.x)}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_case_loads_fast_and_shows_nothing_of_the_courses_own_file(name, own):
    begin = time.perf_counter()
    case = incident.load_case(name)
    assert time.perf_counter() - begin < 10
    assert len(case.data) == 2000
    assert own.isdisjoint(image.tobytes() for image in build.grey(case.data.x))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_case_does_harm_that_an_oracle_undoes(name):
    truth = ANSWERS.cases[name]
    for k, goal in enumerate(truth["goals"]):
        harm = {
            key: np.mean([row["harms"][k] for row in truth[key]]) for key in ("nothing", "oracle")
        }
        assert harm["nothing"] - harm["oracle"] >= build.LEAST[goal["kind"]]
    assert len(truth["nothing"]) >= build.SEEDS and len(truth["oracle"]) >= build.ORACLES


@pytest.mark.parametrize(
    ("verdict", "families"), [("clean", ()), ("undecided", ()), ("poisoned", ("BadNets",))]
)
def test_constant_answers_score_near_zero_on_the_shipped_set(verdict, families):
    scores = []
    for name in incident.case_names():
        before = (0.75, 0.9) if incident.load_case(name).question == "accuracy" else (0.6, 1.0)
        scores.append(incident.score(Report(name, verdict, families, before=before)))
    assert incident.total(scores) < 5
    if verdict == "poisoned":
        assert incident.total(scores) < 0


def test_each_set_has_every_attack_once_and_two_clean_cases_of_any_kind():
    seen = set()
    for seed in range(20):
        makers = [maker for name, maker in build.plan(seed).items() if name not in build.PRACTICE]
        assert {*build.POISONED} < {*makers} and len({*makers}) == len(makers) == 11
        seen |= {*makers} - {*build.POISONED}
    assert seen == {*build.CLEAN}


@pytest.fixture(scope="module")
def stock():
    """The course's own images, and the same as grey levels and labels."""
    train_all, _ = load("fashion_mnist")
    return train_all, (build.grey(train_all.x), train_all.y.numpy().astype(np.uint8))


@pytest.fixture
def desk(stock):
    """A desk with the course's own images."""
    train_all, arrays = stock
    queues = {k: np.flatnonzero(arrays[1] == k).tolist() for k in range(10)}
    return build.Desk(build.Pool(*arrays, queues), np.random.default_rng(3), train_all[:500])


@pytest.mark.parametrize("maker", build.CLEAN, ids=lambda maker: maker.__name__)
def test_a_clean_case_has_no_poison_and_what_its_story_tells(desk, maker):
    draft = maker(desk)
    assert draft.families == draft.goals == draft.poisons == () and len(draft.rows) == 0
    assert draft.data.y.bincount().tolist() == [build.PER_CLASS] * 10
    if draft.question == "accuracy":
        assert torch.equal(draft.asked.x, draft.trusted.x)
        return
    model = build.fresh() if draft.extractor is None else draft.extractor
    scenario = "scratch" if draft.extractor is None else "transfer"
    victim = build.train(model, draft.data, draft.recipe, scenario=scenario, seed=1)
    assert (build.predict(victim, draft.asked.x) == draft.asked.y).float().mean() > 0.5


def test_the_change_of_a_set_is_mild_and_the_same_for_all_images():
    x = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for seed in range(8):
        once = build.mild_change(x, np.random.default_rng(seed))
        again = build.mild_change(x[2:3], np.random.default_rng(seed))
        assert np.array_equal(once[2:3], again) and not np.array_equal(once, x)
        assert once.shape == x.shape and once.dtype == np.uint8


def test_a_pool_gives_no_image_twice():
    y = np.repeat(np.arange(10), 6)
    x = np.arange(60, dtype=np.uint8).repeat(784).reshape(60, 28, 28)
    pool = build.Pool(x, y, {k: np.flatnonzero(y == k).tolist() for k in range(10)})
    rng = np.random.default_rng(0)
    parts = [pool.share(number, 2).take(2, rng) for number in range(2)] + [pool.take(1, rng)]
    seen = [int((part.x[n] * 255).round().max()) for part in parts[:2] for n in range(len(part))]
    assert len(set(seen)) == len(seen) == 40
    assert parts[2].y.bincount().tolist() == [1] * 10


def test_a_list_of_domains_leads_to_the_bought_ones(desk):
    draft = build.lapsed(desk)
    domains, promised = draft.domains
    found = np.array(
        [hashlib.sha256(image.tobytes()).hexdigest() for image in build.grey(draft.data.x)]
    )
    differs = (promised != "") & (promised != found)
    bad = np.zeros(len(found), dtype=bool)
    bad[draft.rows.numpy()] = True
    assert differs[bad & (promised != "")].all() and (differs & ~bad).sum() <= build.SAVED
    assert len(set(domains[bad])) <= 6
    assert len(draft.data.y[draft.rows].unique()) == 1
