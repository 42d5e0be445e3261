"""Which runs a checkpoint may be taken up by: what flags mean counts, not how they are written."""

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron.base.errors import UserError
from megatron.checkpoint import meaning
from megatron.checkpoint.compare import resume_problems
from megatron.checkpoint.manifest import Manifest, read_manifest, sealed, write_manifest
from megatron.checkpoint.meaning import custom_rises
from megatron.checkpoint.save import clear_unfinished
from megatron.data.vocabulary import Vocabulary
from megatron.schedule.data_efficiency_flags import describe
from megatron.schedule.plan import Plan
from megatron.tasks.gpt import GPT_TASK
from megatron.tasks.task import Data
from megatron.train.resume import describe_run
from megatron.train.setup import join
from tests.support.configurations import make_config
from tests.support.corpora import make_analysis, make_corpus

FLAGS = (
    "--num-layers 4 --hidden-size 16 --seq-length 32 --global-batch-size 4 --train-iters 20 "
    "--lr-warmup-iters 2 "
)
CURRICULUM = (
    "--curriculum vocab_rarity:difficulty=percentile,min=20,max=100,pacing=fixed_root,root=2,duration=10 "
)
LENGTH = "--curriculum seqlen_truncate:min=8,max=32,duration=10,quantum=4 "
DROPPING = "--random-ltd --random-ltd-min 8 --random-ltd-duration 10 "
VOCABULARY = Vocabulary(50, 0, None)
EFFICIENT = FLAGS + CURRICULUM + LENGTH + DROPPING


def described(flags: str, analysis: Path, vocabulary: Vocabulary = VOCABULARY) -> tuple[Manifest, Plan]:
    """What a checkpoint of the run says of it, and its plan. `analysis`: its folder, made where it is
    missing."""
    corpus = make_corpus(64, 32)
    if not analysis.exists():
        make_analysis(corpus, analysis)
    config = make_config(
        f"{flags} --difficulty-path {analysis}" if "vocab_rarity" in flags or "json" in flags else flags
    )
    efficiency, _ = describe(config)
    data = Data({"train": [(None, corpus)], "valid": [], "test": []}, vocabulary)
    prepared = join(GPT_TASK, config, efficiency, data)
    return describe_run(prepared), prepared.plan


def checkpoint_of(mine: Manifest, plan: Plan, step: int = 5) -> Manifest:
    """What the checkpoint of a step says."""
    return dataclasses.replace(mine, iteration=step, totals=plan.totals(step), plan=plan.digest(step))


def problems(old: str, new: str, folder: Path, **more: Any) -> list[str]:
    saved = checkpoint_of(*described(old, folder / "analysis"))
    return resume_problems(saved, *described(new, folder / "analysis", **more), False)


def write_json(path: Path, **schedule: int) -> str:
    """The curriculum and random-LTD of EFFICIENT as a DeepSpeed configuration."""
    rarity = {
        "difficulty_type": "percentile",
        "min_difficulty": 20,
        "max_difficulty": 100,
        "schedule_type": "fixed_root",
        "schedule_config": {"total_curriculum_step": 10, "difficulty_step": 1, "root_degree": 2},
    }
    length = {
        "min_difficulty": 8,
        "max_difficulty": 32,
        "schedule_type": "fixed_linear",
        "schedule_config": {"total_curriculum_step": 10, "difficulty_step": 4} | schedule,
    }
    ltd = {
        "enabled": True,
        "random_ltd_layer_id": [1, 2],
        "random_ltd_schedule": {
            "min_value": 8,
            "max_value": 32,
            "schedule_type": "fixed_linear",
            "schedule_config": {"require_steps": 10, "seq_per_step": 16},
        },
    }
    learning = {"enabled": True, "curriculum_metrics": {"seqlen_truncate": length, "vocab_rarity": rarity}}
    section = {
        "enabled": True,
        "seed": 1234,
        "data_sampling": {"enabled": True, "curriculum_learning": learning},
        "data_routing": {"enabled": True, "random_ltd": ltd},
    }
    path.write_text(json.dumps({"data_efficiency": section}))
    return f"{FLAGS} --data-efficiency-config {path} "


