"""EleutherAI's lm-evaluation-harness on our models, against its own class for Hugging Face's GPT-2 with the
same weights. The package is imported inside of the tests: it takes seconds, and every worker collects this
file."""

import copy
import dataclasses
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron.base.errors import UserError
from megatron.config.config import TokenizerOptions
from megatron.data.tokenizer import build_tokenizer
from megatron.evaluation.paper_tasks import paper_mean
from megatron.evaluation.score import Scorer
from megatron.model.gpt import GPT
from megatron.parallel.initialization import initialize
from megatron.parallel.mesh import Mesh
from megatron.tasks.architecture import gpt_architecture
from tests.support.checkpoints import kept_with, tokenizer_in, trained
from tests.support.configurations import make_config
from tests.support.made_up_text import TEXTS, write_tokenizer
from tests.support.ranks import run_ranks

CONTEXT, VOCAB = 48, 400
SHAPE = f"--num-layers 2 --hidden-size 32 --num-attention-heads 4 --seq-length {CONTEXT} --train-iters 1 "
PAIRS = [
    ("The quick brown", " fox"),
    ("The quick brown ", "fox jumps"),  # the space moves
    ("The quick\n\n", "brown fox"),
    ("", "The quick brown fox"),
    ("", "<|endoftext|>The"),
    ("naïve café, ", "¡señor!"),
    ("def add(a, b):", "\n    return a + b"),
    ("word " * 90, "jumps over"),  # longer than the model sees
    ("The", "   spaces"),
    (" leading", " leading"),
]
WHOLE = ["x", "The quick brown fox jumps over the lazy dog's back", *[text for text in TEXTS if text]]
SETTINGS = [
    {"until": ["\n"], "max_gen_toks": 12},
    {"until": ["o", "the"], "max_gen_toks": 20, "do_sample": False, "temperature": 0.0},
    {"until": "e", "max_gen_toks": 30},
]
DOCUMENTS = [
    {
        "question": f"{a} and {b}",
        "good": f"{a + b}",
        "bad": f"{a * b + 7} or so",
        "text": f"{TEXTS[a % 3]}{b}",
    }
    for a in range(1, 5)
    for b in range(1, 4)
]
COMMON = """
dataset_path: json
dataset_kwargs:
  data_files:
    train: {folder}/train.jsonl
    test: {folder}/test.jsonl
test_split: test
fewshot_split: train
"""
LOCAL = {
    "local_choice": """
output_type: multiple_choice
doc_to_text: "What are {{question}}? Answer:"
doc_to_target: 0
doc_to_choice: ["{{good}}", "{{bad}}", "none"]
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "local_word": """
output_type: loglikelihood
doc_to_text: "What are {{question}}?"
doc_to_target: " {{good}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "local_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "local_answer": """
output_type: generate_until
doc_to_text: "What are {{question}}? Answer:"
doc_to_target: " {{good}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 8}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The harness without network, a tiny model, the same one of Hugging Face's, and a folder of tasks."""
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-eval is not installed")
    folder = tmp_path_factory.mktemp("harness")
    before = dict(os.environ)
    os.environ |= {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    from tests.support.huggingface import as_gpt2

    path = write_tokenizer(folder, VOCAB)
    options = TokenizerOptions(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=path)
    tokenizer = build_tokenizer(options)
    config = make_config(SHAPE + "--init-method-std 0.3")
    model = GPT(gpt_architecture(config, tokenizer.vocab_size)).double().eval()
    initialize(model, 3)
    end = "<|endoftext|>"
    theirs = PreTrainedTokenizerFast(tokenizer_file=path, eos_token=end, bos_token=end, pad_token=end)
    hf = HFLM(
        pretrained=as_gpt2(model, end=tokenizer.eod),
        tokenizer=theirs,
        batch_size=3,
        max_length=CONTEXT,
        device="cpu",
    )
    for name, rows in (("train", DOCUMENTS[:4]), ("test", DOCUMENTS[4:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks").mkdir()
    for name, text in LOCAL.items():
        (folder / "tasks" / f"{name}.yaml").write_text(f"task: {name}{COMMON.format(folder=folder)}{text}")
    yield SimpleNamespace(
        scorer=Scorer(model, tokenizer, CONTEXT, None, 3, Mesh()), hf=hf, tasks=str(folder / "tasks")
    )
    os.environ.clear()
    os.environ |= before


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=number) for number, one in enumerate(arguments)
    ]


def ask(lm: Any) -> tuple[Any, Any, Any]:
    """Answers to all kinds of requests."""
    generate = [(context, dict(one)) for one in SETTINGS for context, _ in PAIRS if context]
    return (
        lm.loglikelihood(requests("loglikelihood", PAIRS)),
        lm.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,) for text in WHOLE])),
        lm.generate_until(requests("generate_until", generate)),
    )


