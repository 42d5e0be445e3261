"""EleutherAI's lm-evaluation-harness on a GPT of this repository, through the harness' interface of models.

Every rank makes all requests of a task. They are scored or continued in batches, which ranks share, and every
rank gets all answers, so the harness counts as on one rank. Importing this needs the package lm-eval.
"""

import hashlib
import json
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from lm_eval import evaluate
from lm_eval.api.model import LM

from megatron.base.errors import UserError
from megatron.base.terminal import print_line
from megatron.config.evaluation import HarnessOptions
from megatron.evaluation.generate import Choice, continuation, generate
from megatron.evaluation.harness_tasks import (
    Tasks,
    digest_of_own,
    one_line,
    open_tasks,
    require_answers,
    tell_shown_answers,
)
from megatron.evaluation.score import (
    Pair,
    Scorer,
    encode,
    encode_pairs,
    in_shares,
    length_of,
    score,
    tell_cut,
)
from megatron.parallel.mesh import Mesh, agree, share_bytes, together

SEED = 1234
"""Of the examples before a question where nobody says another, as of the harness' own command."""
BOOTSTRAPS = 100_000
"""Of errors that have no closed form, as of the harness' own command; the first rank tells them."""
NEW_TOKENS = 256
"""That a text gets where its task does not say how many, as the harness' own models give."""
FEWER = "lower --num-fewshot, or name a model of a greater --seq-length"
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SAMPLING = ("temperature", "top_k", "top_p", "seed")
KINDS: dict[str, type[float]] = {"temperature": float, "top_p": float}
"""Of numbers that need not be whole."""
READ = {*LENGTHS, *SAMPLING, "do_sample", "until"}