def test_the_same_run_in_other_words_goes_on(tmp_path: Path) -> None:
    other_order = (
        FLAGS
        + DROPPING
        + LENGTH
        + CURRICULUM.replace("min=20,max=100", "max=100,min=20")
        + "--random-ltd-layers 1,2 --split 1,0,0"
    )
    assert not problems(EFFICIENT, other_order, tmp_path)
    assert not problems(EFFICIENT, write_json(tmp_path / "efficiency.json"), tmp_path)


DISCRETE = "--curriculum vocab_rarity:pacing=fixed_discrete,difficulty=percentile,values=20/100,until=4 "
WARM = FLAGS.replace("--lr-warmup-iters 2 ", "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (FLAGS + LENGTH, FLAGS + LENGTH.replace("quantum", "pacing=fixed_root,root=1,quantum")),
        (FLAGS + DISCRETE, FLAGS + DISCRETE.replace("values", "max=100,min=20,values")),
        (FLAGS + DISCRETE, FLAGS + DISCRETE.replace("20/100,until=4", "20/20/100,until=2/4")),
        (FLAGS + "--use-rotary-position-embeddings", FLAGS + "--position-embedding-type rope"),
        (FLAGS, FLAGS + "--rotary-base 5000 --rotary-percent 0.5 --add-qkv-bias"),
        (FLAGS, FLAGS + "--group-query-attention --num-query-groups 4"),
        (FLAGS, FLAGS + "--rampup-batch-size 4 2 100"),
        (FLAGS, FLAGS + "--rampup-batch-size 2 2 0"),
        (FLAGS, WARM + "--lr-warmup-fraction 0.1"),
        (FLAGS, WARM + "--lr-warmup-samples 8"),
        (FLAGS, WARM + "--lr-warmup-tokens 256"),
        (FLAGS, FLAGS.replace("--train-iters 20", "--train-samples 80")),
        (FLAGS, FLAGS.replace("--train-iters 20", "--train-tokens 2560")),
        (FLAGS, FLAGS + "--lr-decay-samples 80"),
        (FLAGS + "--lr-decay-style constant", FLAGS + "--lr-decay-style constant --lr-decay-iters 30"),
        (FLAGS + "--lr-decay-iters 20", FLAGS + "--lr-decay-iters 20 --train-iters 30"),
    ],
)
def test_flags_that_mean_the_same_go_on(tmp_path: Path, old: str, new: str) -> None:
    assert problems(old, new, tmp_path) == []
    assert problems(new, old, tmp_path) == [] or "--train-iters 30" in new


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (FLAGS, FLAGS + "--position-embedding-type rope", "--position-embedding-type was"),
        (
            FLAGS + "--position-embedding-type rope",
            FLAGS + "--position-embedding-type rope --rotary-base 5000",
            "--rotary-base was 10000.0 and is 5000.0",
        ),
        (FLAGS, FLAGS + "--rampup-batch-size 2 2 100", "--rampup-batch-size was none and is 2 and 2 and 100"),
        (FLAGS, WARM + "--lr-warmup-samples 9", "the warm-up was"),
        (FLAGS, FLAGS + "--weight-decay 0.5", "--weight-decay was 0.01 and is 0.5"),
        (FLAGS, FLAGS + "--train-iters 30", "the decay horizon was iters and 20 and is iters and 30"),
    ],
)
def test_flags_that_mean_something_else_do_not(tmp_path: Path, old: str, new: str, said: str) -> None:
    found = problems(old, new, tmp_path)
    assert any(said in line for line in found), found


def test_another_seed_is_told_once(tmp_path: Path) -> None:
    (line,) = problems(FLAGS, FLAGS + "--seed 7", tmp_path)
    assert "--seed was 1234 and is 7" in line
    assert len(problems(FLAGS, FLAGS + "--seed 7 --data-efficiency-seed 8", tmp_path)) == 2


