"""The curriculum for a DataLoader: the draws of the training command, shared among ranks, from any step
on."""

import sys
import types
import warnings
from collections import defaultdict, namedtuple

import numpy as np
import pytest
import torch
import transformers
from torch.utils.data import DataLoader, Dataset

from megatron.base.errors import UserError
from megatron.curriculum.difficulty import METRICS
from megatron.curriculum.sampler import draw_batch, make_sampler
from megatron.library.batch_sampler import CurriculumBatchSampler, cut
from megatron.library.difficulties import load_difficulties, measure, save_difficulties
from megatron.schedule.data_efficiency_flags import describe
from tests.support.configurations import make_config, make_plan
from tests.support.corpora import make_analysis, make_corpus

SAMPLES, BATCH, STEPS = 300, 24, 60
VOC = "voc:difficulty=percentile,min=5,max=100,pacing=fixed_root,duration=40"
DISTINCT = "distinct_tokens:difficulty=percentile,min=50,max=100,duration=50"
LENGTHS = "seqlen_truncate:min=4,max=16,duration=30,quantum=2"
DISCRETE = "voc:difficulty=percentile,pacing=fixed_discrete,values=50/100,until=10"


class Rows(Dataset):
    """Rows of tokens, as dicts."""

    def __init__(self, rows: torch.Tensor):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[number], "number": torch.tensor(number)}