class HarnessModel(LM):
    """A GPT as the harness asks it."""

    def __init__(self, scorer: Scorer):
        super().__init__()
        self.scorer, self.told = scorer, set[str]()

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Of contexts and continuations: the log-probability, and whether greedy choices would give it."""
        texts = [request.args for request in requests]
        self._agree(texts)
        pairs = encode_pairs(self.scorer.tokenizer, texts, self.scorer.begin)
        tell_cut(self.scorer, map(length_of, pairs), self.scorer.context + 1, FEWER)
        found = score(self.scorer, pairs, "scores")
        return [(one.log_probability, one.likeliest) for one in found]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Of whole texts, each from an end-of-document token on."""
        texts = [request.args[0] for request in requests]
        self._agree(texts)
        pairs = [Pair(self.scorer.start, ids) for ids in encode(self.scorer.tokenizer, texts)]
        return [one.log_probability for one in score(self.scorer, pairs, "scores")]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Texts that continue contexts, up to a stop word, an end of document, or so many tokens."""
        asked = [request.args for request in requests]
        self._agree(asked)
        texts = encode(self.scorer.tokenizer, [context for context, _ in asked])
        prompts = [[*self.scorer.begin, *ids] for ids in texts]
        wishes = [_wish(settings, self.scorer) for _, settings in asked]
        found = dict[int, str]()
        for wish in dict.fromkeys(wishes):
            self._tell(wish)
            numbers = [number for number, one in enumerate(wishes) if one == wish]
            order = sorted(numbers, key=lambda number: (-len(prompts[number]), number))
            cut = {number: _cut(prompts[number], wish, self.scorer) for number in numbers}
            lengths = [len(prompts[number]) for number in numbers]
            tell_cut(self.scorer, lengths, _room(wish, self.scorer), FEWER)

            def work(batch: list[int], wish: _Wish = wish, cut: dict[int, list[int]] = cut) -> None:
                found.update(zip(batch, _continued(self.scorer, [cut[one] for one in batch], batch, wish)))

            in_shares(self.scorer, order, work, "texts")
        shares = share_bytes(json.dumps(found).encode(), self.scorer.mesh)
        made = {int(number): text for part in shares for number, text in json.loads(part).items()}
        return [made[number] for number in range(len(asked))]

    def _agree(self, asked: Sequence[Any]) -> None:
        digest = hashlib.sha256(json.dumps(list(asked), default=str).encode()).digest()
        agree("the harness' requests", int.from_bytes(digest[:7]), self.scorer.mesh)

    def _tell(self, wish: "_Wish") -> None:
        """Once, where a text may become longer than what the model sees."""
        if wish.tokens >= self.scorer.context and self.scorer.mesh.first and "long" not in self.told:
            self.told.add("long")
            print_line(
                f"note: the task lets texts grow by {wish.tokens} tokens, and the model sees "
                f"{self.scorer.context}: of a context it sees the last {self.scorer.context // 2} at first"
            )


class _Wish(NamedTuple):
    """What a request asks of its text."""

    until: tuple[str, ...]
    tokens: int
    choice: Choice


def _wish(settings: dict[str, Any], scorer: Scorer) -> _Wish:
    """UserError where it asks for another search than choosing token by token, or says no numbers."""
    others = [name for name, value in settings.items() if name not in READ and value not in (None, False, 1)]
    if others:
        what = " and ".join(others)
        raise UserError(
            f"--lm-eval: a task asks for {what}, and texts are made by choosing token by token; leave it out"
        )
    until = settings.get("until") or []
    stops = [str(one) for one in (until if isinstance(until, list | tuple) else [until]) if str(one)]
    given = {name: settings[name] for name in (*LENGTHS, *SAMPLING) if settings.get(name) is not None}
    try:
        numbers = {name: KINDS.get(name, int)(value) for name, value in given.items()}
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"--lm-eval: a task's generation_kwargs say {given}, which are not all numbers; mend its YAML "
            "file"
        ) from None
    tokens = next((numbers[name] for name in LENGTHS if name in numbers), NEW_TOKENS)
    return _Wish(
        (*stops, scorer.tokenizer.end.name), int(tokens), _choice(numbers, settings.get("do_sample"))
    )


def _choice(numbers: Mapping[str, float], sample: Any) -> Choice:
    """How tokens are chosen. Elsewhere a top_k below 1 is all tokens, as is a top_p above 1; one of 0
    is the likeliest token."""
    temperature = numbers.get("temperature", 1.0 if sample else 0.0)
    if sample is False or numbers.get("top_p", 1.0) <= 0:
        temperature = 0.0
    sampling = {name: int(numbers[name]) for name in ("top_k", "seed") if name in numbers}
    sampling["top_k"] = max(sampling.get("top_k", 0), 0)
    return Choice(max(temperature, 0.0), top_p=min(numbers.get("top_p", 1.0), 1.0), **sampling)


def _room(wish: _Wish, scorer: Scorer) -> int:
    """How many tokens of a context the model still sees behind the last new one; where that is none, half of
    what it sees."""
    room = scorer.context - wish.tokens
    return room if room > 0 else max(scorer.context // 2, 1)


def _cut(ids: list[int], wish: _Wish, scorer: Scorer) -> list[int]:
    """A context's last tokens, as many as there is room for."""
    return (ids or [scorer.tokenizer.eod])[-_room(wish, scorer) :]


def _continued(scorer: Scorer, prompts: list[list[int]], numbers: list[int], wish: _Wish) -> list[str]:
    tail = max(len(stop.encode()) for stop in wish.until) + 4  # a token has a byte at least

    def ends(row: int, ids: list[int]) -> bool:
        text = scorer.tokenizer.decode(ids[-tail:])
        return any(stop in text for stop in wish.until)

    found = generate(
        scorer.model,
        prompts,
        wish.tokens,
        scorer.context,
        wish.choice,
        scorer.tokenizer.eod,
        scorer.documents,
        numbers=numbers,
        ends=ends,
    )
    texts = [continuation(scorer.tokenizer, prompt, ids) for prompt, ids in zip(prompts, found)]
    return [_before(text, wish.until) for text in texts]


def _before(text: str, until: Sequence[str]) -> str:
    for stop in until:
        text = text.split(stop)[0]
    return text