def test_answers_are_those_of_the_harness_own_model(made: SimpleNamespace) -> None:
    """Log-likelihoods in double precision, greedy flags, and texts; two ranks give the bits of one."""
    from megatron.evaluation.harness import HarnessModel

    ours, theirs = ask(HarnessModel(made.scorer)), ask(made.hf)
    for mine, other in zip(ours[0], theirs[0], strict=True):
        assert mine == (pytest.approx(other[0], rel=1e-12), other[1])
    assert ours[1] == pytest.approx(theirs[1], rel=1e-12)
    assert ours[2] == theirs[2] and len(set(ours[2])) > 10
    assert len(made.scorer.tokenizer.encode_batch([PAIRS[7][0]])[0]) > CONTEXT
    assert run_ranks(2, lambda mesh: ask(HarnessModel(made.scorer._replace(mesh=mesh)))) == [ours, ours]
    batches = [ask(HarnessModel(made.scorer._replace(micro_batch_size=size))) for size in (1, 100)]
    for one in batches:
        assert [flag for _, flag in one[0]] == [flag for _, flag in ours[0]] and one[2] == ours[2]
        assert [mine for mine, _ in one[0]] == pytest.approx([mine for mine, _ in ours[0]], rel=1e-12)


def test_with_a_token_before_every_text_answers_are_those_of_the_harness_too(made: SimpleNamespace) -> None:
    """As LLaMA's tokenizer puts one there; rolling log-likelihoods where the harness leaves it out. Without
    its cache of logits, which takes pairs of one text for one another wherever their contexts end."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from megatron.evaluation.harness import HarnessModel

    theirs = copy.deepcopy(made.hf.tokenizer._tokenizer)
    begin = "\u0100"  # the name of byte 0, which no text has
    number = theirs.token_to_id(begin)
    theirs.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, number)])
    end = "<|endoftext|>"
    begun = PreTrainedTokenizerFast(tokenizer_object=theirs, eos_token=end, bos_token=begin, pad_token=end)
    rest = {
        "tokenizer": begun,
        "batch_size": 3,
        "max_length": CONTEXT,
        "device": "cpu",
        "logits_cache": False,
    }
    mine = ask(HarnessModel(made.scorer._replace(begin=(number,))))
    hers = ask(HFLM(pretrained=made.hf.model, **rest))
    for one, other in zip(mine[0], hers[0], strict=True):
        assert one == (pytest.approx(other[0], rel=1e-12), other[1])
    assert mine[2] == hers[2] and mine[0] != ask(HarnessModel(made.scorer))[0]
    rolling = ask(HFLM(pretrained=made.hf.model, add_bos_token=False, **rest))[1]
    assert mine[1] == pytest.approx(rolling, rel=1e-12)


def test_what_greedy_choices_give_is_told_as_likeliest(made: SimpleNamespace) -> None:
    from megatron.evaluation.harness import HarnessModel

    lm = HarnessModel(made.scorer)
    (text,) = lm.generate_until(requests("generate_until", [("The quick", {"max_gen_toks": 3})]))
    pairs = [("The quick", text), ("The quick", " fox")]
    (_, first), (_, second) = lm.loglikelihood(requests("loglikelihood", pairs))
    assert first and not second


@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_local_tasks_are_counted_as_with_the_harness_own_model(
    made: SimpleNamespace, num_fewshot: int
) -> None:
    from lm_eval import simple_evaluate

    from megatron.evaluation.harness import open_tasks, run_task

    tasks, names = open_tasks(made.scorer, list(LOCAL), [made.tasks])
    assert names == list(LOCAL) and tasks.all_tasks == sorted(LOCAL)
    wanted = simple_evaluate(
        made.hf, tasks=list(LOCAL), task_manager=tasks, num_fewshot=num_fewshot, log_samples=False
    )
    for name in names:
        found = run_task(made.scorer, tasks, name, num_fewshot, None)
        assert found["n-samples"][name] == {"original": 8, "effective": 8}
        assert found["n-shot"][name] == num_fewshot
        numbers = {
            metric: value
            for metric, value in wanted["results"][name].items()
            if isinstance(value, int | float)
        }
        assert found["results"][name] == pytest.approx(numbers, rel=1e-9) and len(numbers) > 1
    limited = run_task(made.scorer, tasks, "local_choice", num_fewshot, 3)
    assert limited["n-samples"]["local_choice"]["effective"] == 3
    assert "acc_stderr,none" in limited["results"]["local_choice"]


def test_tasks_on_two_ranks_have_the_numbers_of_one(made: SimpleNamespace) -> None:
    """Through run_tasks, to the bit, counts and errors among them; the second rank draws no errors of its
    own."""
    from megatron.config.evaluation import HarnessOptions
    from megatron.evaluation.harness import run_tasks

    options = HarnessOptions(lm_eval=tuple(LOCAL), include_path=(made.tasks,), num_fewshot=2)

    def run(mesh: Mesh) -> tuple[dict[str, Any], dict[str, Any]]:
        saved = dict[str, Any]()
        return run_tasks(made.scorer._replace(mesh=mesh), options, {}, saved.update), saved

    one, ranks = run(Mesh()), run_ranks(2, run)
    assert ranks[0] == one and [*one[0]] == list(LOCAL)
    for name, found in ranks[1][0].items():
        alone = one[0][name]
        assert found | {"results": {}} == alone | {"results": {}}
        numbers, wanted = found["results"][name], alone["results"][name]
        drawn = wanted.keys() - numbers.keys()
        assert all("_stderr" in metric for metric in drawn) and len(drawn) < len(wanted)
        assert numbers == {metric: value for metric, value in wanted.items() if metric not in drawn}


def test_mistakes_are_told_in_one_line(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import manager

    from megatron.evaluation import harness

    few = Path(manager.__file__).parent / "hellaswag" / "none.py"  # reading all tasks takes many seconds
    monkeypatch.setattr(manager, "__file__", str(few))
    with pytest.raises(UserError) as caught:
        harness.open_tasks(made.scorer, ["local_choice", "helaswag", "qqqqq"], [made.tasks])
    first, second = caught.value.problems
    assert first.startswith("--lm-eval helaswag: is no task") and "did you mean hellaswag" in first
    assert second.startswith("--lm-eval qqqqq: is no task") and second.endswith("lm-eval ls tasks lists all")
    with pytest.raises(UserError, match=r"--lm-eval local_x\*: fits no task of the harness or of --include"):
        harness.open_tasks(made.scorer, ["local_x*"], [made.tasks])
    _, found = harness.open_tasks(made.scorer, ["local_text", "local_[ac]*"], [made.tasks])
    assert found == ["local_text", "local_answer", "local_choice"]
    (tmp_path / "all.yaml").write_text("group: local_all\ntask: [local_answer, {task: local_choice}]\n")
    _, found = harness.open_tasks(made.scorer, ["local_[acm]*"], [made.tasks, str(tmp_path)])
    assert found == ["local_all"], "tasks of a group are asked with it"
    (tmp_path / "all.yaml").unlink()
    (tmp_path / "torn.yaml").write_text("task: torn\n  x: [\n")
    with pytest.raises(UserError) as caught:
        harness.open_tasks(made.scorer, ["torn", made.tasks], [str(tmp_path)])
    first, second = caught.value.problems
    assert first.startswith(
        f"--lm-eval torn: is no task that can be read; mend {tmp_path}/torn.yaml (Scanner"
    )
    assert second == f"--lm-eval {made.tasks}: is a folder; give --include-path {made.tasks}, and its tasks"
    with pytest.raises(UserError, match=r"mend .*torn.yaml \(Scanner.*; or did you mean hellaswag"):
        harness.open_tasks(made.scorer, ["helaswag"], [str(tmp_path)])
    (tmp_path / "torn.yaml").unlink()
    with pytest.raises(UserError, match="--include-path nowhere: is no folder"):
        harness.open_tasks(made.scorer, ["local_choice"], ["nowhere"])
    (tmp_path / "far.yaml").write_text(
        "task: far\ndataset_path: nobody/has_this\noutput_type: loglikelihood\n"
    )
    (tmp_path / "beams.yaml").write_text(
        (Path(made.tasks) / "local_answer.yaml")
        .read_text()
        .replace("local_answer", "beams")
        .replace("max_gen_toks: 8", "num_beams: 4")
    )
    tasks, _ = harness.open_tasks(made.scorer, ["far", "beams"], [str(tmp_path)])
    with pytest.raises(UserError) as caught:
        harness.run_task(made.scorer, tasks, "far", None, None)
    (problem,) = caught.value.problems
    assert problem.startswith("--lm-eval far: the harness cannot load it: ") and "\n" not in problem
    with pytest.raises(UserError, match="a task asks for num_beams"):
        harness.run_task(made.scorer, tasks, "beams", None, None)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (3, "question 1 has 3 of 3 choices, counted from 0, and 7 more are such"),
        (-1, "question 1 has -1 of 3 choices"),
        ("{{bad}} or not", "question 1 has '"),
        ("{{'5' if good == '4' else '1'}}", "question 1 has 5 of 3"),
        ("{{nothing.there}}", "an answer cannot be read: UndefinedError"),
    ],
)
def test_an_answer_that_is_no_choice_is_told(
    made: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    target: str | int,
    told: str,
) -> None:
    """The harness counts it as wrong, so that a slip in the data is a lower accuracy."""
    from megatron.evaluation import harness
    from megatron.evaluation.harness_tasks import require_answers, wrong_answers

    text = (Path(made.tasks) / "local_choice.yaml").read_text().replace("local_choice", "slip")
    (tmp_path / "slip.yaml").write_text(text)
    tasks, _ = harness.open_tasks(made.scorer, ["slip"], [str(tmp_path)])
    task = tasks.load(["slip"])["tasks"]["slip"]
    assert wrong_answers(task) == ""
    task.config.doc_to_target = target
    with pytest.raises(UserError, match=re.escape(f"--lm-eval slip: {told}")):
        require_answers("slip", tasks, task)
    if target == 3:
        assert wrong_answers(task, 2).endswith("and 1 more are such")
        assert wrong_answers(task, 0.25) == wrong_answers(task, 2.0)
        judged = dataclasses.replace(task.config, process_results=lambda question, results: {"acc": 1})
        monkeypatch.setattr(task, "_config", judged)
        assert wrong_answers(task) == ""
        monkeypatch.undo()
    tasks.folders = ()
    require_answers("slip", tasks, task)
    assert capsys.readouterr().out.startswith(f"warning: slip: {told}")


PAPER = {
    "acc": "output_type: multiple_choice\ndoc_to_target: 0\ndoc_to_choice: ['{{good}}', '{{bad}}']\n"
    "metric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "exact_match": "output_type: generate_until\ndoc_to_target: ' {{good}}'\n"
    "generation_kwargs: {until: [' '], max_gen_toks: 4}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
}


def test_the_paper_group_goes_on_where_it_was_stopped(
    made: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through the command, by local tasks of the same names and metrics; ReCoRD has acc here."""
    from megatron.evaluation import harness, paper_tasks
    from tools import evaluate

    monkeypatch.setitem(paper_tasks.TASKS, "record", "acc,none")
    (tmp_path / "tasks").mkdir()
    for name, metric in paper_tasks.TASKS.items():
        kind, filter_name = metric.removesuffix("_norm").replace("_norm,", ",").split(",")
        filters = ""
        if filter_name != "none":
            functions = "[{function: remove_whitespace}, {function: take_first}]"
            filters = f"filter_list: [{{name: {filter_name}, filter: {functions}}}]\n"
        common = COMMON.format(folder=Path(made.tasks).parent) + "doc_to_text: 'What are {{question}}?'\n"
        text = f"task: {name}{common}{PAPER[kind]}{filters}"
        (tmp_path / "tasks" / f"{name}.yaml").write_text(text)
    options = tokenizer_in(tmp_path / "tokenizer")
    trained(tmp_path / "run", options)
    kept_with(tmp_path / "run", options)
    output, stopped = tmp_path / "out.json", list[str]()
    words = ["--load", str(tmp_path / "run"), "--lm-eval", "paper", "--include-path", str(tmp_path / "tasks")]
    monkeypatch.setattr("sys.argv", ["evaluate.py", *words, "--limit", "2", "--json", str(output)])
    run_task = harness.run_task

    def stops(*given: Any) -> Any:
        stopped.append(given[2])
        if len(stopped) == 10:
            raise UserError("stopped")
        return run_task(*given)

    monkeypatch.setattr(harness, "run_task", stops)
    with pytest.raises(UserError, match="stopped"):
        evaluate.main()
    assert [*json.loads(output.read_text())["lm_eval"]] == stopped[:-1]
    evaluate.main()
    assert stopped == [*list(paper_tasks.TASKS)[:10], *list(paper_tasks.TASKS)[9:]]
    found = json.loads(output.read_text())
    assert [*found["lm_eval"]] == [*paper_tasks.TASKS]
    mean = paper_mean({task: entry["results"][task] for task, entry in found["lm_eval"].items()})
    assert mean is not None and found["paper_mean"] == {**mean._asdict(), "missing": []}
    said = capsys.readouterr().out
    assert f"mean of the paper's 19 tasks: {mean.value:.2f} ± {mean.error:.2f} %" in said
    assert said.count("its results are there already") == 9