def difficulties(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {"vocab_rarity": generator.integers(50, 90, SAMPLES), "seqlen": generator.integers(1, 17, SAMPLES)}


@pytest.mark.parametrize(
    "specs",
    [[], [VOC], [DISCRETE], [VOC, DISTINCT], [VOC, DISTINCT, LENGTHS], [LENGTHS], [VOC + ",quantum=7"]],
)
@pytest.mark.parametrize("exactly", [False, True])
def test_draws_and_lengths_are_those_of_the_training_command(specs, exactly, tmp_path) -> None:
    corpus = make_corpus(SAMPLES, 16)
    folder = make_analysis(corpus, tmp_path / "a", ("vocab_rarity", "distinct_tokens"))
    flags = f"--seq-length 16 --global-batch-size {BATCH} --train-iters {STEPS} "
    flags += f"--difficulty-path {folder} " * any(spec != LENGTHS for spec in specs)
    flags += "--data-efficiency-seed 5 " + "--reference-schedules " * exactly
    config = make_config(flags + " ".join(f"--curriculum {spec}" for spec in specs))
    efficiency, _ = describe(config)
    plan = make_plan(config, efficiency)
    theirs = make_sampler([(None, corpus)], efficiency, plan)
    mine = CurriculumBatchSampler(
        SAMPLES, BATCH, STEPS, specs, load_difficulties(folder), seed=5, reference_schedules=exactly
    )
    for step, batch in enumerate(mine, 1):
        assert batch == draw_batch(theirs, plan.at(step))[1].tolist()
        assert (mine.length_at(step) or 16) == plan.sequence_length[step - 1]
    assert step == STEPS == len(mine)


def test_ranks_and_micro_batches_partition_the_batch_as_the_command_does() -> None:
    whole = CurriculumBatchSampler(SAMPLES, BATCH, STEPS, [VOC], difficulties())
    parts = [
        CurriculumBatchSampler(
            SAMPLES, BATCH, STEPS, [VOC], difficulties(), rank=rank, ranks=3, micro_batch_size=4
        )
        for rank in range(3)
    ]
    assert [len(part) for part in parts] == [2 * STEPS] * 3
    taken = [iter(part) for part in parts]
    for batch in whole:
        assert batch == [sample for _ in range(2) for part in taken for sample in next(part)]


def test_it_goes_on_at_any_step() -> None:
    sampler = CurriculumBatchSampler(SAMPLES, BATCH, STEPS, [VOC, LENGTHS], difficulties())
    batches = list(sampler)
    with pytest.warns(UserWarning, match="begins at step 1 again and gives the same batches"):
        assert batches == list(sampler), "a second loop is the first again"
    for step in (1, 2, 37, STEPS, STEPS + 1):
        again = CurriculumBatchSampler(SAMPLES, BATCH, STEPS, [VOC, LENGTHS], difficulties())
        assert list(again.start_at(step)) == batches[step - 1 :]
        assert len(again) == STEPS + 1 - step


def test_only_the_admitted_are_drawn_and_each_equally_often() -> None:
    values = difficulties()
    sampler = CurriculumBatchSampler(SAMPLES, 30, STEPS, [DISCRETE], values)
    batches = list(sampler)
    easiest = set(np.argsort(values["vocab_rarity"], kind="stable")[: SAMPLES // 2].tolist())
    assert set(np.concatenate(batches[:10]).tolist()) == easiest, (
        "10 batches of 30 go through 150 samples twice"
    )
    assert np.bincount(np.concatenate(batches[:10]), minlength=SAMPLES).max() == 2
    later = np.bincount(np.concatenate(batches[10:]), minlength=SAMPLES)
    assert later.sum() == 1500 and later.min() >= 4 and later.max() <= 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_with_workers_gives_the_same_and_rows_are_cut(workers: int) -> None:
    rows = torch.arange(SAMPLES)[:, None] + torch.arange(16)
    sampler = CurriculumBatchSampler(SAMPLES, BATCH, 6, [VOC, LENGTHS], difficulties()).start_at(3)
    loader = DataLoader(Rows(rows), batch_sampler=sampler, num_workers=workers)
    seen = 0
    for step, batch in enumerate(loader, sampler.first_step):
        batch, length = cut(batch, sampler.length_at(step)), sampler.length_at(step)
        assert batch["number"].tolist() == sampler.batch_at(step).tolist()
        assert torch.equal(batch["input_ids"], rows[batch["number"], :length])
        seen += 1
    assert seen == 4 == len(loader)


def test_what_is_no_row_is_not_cut() -> None:
    x = torch.zeros(2, 9)
    assert cut(x, None) is x
    got = cut({"a": (x, torch.zeros(2)), "b": [x[..., None]], "c": "name"}, 4)
    assert got["a"][0].shape == (2, 4) and got["a"][1].shape == (2,) and got["b"][0].shape == (2, 4, 1)
    assert got["c"] == "name"


def test_difficulties_are_those_of_the_analysis_and_are_kept(tmp_path) -> None:
    """Windows of S + 1 tokens, as the analysis reads them."""
    corpus = make_corpus(SAMPLES, 16)
    folder = make_analysis(corpus, tmp_path / "a", ("vocab_rarity", "distinct_tokens"))
    rows = [torch.from_numpy(corpus.tokens[16 * i : 16 * i + 17].astype(np.int64)) for i in range(SAMPLES)]
    mine = measure(rows, 50, ("vocab_rarity", "distinct_tokens"), quiet=True)
    theirs = load_difficulties(folder)
    assert list(theirs) == ["distinct_tokens", "vocab_rarity"]
    save_difficulties(mine, tmp_path / "mine")
    for name, values in load_difficulties(tmp_path / "mine").items():
        assert np.array_equal(values, theirs[name])


def test_difficulties_of_rows_with_padding_by_hand() -> None:
    ids = [[1, 2, 3, 0, 0], [1, 1, 0, 0, 0], [1, 2, 2, 2, 4]]
    rows = [{"input_ids": row, "attention_mask": [int(token > 0) for token in row]} for row in ids]
    values = measure(rows, 6, METRICS, quiet=True)
    assert values["seqlen"].tolist() == [3, 2, 5]
    assert values["distinct_tokens"].tolist() == [3, 1, 3]
    counts = {1: 4, 2: 4, 3: 1, 4: 1, "unseen": 2}
    cost = {token: -np.log(count / sum(counts.values())) for token, count in counts.items()}
    rarity = [int(sum(cost[token] for token in row if token)) for row in ids]
    assert values["vocab_rarity"].tolist() == rarity
    assert np.argsort(values["seqlen_vocab_rarity"]).tolist() == [1, 0, 2]


def refused(call) -> list[str]:
    with pytest.raises(UserError) as found:
        call()
    assert all("\n" not in problem for problem in found.value.problems)
    return list(found.value.problems)


def test_mistakes_are_told_in_one_line(tmp_path) -> None:
    def make(*specs, values=None, **others):
        return lambda: CurriculumBatchSampler(SAMPLES, BATCH, STEPS, specs, values, **others)

    assert "hold nothing" in refused(make(VOC))[0]
    assert "for 300 samples" in refused(make(VOC, values={"vocab_rarity": np.zeros(3, int)}))[0]
    assert "float64" in refused(make(VOC, values={"vocab_rarity": np.zeros(SAMPLES)}))[0]
    assert "no multiple of 5 ranks" in refused(make(ranks=5))[0]
    assert "rank 3 is none" in refused(make(rank=3, ranks=3))[0]
    assert "one row a sample" in refused(make("seqlen_reshape:min=4,max=16,duration=9"))[0]
    assert "unknown" in refused(make("voc:minimum=4"))[0]
    values = {"vocab_rarity": np.full(SAMPLES, 9)}
    assert (
        "the dataset: the curriculum admits no sample"
        in refused(make("voc:min=1,max=5,duration=3", values=values))[0]
    )
    assert "none of 1 to 60" in refused(lambda: make()().start_at(0))[0]
    assert "holds no difficulties" in refused(lambda: load_difficulties(tmp_path))[0]
    (tmp_path / "seqlen.npy").write_bytes(b"nothing")
    assert "damaged" in refused(lambda: load_difficulties(tmp_path))[0]
    assert "sample 1 holds the token id 7" in refused(lambda: measure([[1], [2, 7]], 5, quiet=True))[0]


def test_what_is_cut_stays_what_it_is() -> None:
    """Named tuples take their values one by one; the batches of transformers go to a device by a method."""
    Pair = namedtuple("Pair", "ids number")
    pair = cut(Pair(torch.zeros(2, 8), torch.zeros(2)), 3)
    assert type(pair) is Pair and pair.ids.shape == (2, 3) and pair.number.shape == (2,)
    batch = cut(transformers.BatchEncoding({"input_ids": torch.zeros(2, 8)}), 3)
    assert batch.to("cpu")["input_ids"].shape == (2, 3)
    assert cut(defaultdict(list, {"input_ids": torch.zeros(2, 8)}), 3)["input_ids"].shape == (2, 3)


def test_loops_that_go_on_and_looks_at_a_batch_are_no_second_run() -> None:
    sampler = CurriculumBatchSampler(SAMPLES, BATCH, STEPS, [VOC], difficulties())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(sampler)) == next(iter(sampler))
        assert list(sampler)[30:] == list(sampler.start_at(31))


@pytest.mark.parametrize("step", [0, -1, STEPS + 1])
def test_a_step_that_is_none_has_no_length_and_no_batch(step: int) -> None:
    """enumerate() begins with 0, whose length would be that of the last step."""
    sampler = CurriculumBatchSampler(SAMPLES, BATCH, STEPS, [LENGTHS])
    assert f"step {step} is none of 1 to 60" in refused(lambda: sampler.length_at(step))[0]
    assert f"step {step} is none of 1 to 60" in refused(lambda: sampler.batch_at(step))[0]


@pytest.mark.parametrize("kind", [np.uint8, np.uint32, np.uint64, np.int16])
def test_difficulties_of_any_whole_numbers_are_the_same(kind) -> None:
    values = difficulties()
    mine = {name: column.astype(kind) for name, column in values.items()}
    for specs in ([VOC], [VOC, "seqlen:min=9,max=17,duration=9"]):
        same = (list(CurriculumBatchSampler(SAMPLES, BATCH, 9, specs, one)) for one in (values, mine))
        assert next(same) == next(same)


@pytest.mark.parametrize(
    ("dataset", "others", "words"),
    [
        ([{"text": "a", "id": 3}], {}, "a sample has text, id, and no input_ids; say by tokens_of"),
        (["the text"], {}, "the tokens of sample 0 are <U8 (1,), no whole numbers"),
        ([[1], (np.ones(4), 3)], {}, "the tokens of sample 1 are float64 (4,), no whole numbers"),
        ([[1], [2]], {"tokens_of": lambda row: np.array([row])}, "the tokens of sample 0 are int64 (1, 1)"),
        ([[1], [2]], {"metrics": ("own_metrics:mean",)}, "the metric mean gave float64 (2,) for 2 samples"),
    ],
)
def test_what_is_not_measured_is_told(dataset, others, words, monkeypatch) -> None:
    """Numbers with a fraction would be cut, and all be one difficulty."""
    own = types.SimpleNamespace(mean=lambda tokens, context: context.lengths / 7)
    monkeypatch.setitem(sys.modules, "own_metrics", own)
    assert words in refused(lambda: measure(dataset, 9, quiet=True, **others))[0]


def test_one_metric_is_a_text_and_an_empty_sample_has_no_token() -> None:
    assert list(measure([[1, 2], [], [3]], 9, "seqlen", quiet=True)) == ["seqlen"]
    assert measure([[1, 2], [], [3]], 9, "seqlen", quiet=True)["seqlen"].tolist() == [2, 0, 1]


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(UserError, match="a dataset of 0 samples; give one that holds some"):
        CurriculumBatchSampler(0, 4, 10)


def test_a_batch_without_rows_is_not_passed_over() -> None:
    """The usual collate function makes of lists a list of columns, which no length would cut."""
    columns = next(iter(DataLoader([{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6]}], batch_size=2)))
    with pytest.raises(UserError, match="with_format"):
        cut(columns, 2)
    assert cut(columns, None) is columns
    assert cut({"input_ids": np.zeros((2, 3)), "labels": [1, 2]}, 2)["input_ids"].shape == (2, 2)


def test_streams_and_data_sets_in_the_place_of_numbers_are_told() -> None:
    with pytest.raises(UserError, match="a generator is a stream without a length"):
        measure((row for row in [[1, 2]]), 9)
    with pytest.raises(UserError, match=r"samples is a list; give their number, len\(dataset\)"):
        CurriculumBatchSampler([[1, 2]], 1, 1)  # type: ignore[arg-type]