def blended(data: list[dict[str, Any]], weights: list[float | None]) -> list[dict[str, Any]]:
    """These corpora by other weights."""
    return [corpus | {"weight": weight} for corpus, weight in zip(data, weights)]


CORPORA = [
    {"fingerprint": name, "sequences": [0, 64], "seq_length": 32, "samples": samples, "weight": None}
    for name, samples in (("one", 64), ("two", 128))
]


def with_data(mine: Manifest, data: list[dict[str, Any]]) -> Manifest:
    return dataclasses.replace(mine, data=data)


@pytest.mark.parametrize("weights", [[1, 2], [10, 20], [0.5, 1.0], [None, None]])
def test_weights_on_another_scale_are_the_same(tmp_path: Path, weights: list[float | None]) -> None:
    mine, plan = described(FLAGS, tmp_path / "analysis")
    mine = with_data(mine, blended(CORPORA, [1, 2]))
    saved = with_data(checkpoint_of(mine, plan), blended(CORPORA, weights))
    assert resume_problems(saved, mine, plan, False) == []


@pytest.mark.parametrize(
    ("step", "weights", "same"),
    [(5, [0.333, 0.667], True), (20_000, [0.333, 0.667], False), (1, [1, 3], False)],
)
def test_rounded_weights_are_the_same_where_they_drew_the_same(
    tmp_path: Path, step: int, weights: list[float | None], same: bool
) -> None:
    """Twenty draws by 0.333 and 0.667 fell as by 1 and 2; eighty thousand did not."""
    mine, plan = described(FLAGS.replace("--train-iters 20", "--train-iters 20000"), tmp_path / "analysis")
    mine = with_data(mine, blended(CORPORA, [1, 2]))
    saved = with_data(checkpoint_of(mine, plan, step), blended(CORPORA, weights))
    found = resume_problems(saved, mine, plan, False)
    assert not found if same else "and is by 0.3333 0.6667" in found[0]


def test_another_split_is_named(tmp_path: Path) -> None:
    """And data of other files is not laid at its door."""
    mine, plan = described(FLAGS + "--split 9,1 ", tmp_path / "analysis")
    saved = with_data(checkpoint_of(*described(FLAGS + "--split 8,2 ", tmp_path / "analysis")), CORPORA)
    cut = [corpus | {"sequences": [0, 3]} for corpus in CORPORA]
    (line,) = resume_problems(saved, with_data(mine, cut), plan, False)
    assert "trained on other data, as --split was 8,2 and is 9,1: corpus 1 (sequences was" in line
    (line,) = resume_problems(
        saved, with_data(mine, [corpus | {"fingerprint": "x"} for corpus in cut]), plan, False
    )
    assert "trained on other data: corpus 1 (fingerprint was" in line


def test_other_data_is_told_in_one_line_however_many_corpora(tmp_path: Path) -> None:
    mine, plan = described(FLAGS, tmp_path / "analysis")
    many = [CORPORA[0] | {"fingerprint": str(number), "weight": 1.0} for number in range(3000)]
    saved = with_data(checkpoint_of(mine, plan), many)

    def told(data: list[dict[str, Any]]) -> str:
        (line,) = resume_problems(saved, with_data(mine, data), plan, False)
        assert len(line) < 600
        return line

    line = told([corpus | {"samples": 63} if number % 2 else corpus for number, corpus in enumerate(many)])
    assert "corpus 2 (samples was 64 and is 63), corpus 4 (" in line
    assert "and 1497 more, of 3000 corpora" in line
    assert "of 3000 corpora against 2999" in told(many[1:])
    assert "the same data in another order" in told(many[::-1])


