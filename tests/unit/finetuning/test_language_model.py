"""Language modelling against transformers: perplexity, steps of training, and what a run leaves."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from megatron.base.errors import UserError
from megatron.curriculum.sampler import draw_batch
from megatron.data.corpora import open_source
from megatron.finetuning.job import read_job
from megatron.finetuning.language_job import LanguageJob, is_language, language_task, read_language_job
from megatron.finetuning.language_run import finetune_language, records_of
from megatron.finetuning.summary import summarise, table_of
from megatron.finetuning.sweep import parts_of
from megatron.finetuning.text_files import count_tokens, open_whole
from megatron.schedule.data_efficiency_flags import describe
from megatron.train.setup import Prepared, join
from tests.support.made_up_text import write_tokenizer
from tests.support.streams import write_streams

LENGTH = 64
STILL = ["--hidden-dropout", "0", "--attention-dropout", "0", "--clip-grad", "0"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_streams(tmp_path_factory.mktemp("streams"))


@pytest.fixture(autouse=True)
def numbers_as_before():
    yield
    torch.set_flush_denormal(False)


def job_of(words: list[str], save: Path, *more: str) -> LanguageJob:
    return read_language_job([*words, "--save", str(save), *more], "", "")


def gpt2_of(words: list[str]) -> transformers.GPT2LMHeadModel:
    return transformers.GPT2LMHeadModel.from_pretrained(words[words.index("--load") + 1])


def ids_of(words: list[str], split: str) -> torch.Tensor:
    """The tokens of a text by the tokenizers library alone."""
    import tokenizers

    folder = Path(words[words.index("--load") + 1])
    text = Path(words[words.index(f"--{split}-file") + 1]).read_text()
    return torch.tensor(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)


def loss_of(model: transformers.GPT2LMHeadModel, ids: torch.Tensor) -> float:
    """Mean over all tokens but the first, in blocks; the last one is short."""
    total = 0.0
    for first in range(0, len(ids) - 1, LENGTH):
        block = ids[first : first + LENGTH + 1]
        logits = model(block[None, :-1]).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits, block[1:], reduction="sum"))
    return total / (len(ids) - 1)


def prepared_of(job: LanguageJob) -> Prepared:
    task = language_task(job.base.vocabulary)
    return join(task, job.config, describe(job.config)[0], task.open_data(job.config))


def test_perplexity_of_given_weights_is_that_of_transformers(words, tmp_path, capsys):
    """fp32 rounds to 6e-8 of a logit's size, here below 10, in sums of a few hundred: 1e-5 is far above."""
    records = tmp_path / "records.jsonl"
    finetune_language(job_of(words, tmp_path / "run", "--skip-train", "--metrics-file", str(records)))
    found = {one["kind"]: one for one in map(json.loads, records.read_text().splitlines())}
    model = gpt2_of(words).eval()
    for kind in ("valid", "test"):
        with torch.no_grad():
            expected = loss_of(model, ids_of(words, kind))
        assert found[kind]["lm_loss"] == pytest.approx(expected, abs=1e-5)
        assert found[kind]["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert not (tmp_path / "run" / "results.json").exists()


def test_steps_are_those_of_a_plain_loop(words, tmp_path):
    """Batches as drawn, torch's AdamW, a rate that falls linearly in tokens, transformers' own gradients."""
    job = job_of(words, tmp_path / "run", *STILL, "--num-train-epochs", "0.14", "--lr", "1e-3")
    prepared = prepared_of(job)
    finetune_language(job)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    found = [one["lm_loss"] for one in lines if one["kind"] == "train"]
    assert len(found) == prepared.plan.steps == 3 == round(0.14 * job.steps_of_epoch)
    torch.set_flush_denormal(False)
    model, ids = gpt2_of(words), ids_of(words, "train")
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    groups = [
        {"params": [one for one in model.parameters() if (one.dim() > 1) == matrix], "weight_decay": decay}
        for matrix, decay in ((True, 0.01), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    for number in range(1, 4):
        _, samples = draw_batch(prepared.sampler, prepared.plan.at(number))
        rows = torch.stack([ids[sample * LENGTH : (sample + 1) * LENGTH + 1] for sample in samples])
        logits = model(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        assert found[number - 1] == pytest.approx(loss.item(), abs=1e-5)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - number * 4 * LENGTH / (3 * 4 * LENGTH))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        expected = loss_of(model.eval(), ids_of(words, "valid"))
    assert lines[-2]["lm_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_run_learns_and_leaves_its_perplexities(words, tmp_path, capsys):
    job = job_of(words, tmp_path / "run", "--num-train-epochs", "2", "--lr", "3e-3", "--hidden-dropout", "0")
    finetune_language(job)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    steps = [one["iteration"] for one in results["validations"]]
    assert steps == [job.steps_of_epoch, 2 * job.steps_of_epoch]
    first, last = (one["perplexity"] for one in results["validations"])
    valid = results["metrics"]["valid"]
    assert (valid["best_perplexity"], valid["last_perplexity"]) == (min(first, last), last) and last < 100
    tokens, text = ids_of(words, "valid"), Path(words[words.index("--valid-file") + 1]).read_text()
    per_word = math.exp(math.log(last) * (len(tokens) - 1) / len(text.split()))
    assert valid["word_perplexity"] == pytest.approx(per_word)
    assert results["tokens"]["valid"] == len(tokens)
    finetune_language(job_of(words, tmp_path / "run", "--num-train-epochs", "2", "--lr", "3e-3", *STILL[:2]))
    assert "is there already; valid best_perplexity" in capsys.readouterr().out
    with pytest.raises(UserError, match="of another run, which differs in --seed"):
        finetune_language(
            job_of(words, tmp_path / "run", "--num-train-epochs", "2", *STILL[:2], "--seed", "5")
        )


def test_a_stopped_run_goes_on_to_the_same_records(words, tmp_path):
    more = ["--num-train-epochs", "1", "--random-ltd", "--random-ltd-min", "16", "--random-ltd-duration", "9"]
    more += ["--curriculum", "seqlen_reshape:min=16,max=64,duration=7,quantum=8"]
    finetune_language(job_of(words, tmp_path / "whole", *more))
    finetune_language(job_of(words, tmp_path / "parts", *more, "--exit-interval", "5"))
    assert not (tmp_path / "parts" / "results.json").exists()
    finetune_language(job_of(words, tmp_path / "parts", *more, "--exit-interval", "1000"))
    found = []
    for name in ("whole", "parts"):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        found.append([(one["kind"], one["iteration"], one["lm_loss"]) for one in lines])
    assert found[0] == found[1]
    rates = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").open()]
    rates = [one for one in rates if one["kind"] == "train"]
    end = job_of(words, tmp_path / "whole", *more).config.training.train_tokens
    for one in rates:  # linear in effective tokens, and 0 behind the last of them
        expected = 1e-4 * max(1 - one["consumed_tokens"] / end, 0)
        assert one["learning_rate"] == pytest.approx(expected, abs=1e-12)
    assert all(before["consumed_tokens"] < after["consumed_tokens"] for before, after in pairwise(rates))
    other = [word.replace("train.txt", "valid.txt") for word in words]
    (tmp_path / "parts" / "results.json").unlink()
    with pytest.raises(UserError, match="is of another run, which differs in data; choose another --save"):
        finetune_language(job_of(other, tmp_path / "parts", *more))


RECIPES = Path(__file__).parents[3] / "recipes" / "gpt2_350m_ptb"


@pytest.mark.parametrize(
    ("recipe", "pieces", "drops"),
    [("baseline", 0, 0), ("cl_seqres", 917, 0), ("random_ltd", 0, 393), ("composed", 131, 393)],
)
def test_recipes_of_penn_treebank_have_their_steps(words, tmp_path, recipe, pieces, drops):
    """Five passes over 262 batches of 4 x 1,024 tokens, whatever the shape of the GPT."""
    names = ["--config", str(RECIPES / f"{recipe}.yaml"), "--max-position-embeddings", "1024"]
    files = words[words.index("--train-file") :]
    text = Path(files[1])
    long = tmp_path / "train.txt"
    long.write_text(text.read_text() * (1 + 1025 * 4 // count_tokens_of(words)))
    base = tmp_path / "wide"
    config = transformers.GPT2Config(vocab_size=300, n_positions=1024, n_embd=8, n_layer=3, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(base)
    (base / "tokenizer.json").write_bytes((Path(words[3]) / "tokenizer.json").read_bytes())
    flags = ["--task", "lm", "--load", str(base), "--train-file", str(long), *files[2:]]
    job = job_of(flags, tmp_path / "run", *names)
    assert job.config.training.train_tokens == 1310 * 4 * 1024 and job.config.optimizer.lr == 1e-4
    assert job.config.training.micro_batch_size == 2 and job.config.logging.eval_interval == 262
    plan = prepared_of(job).plan
    lengths, kept = plan.sequence_length, plan.kept_length
    assert plan.steps == 1310 or pieces or drops
    assert lengths[0] == (32 if pieces else 1024) and int(np.argmax(lengths == 1024)) == max(pieces - 1, 0)
    assert kept[0] == (128 if drops and not pieces else lengths[0])
    if drops:  # kept lengths reach the whole row behind the last step of their growth
        assert int(np.argmax((kept == 1024) & (lengths == 1024))) == drops


def count_tokens_of(words: list[str]) -> int:
    return len(ids_of(words, "train"))


def test_a_typed_number_of_epochs_stands_for_the_stop_of_a_recipe(words, tmp_path):
    job = job_of(words, tmp_path / "run", "--num-train-epochs", "2", "--train-tokens", "999999")
    assert job.config.training.train_tokens == 2 * job.steps_of_epoch * 4 * LENGTH
    assert any(note.endswith("left out: --train-tokens") for note in job.notes)
    job = job_of(words, tmp_path / "run", "--train-iters", "7")
    assert (job.config.training.train_iters, job.config.training.train_tokens) == (7, None)


def test_the_cache_is_used_again_and_follows_the_text(words, tmp_path, capsys):
    one = job_of(words, tmp_path / "a")
    capsys.readouterr()
    again = job_of(words, tmp_path / "b", "--seq-length", "32")
    assert again.prefixes == one.prefixes and again.base.root == one.base.root
    assert "documents" not in capsys.readouterr().out
    for split, prefix in one.prefixes.items():
        assert count_tokens(prefix) == len(ids_of(words, split))
    changed = tmp_path / "valid.txt"
    changed.write_text("the fox")
    other = job_of([*words, "--valid-file", str(changed)], tmp_path / "c")
    assert other.prefixes["valid"] != one.prefixes["valid"]
    text = open_whole(open_source(other.prefixes["valid"], False), LENGTH)
    assert (text.windows, len(text.tokens)) == (1, LENGTH + 1) and text.told == count_tokens(text.name) - 1


def test_a_held_out_text_of_one_token_is_told_with_its_flags(words, tmp_path):
    short = tmp_path / "valid.txt"
    short.write_text("")
    job = job_of([*words, "--valid-file", str(short)], tmp_path / "run")
    with pytest.raises(UserError, match=r"has 0 tokens, .* give more text to --valid-file or --test-file"):
        open_whole(open_source(job.prefixes["valid"], False), LENGTH)


def test_a_sweep_takes_the_least_perplexity(words, tmp_path):
    job = job_of(words, tmp_path / "run", "--sweep-lr", "1e-4,2e-4", "--seeds", "1-3", "--train-iters", "1")
    found = {
        part: {"metrics": {"valid": {"best_perplexity": part.rate * 1e5 + part.seed}}, "seconds": 1.0}
        for part in parts_of(job)
    }
    told = summarise(job, found)
    assert told["best_lr"] == 1e-4 and told["rates"]["0.0001"]["valid best_perplexity"]["median"] == 12
    assert list(table_of(told).columns[2].cells) == ["12.00", "22.00"]
    assert job.with_rate(1e-4, 7).config.data_efficiency.data_efficiency_seed == 7
    assert job.shared_words == [f"--cache={tmp_path / 'cache'}"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--valid-file", "x.tsv"],
            "--valid-file x.tsv: is read by its ending: rename plain text to .txt",
        ),
        (["--valid-file", "no.txt"], "no.txt: is no file"),
        (["--load", "nowhere"], "--load nowhere: holds no checkpoint and no config.json; train with"),
        (["--seq-length", "65"], "--seq-length 65: the model of --load knows 64 positions; give at most 64"),
        (["--num-train-epochs", "0"], "--epochs 0.0 must be above 0"),
        (["--sweep-lr", "x"], "--sweep-lr x: write rates"),
        (["--eval-iters", "0"], "--eval-iters 0: leaves no perplexity to tell"),
    ],
)
def test_mistakes_get_a_line(words, tmp_path, more, told):
    with pytest.raises(UserError) as error:
        job_of(words, tmp_path / "run", *more)
    assert told in "\n".join(error.value.problems)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_another_model_is_told(words, tmp_path):
    """Which a folder of Hugging Face's cannot refuse, as it does not say which one it had."""
    named = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", write_tokenizer(tmp_path, 262)]
    (told,) = [note for note in job_of(words, tmp_path / "run", *named).notes if "and the model" in note]
    assert told == "the tokenizer has 262 tokens, and the model 300"
    assert not any("and the model" in note for note in job_of(words, tmp_path / "run").notes)


def test_a_folder_with_another_kind_of_run_is_left_as_it_is(words, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(job_of(words, tmp_path / "run").base.root, folder)
    with pytest.raises(UserError, match="other: holds a checkpoint of another kind of run; choose"):
        finetune_language(job_of(words, folder))
    assert not (folder / "finetune.json").exists()


def test_the_task_is_read_in_whatever_case(words, tmp_path):
    assert is_language(["--task", "LM"]) and is_language(["--task=lm"]) and not is_language(["--task", "RTE"])
    assert job_of(words, tmp_path / "run", "--task", "LM").flags.task == "lm"


def test_a_task_in_a_file_is_asked_for_on_the_command_line(tmp_path):
    path = tmp_path / "lm.yaml"
    path.write_text("task: lm\n")
    with pytest.raises(UserError, match="--task lm: stands in a file"):
        read_job(["--config", str(path), "--load", "x", "--save", "y"], "", "")


def test_records_of_a_step_count_once(words, tmp_path):
    job = job_of(words, tmp_path / "run", "--train-iters", "2")
    (tmp_path / "run").mkdir()
    lines = [{"kind": "valid", "iteration": 2, "lm_loss": loss} for loss in (3.0, 2.0)]
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [{"kind": "train", "iteration": 1}, *lines]))
    assert [one["lm_loss"] for one in records_of(job).values()] == [2.0]


@pytest.mark.parametrize(
    ("line", "way"),
    [
        ('{"story": "a"}', "its keys are story; call it text."),
        ('{"text": 3}', "Mend it, or leave the line out"),
    ],
)
def test_a_bad_line_is_told_with_ways_that_finetuning_has(words, tmp_path, line, way):
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=rf"train\.jsonl, line 1: .*{way}") as caught:
        job_of(words, tmp_path / "run", "--train-file", str(path))
    assert "--json-keys" not in str(caught.value) and "--on-bad-line" not in str(caught.value)