def test_examples_of_the_test_part_are_told(
    made: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from megatron.evaluation.harness import open_tasks, run_task

    text = (Path(made.tasks) / "local_choice.yaml").read_text()
    (tmp_path / "alone.yaml").write_text(
        text.replace("fewshot_split: train\n", "").replace("task: local_choice", "task: alone")
    )
    others = {  # with examples of the YAML file's number, of another name for the same part, and of its own
        "says": ("fewshot_split: train", "num_fewshot: 2"),
        "twice": ("fewshot_split: train", "training_split: test"),
        "named": ("fewshot_split: train", "fewshot_split: test"),
        "written": ("fewshot_split: train", f"fewshot_config: {{samples: {json.dumps(DOCUMENTS[:2])}}}"),
    }
    for name, (old, new) in others.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace(old, new).replace("local_choice", name))
    tasks, _ = open_tasks(made.scorer, ["alone", *others, "local_choice"], [made.tasks, str(tmp_path)])
    for name, told in {
        "alone": 1,
        "says": 1,
        "twice": 1,
        "named": 0,
        "written": 0,
        "local_choice": 0,
    }.items():
        run_task(made.scorer, tasks, name, None if name == "says" else 2, 2)
        assert capsys.readouterr().out.count("the one that is asked may be among them") == told, name


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "doc_to_target: 0",
            "doc_to_target: 3",
            "the right answer is none of the choices",
        ),
        ("metric: acc}", "metric: accuratezza}", "a metric of its YAML file is none that the harness knows"),
        ("test.jsonl", "empty.jsonl", "its data has no question"),
    ],
)
def test_what_a_task_of_the_user_lacks_is_told(
    made: SimpleNamespace, tmp_path: Path, old: str, new: str, said: str
) -> None:
    from megatron.evaluation.harness import open_tasks, run_task

    text = (Path(made.tasks) / "local_choice.yaml").read_text().replace("local_choice", "lacks")
    (Path(made.tasks).parent / "empty.jsonl").touch()
    (tmp_path / "lacks.yaml").write_text(text.replace(old, new))
    tasks, _ = open_tasks(made.scorer, ["lacks"], [str(tmp_path)])
    with pytest.raises(UserError, match=said):
        run_task(made.scorer, tasks, "lacks", None, None)


