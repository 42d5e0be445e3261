"""Let a trained GPT continue texts."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from megatron.base.command import run_command

from dataclasses import dataclass

import torch

from megatron.base.errors import UserError
from megatron.base.files import whole_file, writable_file
from megatron.config.arguments import parse, unused_flags
from megatron.config.config import TokenizerOptions
from megatron.config.evaluation import BOS_TOKEN
from megatron.config.flags import NEWEST, flag
from megatron.config.other_generators import FOREIGN
from megatron.data.tokenizer_value import Tokenizer
from megatron.evaluation.generate import Choice, continuation, decode_documents, generate
from megatron.evaluation.restore import documents_as_trained, restore, tokenizer_of
from megatron.evaluation.score import begin_of
from megatron.model.gpt import GPT
from megatron.preprocess.round_trip import first_change

EXAMPLES = """\
  python tools/generate_text.py --load runs/small --prompt "The function returns" --num-tokens 100 \\
      --temperature 0.8
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    load: str = flag(help="folder of checkpoints, or one checkpoint", metavar="FOLDER")
    tokenizer: TokenizerOptions
    prompt: tuple[str, ...] = flag(
        ("",), "a text to continue; repeat the flag for several", repeat=True, metavar="TEXT"
    )
    bos_token: str | None = flag(None, BOS_TOKEN, metavar="TOKEN")
    num_tokens: int = flag(100, "tokens to add to each", at_least=1)
    temperature: float = flag(1.0, "below 1 sharper, above 1 flatter, 0 the likeliest token", at_least=0)
    top_k: int = flag(0, "choose among the k likeliest tokens; 0: all")
    top_p: float = flag(
        1.0, "choose among the likeliest tokens of this total probability; 1: all", at_least=0, at_most=1
    )
    seed: int = flag(1234, "of the choices; a text is the same with any --micro-batch-size")
    micro_batch_size: int = flag(8, "texts that are continued together", at_least=1)
    ignore_eod: bool = flag(
        False, "go on behind the token that ends a document; by default the text ends there"
    )
    ckpt_step: int | None = flag(None, "step of the checkpoint; the newest", otherwise=NEWEST)
    output: str | None = flag(None, "also write the texts to a file", metavar="FILE")


def main() -> None:
    options = parse(Options, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    if options.top_k < 0:
        raise UserError(f"--top-k {options.top_k} would leave no token; give 0 for all")
    for prompt in options.prompt:
        _refuse_file(prompt)
    if not options.top_p:
        raise UserError("--top-p 0 would leave no token; give 1 for all, or --temperature 0")
    for line in unused_flags(Options, sys.argv[1:], FOREIGN):
        print(f"note: {line}", file=sys.stderr)
    if options.output:
        writable_file(options.output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    restored = restore(options.load, options.ckpt_step, device)
    model, config = restored.model, restored.config
    if not isinstance(model, GPT):
        raise UserError(
            f"{restored.folder}: is a model of the task {restored.task.name}, which continues no text; name "
            "a GPT's"
        )
    found = tokenizer_of(restored, options.tokenizer)
    if found is None:
        raise UserError(
            f"--tokenizer-type is required, and the tokenizer's files: none is kept in {options.load}"
        )
    tokenizer, _ = found

    begin = begin_of(restored, tokenizer, options.bos_token)
    prompts = [_ids(tokenizer, prompt, config.data.seq_length, begin) for prompt in options.prompt]
    choice = Choice(options.temperature, options.top_k, options.top_p, options.seed)
    stop = None if options.ignore_eod else tokenizer.eod
    documents, texts = documents_as_trained(restored), list[str]()
    for first in range(0, len(prompts), options.micro_batch_size):
        part = prompts[first : first + options.micro_batch_size]
        rest = (options.num_tokens, config.data.seq_length, choice, stop, documents)
        for ids, new in zip(part, generate(model, part, *rest, numbers=range(first, first + len(part)))):
            texts.append(options.prompt[len(texts)] + continuation(tokenizer, ids, new))
            print(texts[-1] + "\n")
    if options.output:
        with whole_file(options.output, "w") as file:
            file.write("\n\n".join(texts) + "\n")


def _refuse_file(prompt: str) -> None:
    """UserError where a prompt names a file as other programs do."""
    file = prompt.removeprefix("FILE:") if prompt.startswith("FILE:") else prompt.removeprefix("@")
    if file != prompt and os.path.isfile(file):
        raise UserError(f'--prompt {prompt}: a prompt is the text itself; give --prompt "$(cat {file})"')


def _ids(tokenizer: Tokenizer, prompt: str, context: int, begin: tuple[int, ...]) -> list[int]:
    """The tokens of a prompt, behind what is to `begin` it; it is said where the model does not see all of
    it."""
    ids = [int(token) for token in tokenizer.encode_batch([prompt])[0]]
    if seen := _altered(tokenizer, prompt, ids):
        print(f"note: the tokenizer drops or alters text of the prompt: {seen}", file=sys.stderr)
    if len(ids) > context:
        print(
            f"note: of the prompt's {len(ids)} tokens the model sees the last {context}",
            file=sys.stderr,
        )
    return [*begin, *ids] or [tokenizer.eod]


def _altered(tokenizer: Tokenizer, prompt: str, ids: list[int]) -> str:
    """How a prompt differs from what the model sees of it; empty if it does not."""
    if not prompt or tokenizer.kind == "NullTokenizer":
        return ""
    return first_change(prompt, decode_documents(tokenizer, ids))


if __name__ == "__main__":
    run_command(main)