def run_tasks(
    scorer: Scorer,
    options: HarnessOptions,
    there: Mapping[str, Any],
    save: Callable[[dict[str, Any]], None],
    seed: int = SEED,
) -> dict[str, Any]:
    """The harness' numbers by task. Those that are `there` with the same settings are taken from there;
    `save` is called behind every other one, and loses none of them."""
    tasks, names = open_tasks(scorer, options.tasks, options.include_path)
    settings: dict[str, Any] = {"num_fewshot": options.num_fewshot, "limit": options.limit}
    found = dict[str, Any]()
    settings |= {"seed": seed} if seed != SEED else {}
    settings |= {"begin": list(scorer.begin)} if scorer.begin else {}
    own = _digest(scorer.mesh, names, options.include_path)
    settings |= {"own_files": own} if own else {}
    kept = {name: there[name] for name in names if name in there and there[name].get("settings") == settings}
    kept = json.loads(share_bytes(json.dumps(kept).encode(), scorer.mesh)[0])
    for name in names:
        if name in kept:
            found[name] = kept[name]
            print_line(f"{name}: its results are there already")
            continue
        limit = int(options.limit) if options.limit and options.limit >= 1 else options.limit
        numbers = run_task(scorer, tasks, name, options.num_fewshot, limit, seed)
        found[name] = {"settings": settings} | numbers
        save(kept | found)
        print_line(f"{name}: {len(found)} of {len(names)} tasks are done")
    return found


def _digest(mesh: Mesh, names: Sequence[str], folders: Sequence[str]) -> str:
    """That of the user's own tasks, of which the first rank reads the files for all."""
    return together(lambda: digest_of_own(names, folders).encode() if mesh.first else b"", mesh)[0].decode()


def run_task(
    scorer: Scorer,
    tasks: Tasks,
    name: str,
    num_fewshot: int | None,
    limit: float | None,
    seed: int = SEED,
) -> dict[str, Any]:
    """What the harness counts for a task or group, every number of a task by metric and filter, standard
    errors among them."""
    loaded = tasks.load([name])
    for task in loaded["tasks"].values():
        fixed = task.get_config("num_fewshot")
        if num_fewshot is not None and fixed != 0:  # a task that says 0 means it
            task.set_config(key="num_fewshot", value=num_fewshot)
        elif fixed is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=seed)
        require_answers(name, tasks, task, limit)
        tell_shown_answers(name, tasks, task)
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002, which tasks of the harness draw from
    try:
        found = evaluate(
            lm=HarnessModel(scorer),
            task_dict=loaded,
            limit=limit,
            bootstrap_iters=BOOTSTRAPS if scorer.mesh.first else 0,
            log_samples=False,
        )
    except UserError:
        raise
    except Exception as error:  # of the harness, or of a task's own code
        if _is_of_the_model(error):
            raise
        raise UserError(f"--lm-eval {name}: {_why_not(error)}") from error
    return {
        "results": _plain(found["results"]),
        "n-shot": found.get("n-shot", {}),
        "n-samples": found.get("n-samples", {}),
        "versions": found.get("versions", {}),
    }


def _is_of_the_model(error: BaseException) -> bool:
    """Whether it was raised in answering a request, and so by no task."""
    answering = {one for one in vars(HarnessModel) if not one.startswith("_")}
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename == __file__ and frame.name in answering for frame in frames)


def _why_not(error: BaseException) -> str:
    """Why a task cannot be done, and the ways out."""
    if "marked as unsafe" in str(error):
        return "runs code that the model writes, which is not done here; leave it out"
    return (
        f"the harness cannot do it: {one_line(error)}; lower --num-fewshot where it has fewer examples, mend "
        "a YAML file of your own, or leave it out"
    )


def _plain(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Numbers alone; the harness writes N/A where there is no standard error."""
    return {
        task: {metric: value for metric, value in found.items() if isinstance(value, int | float)}
        for task, found in results.items()
    }