def test_a_part_that_the_data_lacks_is_told_with_those_there(made: SimpleNamespace, tmp_path: Path) -> None:
    from megatron.evaluation.harness import open_tasks, run_task

    text = (Path(made.tasks) / "local_choice.yaml").read_text().replace("local_choice", "lacks")
    (tmp_path / "lacks.yaml").write_text(text.replace("test_split: test", "test_split: dev"))
    tasks, _ = open_tasks(made.scorer, ["lacks"], [str(tmp_path)])
    with pytest.raises(UserError, match="its data has no part dev, but train, test; mend test_split"):
        run_task(made.scorer, tasks, "lacks", None, None)


def test_what_a_task_of_the_harness_cannot_do_is_one_line(made: SimpleNamespace) -> None:
    """More examples than its training part has; what our own model raises is no task's fault."""
    from megatron.evaluation.harness import open_tasks, run_task

    tasks, _ = open_tasks(made.scorer, ["local_choice", "local_word"], [made.tasks])
    with pytest.raises(UserError) as caught:
        run_task(made.scorer, tasks, "local_choice", 9, None)
    (problem,) = caught.value.problems
    assert problem.startswith("--lm-eval local_choice: the harness cannot do it: ValueError: Sample larger")
    assert "lower --num-fewshot" in problem and "\n" not in problem
    with pytest.raises(AttributeError):
        run_task(made.scorer._replace(model=None), tasks, "local_word", 0, None)