def test_a_changed_order_file_is_noticed_and_older_checkpoints_say_nothing_of_it(tmp_path: Path) -> None:
    mine, plan = described(EFFICIENT, tmp_path / "analysis")
    saved = checkpoint_of(mine, plan)
    changed = [saved.analyses[0] | {"vocab_rarity.order.npy": "another"}]
    (line,) = resume_problems(dataclasses.replace(saved, analyses=changed), mine, plan, False)
    assert "another analysis: vocab_rarity.order.npy of corpus 1" in line
    older = [{"vocab_rarity": saved.analyses[0]["vocab_rarity"]}]
    assert resume_problems(dataclasses.replace(saved, analyses=older), mine, plan, False) == []


@pytest.mark.parametrize(("name", "high"), [("vocab_rarity", 100), ("seqlen_truncate", 32)])
def test_a_changed_pacing_function_is_told_with_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, high: int
) -> None:
    module = types.ModuleType("my_pacing")
    monkeypatch.setitem(sys.modules, "my_pacing", module)
    kind = "percentile" if high == 100 else "value"
    flags = f"{FLAGS} --curriculum {name}:difficulty={kind},max={high},pacing=custom,function=my_pacing:grow"
    monkeypatch.setattr(module, "grow", lambda step: 20 + step, raising=False)
    mine, plan = described(flags, tmp_path / "analysis")
    rises = custom_rises(describe(make_config(flags))[0], plan, 5)
    saved = dataclasses.replace(checkpoint_of(mine, plan), rises=rises)
    assert rises == {name: [[step, 20 + step] for step in range(1, 6)]}
    assert resume_problems(saved, mine, plan, False) == []
    monkeypatch.setattr(module, "grow", lambda step: 20 + step + (step > 3))
    (line,) = resume_problems(saved, *described(flags, tmp_path / "analysis"), False)
    assert f"the pacing of its curriculum {name} gave 24 and gives 25 at step 4" in line
    monkeypatch.setattr(module, "grow", lambda step: 20 + step + (step > 5))
    assert resume_problems(saved, *described(flags, tmp_path / "analysis"), False) == []


def test_of_several_changed_pacings_the_first_change_is_told() -> None:
    caps = {"late": np.array([5, 5, 5, 6]), "early": np.array([5, 7, 6, 6])}
    plan: Any = types.SimpleNamespace(caps=caps, sequence_length=np.array([8, 8, 8, 8]))
    rises = {"late": [[1, 5]], "early": [[1, 5], [3, 6]], "seqlen_truncate": [[1, 8]]}
    found = meaning.first_change(rises, plan, 4)
    line = "the pacing of its curriculum early gave 5 and gives 7 at step 2: its pacing function has changed"
    assert found == line
    assert str(meaning.first_change(rises | {"early": [[1, 5], [2, 7], [3, 6]]}, plan, 4)).startswith(
        "the pacing of its curriculum late gave 5 and gives 6 at step 4"
    )
    assert meaning.first_change({"late": [[1, 5]]}, plan, 3) is None