def test_what_is_done_is_lost_at_no_moment(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another task comes before those that are there already."""
    from megatron.config.evaluation import HarnessOptions
    from megatron.evaluation import harness

    options = HarnessOptions(lm_eval=("local_word", "local_choice"), include_path=(made.tasks,))
    monkeypatch.setattr(harness, "run_task", lambda *given: {"results": {}})
    own = {"own_files": harness.digest_of_own(options.tasks, options.include_path)}
    there = {"local_choice": {"settings": {"num_fewshot": None, "limit": None} | own, "results": {"x": {}}}}
    saved = list[dict[str, Any]]()
    found = harness.run_tasks(made.scorer, options, there, lambda one: saved.append(dict(one)))
    assert [*found] == ["local_word", "local_choice"]
    assert saved[0].keys() == found.keys() and saved[0]["local_choice"] == there["local_choice"]


def test_another_seed_draws_other_examples_and_keeps_no_results(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron.config.evaluation import HarnessOptions
    from megatron.evaluation import harness

    options = HarnessOptions(lm_eval=("local_choice",), include_path=(made.tasks,), num_fewshot=2, limit=3)
    seeds = list[int]()
    draw = harness.run_task
    monkeypatch.setattr(harness, "run_task", lambda *given: seeds.append(given[-1]) or draw(*given))
    first = harness.run_tasks(made.scorer, options, {}, lambda found: None)
    other = harness.run_tasks(made.scorer, options, first, lambda found: None, 7)
    assert harness.run_tasks(made.scorer, options, other, lambda found: None, 7) == other
    assert seeds == [harness.SEED, 7] and other["local_choice"]["settings"]["seed"] == 7


def test_own_tasks_that_have_changed_are_done_again(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from megatron.evaluation.harness_tasks import digest_of_own

    (tmp_path / "a.yaml").write_text("task: a\n")
    before = digest_of_own(["a"], [str(tmp_path)])
    (tmp_path / "out.json").write_text("{}")
    assert before == digest_of_own(["a"], [str(tmp_path)]) and digest_of_own(["a"], []) == ""
    alone = digest_of_own([str(tmp_path / "a.yaml")], [])
    (tmp_path / "a.yaml").write_text("task: a\nnum_fewshot: 2\n")
    assert before != digest_of_own(["a"], [str(tmp_path)])
    assert alone != digest_of_own([str(tmp_path / "a.yaml")], [])


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("dataset_kwargs: {data_files: {test: FOLDER/data/a.jsonl}}", "data/a.jsonl"),
        ("dataset_kwargs: {data_files: 'FOLDER/data/*.jsonl'}", "data/a.jsonl"),
        ("dataset_kwargs: {data_dir: FOLDER/data}", "data/a.jsonl"),
        ("include: base_yaml", "tasks/base_yaml"),
        ("doc_to_text: !function utils.text", "tasks/utils.py"),
        ("dataset_kwargs: {data_files: 'FOLDER/**/*.jsonl'}", "data/a.jsonl"),
    ],
)
def test_own_tasks_whose_data_has_changed_are_done_again(tmp_path: Path, text: str, changed: str) -> None:
    pytest.importorskip("lm_eval")
    from megatron.evaluation.harness_tasks import digest_of_own

    for place in ("data/a.jsonl", "data/b.txt", "tasks/base_yaml", "tasks/utils.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("before")
    task = tmp_path / "tasks" / "a.yaml"
    task.write_text("task: a\n" + text.replace("FOLDER", str(tmp_path)))
    before = digest_of_own([str(task)], [])
    assert before == digest_of_own([str(task)], [])
    (tmp_path / changed).write_text("after")
    assert before != digest_of_own([str(task)], [])


def test_signs_in_prompts_list_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only patterns of one folder here, and below folders that they name."""
    tasks = pytest.importorskip("megatron.evaluation.harness_tasks")
    asked: list[str] = []
    monkeypatch.setattr(tasks.glob, "glob", lambda pattern, recursive: asked.append(pattern) or [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "doc_to_text: '3 * 4 /* ** **/x ./**/*.py /**/y ../**/z *.jsonl below/**'\ndata_dir: .\n"
    )
    (tmp_path / "below").mkdir()
    (tmp_path / "other").touch()
    before = tasks.digest_of_own(["a.yaml"], [])
    assert sorted(asked) == ["*.jsonl", "below/**"]
    (tmp_path / "other").write_text("of a run")
    assert tasks.digest_of_own(["a.yaml"], []) == before


def test_a_large_file_is_its_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = pytest.importorskip("megatron.evaluation.harness_tasks")
    (tmp_path / "data").write_text("12345")
    (tmp_path / "a.yaml").write_text(f"dataset_kwargs: {{data_files: {tmp_path}/data}}")
    monkeypatch.setattr(tasks, "LARGE", 4)
    monkeypatch.setattr(tasks, "checksum", lambda path: pytest.fail("is read"))
    monkeypatch.setattr(tasks, "_task_files", lambda folder: [tmp_path / "a.yaml"])
    before = tasks.digest_of_own([], [str(tmp_path)])
    os.utime(tmp_path / "data", (1, 1))
    assert tasks.digest_of_own([], [str(tmp_path)]) != before


def test_folders_of_own_tasks_are_their_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the folder is spelled, and not what a virtual environment or git keeps below it."""
    pytest.importorskip("lm_eval")
    from megatron.evaluation.harness_tasks import digest_of_own

    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yaml").write_text("task: a\n")
    monkeypatch.chdir(tmp_path)
    before = digest_of_own(["a"], ["."])
    for place in (".venv/lib", "env/lib"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "b.py").touch()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert {digest_of_own(["a"], [one]) for one in (".", str(tmp_path), "below/..")} == {before} != {""}
    (tmp_path / "below" / "utils.py").touch()
    assert digest_of_own(["a"], ["."]) != before


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, (0.0, 0, 1.0)),
        ({"do_sample": True}, (1.0, 0, 1.0)),
        ({"temperature": "0.7", "top_k": -1}, (0.7, 0, 1.0)),  # as vLLM writes all tokens
        ({"do_sample": True, "top_p": 0, "top_k": "50"}, (0.0, 50, 0)),  # the likeliest token
        ({"do_sample": True, "top_p": 1.5}, (1.0, 0, 1.0)),
        ({"do_sample": False, "temperature": 1.0}, (0.0, 0, 1.0)),
    ],
)
def test_how_tokens_are_chosen(
    made: SimpleNamespace, settings: dict[str, Any], wanted: tuple[float, int, float]
) -> None:
    from megatron.evaluation.harness import _wish

    assert _wish(settings, made.scorer).choice[:3] == wanted


def test_settings_that_are_no_numbers_are_one_line(made: SimpleNamespace) -> None:
    from megatron.evaluation.harness import _wish

    for settings in ({"temperature": "warm"}, {"max_gen_toks": [4]}):
        with pytest.raises(UserError, match=r"generation_kwargs say .*, which are not all numbers"):
            _wish(settings, made.scorer)
    wish = _wish({"until": ["", 5, "x"], "max_gen_toks": "7"}, made.scorer)
    assert (wish.until, wish.tokens) == (("5", "x", "<|endoftext|>"), 7)


def test_what_is_cut_is_told(made: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    from megatron.evaluation.harness import HarnessModel

    lm = HarnessModel(made.scorer)
    lm.loglikelihood(requests("loglikelihood", [("The", " fox"), ("word " * 90, "jumps")]))
    assert "note: 1 of 2 texts are longer than the model's 48 tokens allow" in capsys.readouterr().out
    asked = [("The " * 45, {"max_gen_toks": 8, "until": "e"}), ("The", {"max_gen_toks": 8, "until": "e"})]
    lm.generate_until(requests("generate_until", asked))
    assert "note: 1 of 2 texts are longer" in capsys.readouterr().out
    lm.loglikelihood(requests("loglikelihood", [("The", " fox")]))
    assert "note" not in capsys.readouterr().out


def test_commas_part_names_as_in_the_harness_own_command() -> None:
    from megatron.config.evaluation import HarnessOptions

    assert HarnessOptions(lm_eval=("a,b", "c,")).tasks == ("a", "b", "c")