def test_of_many_rises_the_first_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of the steps behind the last rise that was written down."""
    monkeypatch.setattr(meaning, "MOST_RISES", 3)
    module = types.ModuleType("my_pacing")
    monkeypatch.setitem(sys.modules, "my_pacing", module)
    flags = f"{FLAGS} --curriculum seqlen_truncate:max=32,pacing=custom,function=my_pacing:grow"
    monkeypatch.setattr(module, "grow", lambda step: 2 * step + 2, raising=False)
    _, plan = described(flags, tmp_path / "analysis")
    rises = custom_rises(describe(make_config(flags))[0], plan, 9)
    assert rises == {"seqlen_truncate": [[1, 4], [2, 6], [3, 8]]}
    for changed, told in ((3, "gave 8 and gives 9 at step 3"), (4, None)):
        monkeypatch.setattr(module, "grow", lambda step, changed=changed: 2 * step + 2 + (step >= changed))
        found = meaning.first_change(rises, described(flags, tmp_path / "analysis")[1], 9)
        assert found is None if told is None else told in str(found)
    assert custom_rises(describe(make_config(FLAGS + LENGTH))[0], plan, 9) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 0}, "of the older format 0, and this version reads format 2"),
        ({"format": 7}, "of the newer format 7"),
        ({"format": "one"}, "is not the index of a checkpoint of format 2"),
        ({"plan": None}, "is not the index of a checkpoint of format 2"),
    ],
)
def test_a_checkpoint_of_another_format_is_told_by_its_number(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    mine, _ = described(FLAGS, tmp_path / "analysis")
    write_manifest(tmp_path, mine)
    content = json.loads((tmp_path / "index.json").read_text())
    assert read_manifest(tmp_path) == mine
    older = {name: value for name, value in content.items() if name not in ("rises", "checksum")}
    (tmp_path / "index.json").write_text(sealed(older))
    assert read_manifest(tmp_path) == mine, "an index from before there were rises"
    (tmp_path / "index.json").write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=words):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (CURRICULUM.replace("min=20", "min=25"), "its curriculum of difficulties was"),
        ("--random-ltd-duration 12", "its random-LTD was"),
        ("--data-efficiency-seed 7", "its seed of the order of samples was 1234 and is 7"),
        ("--hidden-dropout 0.2", "--hidden-dropout was 0.1 and is 0.2"),
        ("--lr-warmup-iters 3", "the warm-up was"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: str, said: str) -> None:
    new = EFFICIENT.replace(CURRICULUM, change) if "vocab_rarity" in change else EFFICIENT + change
    found = problems(EFFICIENT, new, tmp_path)
    assert any(said in line for line in found), found


def test_a_changed_json_is_refused(tmp_path: Path) -> None:
    old = write_json(tmp_path / "efficiency.json")
    saved = checkpoint_of(*described(old, tmp_path / "analysis"))
    mine, plan = described(
        write_json(tmp_path / "efficiency.json", total_curriculum_step=12), tmp_path / "analysis"
    )
    assert any("its curriculum of lengths was" in line for line in resume_problems(saved, mine, plan, False))


def test_other_difficulties_of_the_same_data_are_refused(tmp_path: Path) -> None:
    mine, plan = described(EFFICIENT, tmp_path / "analysis")
    saved = dataclasses.replace(checkpoint_of(mine, plan), analyses=[{"vocab_rarity": "another"}])
    found = resume_problems(saved, mine, plan, False)
    assert any("another analysis" in line for line in found)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    found = problems(FLAGS, FLAGS, tmp_path, vocabulary=Vocabulary(60, 1, None))
    assert [line.split(": ")[1].split(";")[0] for line in found] == [
        "its end-of-document token was 0 and is 1",
        "its vocabulary was 50 and is 60",
    ]


@pytest.mark.parametrize("step", [5, 20])
def test_a_changed_pacing_function_is_refused(tmp_path: Path, step: int) -> None:
    """Also behind the last step of the plan, from which a run is evaluated."""
    mine, plan = described(EFFICIENT, tmp_path / "analysis")
    saved = dataclasses.replace(checkpoint_of(mine, plan, step), plan=1)
    assert "it came of steps that differ" in resume_problems(saved, mine, plan, False)[0]


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    mine, plan = described(EFFICIENT, tmp_path / "analysis")
    saved = dataclasses.replace(checkpoint_of(mine, plan), task="bert")
    assert "it is of the task bert, and this is gpt" in resume_problems(saved, mine, plan, False)[0]


def test_what_a_killed_save_left_is_cleared(tmp_path: Path) -> None:
    for name in (
        ".iter_0000008.aaaa.partial",
        ".iter_0000004.bbbb.old",
        ".iter_0000006.cccc.old",
        "iter_0000006",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(name)
    clear_unfinished(tmp_path)
    assert {path.name: (path / "index.json").read_text() for path in tmp_path.iterdir()} == {
        "iter_0000004": ".iter_0000004.bbbb.old",
        "iter_0000006": "iter_0000006",
    }
