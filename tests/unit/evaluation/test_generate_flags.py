"""The flags of tools/generate_text.py, and those that other programs generate with."""

import pytest

from megatron.base.errors import UserError
from megatron.config.arguments import parse, unused_flags
from tools.generate_text import FOREIGN, Options, main


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--out-seq-length 12", "num_tokens", 12),
        ("--max_new_tokens 12", "num_tokens", 12),
        ("--maximum_tokens 12", "num_tokens", 12),
        ("--tokens-to-generate 12", "num_tokens", 12),
        ("--greedy", "temperature", 0.0),
        ("--do_sample false", "temperature", 0.0),
        ("--no-do-sample", "temperature", 0.0),
        ("--length 12", "num_tokens", 12),
        ("--k 5", "top_k", 5),
        ("--p 0.9", "top_p", 0.9),
        ("--genfile a.txt", "output", "a.txt"),
    ],
)
def test_flags_that_others_generate_with_are_read(words: str, name: str, value: object) -> None:
    argv = f"--load run {words}".split()
    assert getattr(parse(Options, argv, description="", foreign=FOREIGN), name) == value
    (note,) = unused_flags(Options, argv, FOREIGN)
    assert note.startswith(f"read {words} as --{name.replace('_', '-')} ")


def test_the_same_number_twice_is_no_contradiction() -> None:
    argv = ["--load", "run", "--greedy", "--temperature", "0.0"]
    assert parse(Options, argv, description="", foreign=FOREIGN).temperature == 0
    argv = ["--load", "run", "--do_sample", "false", "--temperature", "0.7"]
    with pytest.raises(UserError, match="is --temperature 0 here, and"):
        parse(Options, argv, description="", foreign=FOREIGN)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--stream", "a text is shown when it is whole"),
        ("--return-full-text false", "texts are shown behind their prompts, whatever is given"),
        ("--dtype bf16", "the checkpoint says it"),
        ("--no-kv-cache", "which gives the same tokens"),
    ],
)
def test_flags_that_change_no_text_are_told(words: str, told: str) -> None:
    argv = f"--load run {words}".split()
    assert parse(Options, argv, description="", foreign=FOREIGN) == parse(Options, argv[:2], description="")
    (note,) = unused_flags(Options, argv, FOREIGN)
    assert told in note


def test_a_prompt_that_names_a_file_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("The function")
    for prefix in ("FILE:", "@"):
        monkeypatch.setattr("sys.argv", ["g", "--load", "run", "--prompt", f"{prefix}{tmp_path}/a.txt"])
        with pytest.raises(UserError, match=r"cat .*a\.txt"):
            main()


def test_a_launch_script_of_training_generates() -> None:
    """Model and layout are those of the checkpoint, whatever the flags say."""
    words = "--tensor-model-parallel-size 2 --num-layers 4 --hidden_size 64 --seq-length 32 --bf16"
    argv = f"--load run {words}".split()
    assert parse(Options, argv, description="", foreign=FOREIGN) == parse(Options, argv[:2], description="")
    (note,) = unused_flags(Options, argv, FOREIGN)
    assert note.startswith("not used here: --tensor-model-parallel-size, --num-layers, --hidden_size (the ")


def test_how_another_program_is_told_to_stop_or_go_on_is_read() -> None:
    """Texts end at the end of a document, as they do by Megatron's switch; without it they go on. Pads of
    transformers are not seen."""
    words = ["--load", "run", "--pad-token-id", "0", "--use_eod_token_for_early_termination"]
    assert not parse(Options, words, description="", foreign=FOREIGN).ignore_eod
    assert parse(Options, [*words, "false"], description="", foreign=FOREIGN).ignore_eod
    (note,) = unused_flags(Options, words, FOREIGN)
    assert note.startswith("not used here: --pad-token-id (what fills a shorter text is not seen); ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--num-samples 10", "--num-samples 10 is refused: give --prompt once for each text"),
        ("--repetition_penalty 1.2", "give --temperature 1 and --top-p 0.9 where the likeliest"),
        ("--no-repeat-ngram-size 3", "--no-repeat-ngram-size 3 is refused: texts are drawn by "),
        ("--num-beams 4", "give --temperature 0 for the likeliest token at every place"),
        ("--stop the", "--stop the is refused: a text ends at the end of a document, or behind --num-tokens"),
        ("--min-p 0.1", "give --top-p or --top-k"),
        ("--stop-token-ids 2", "behind --num-tokens"),
        ("--stopping_criteria x", "behind --num-tokens"),  # of transformers
        ("--end_strings x", "cut the text yourself"),  # of NeMo
        ("--stop-on-eol", "cut the text yourself"),  # of Megatron-LM's server
        ("--min-new-tokens 5", "--ignore-eod goes on"),
        ("--system-prompt hi", "in its template"),
        ("--return-log-probs", "tools/evaluate.py"),
        ("--lora x", "merge_and_unload"),
        ("--num-return-sequences 2", "give --prompt once for each text"),
        ("--text-gen-type unconditional", "or none for a text from its beginning"),
        ("--top_k -1", "--top-k -1 would leave no token; give 0 for all"),
        ("--top_p 0.0 --top_k 0", "--top-p 0 would leave no token; give 1 for all, or --temperature 0"),
    ],
)
def test_flags_that_others_generate_with_are_refused_with_a_way_out(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["generate_text.py", "--load", "run", *words.split()])
    with pytest.raises(UserError) as caught:
        main()
    (problem,) = caught.value.problems
    assert told in problem


def test_values_of_others_that_change_nothing_are_taken() -> None:
    words = (
        "--repetition_penalty 1.0 --no-repeat-ngram-size 0 --frequency_penalty 0.0 --min-p 0 --typical_p 1 "
        "--guidance-scale 1 --quantization none --logprobs 0 --num-beams 1 --top-n-sigma -1"
    )
    argv = ["--load", "run", *words.split()]
    assert parse(Options, argv, description="", foreign=FOREIGN) == parse(Options, argv[:2], description="")
    assert not unused_flags(Options, argv, FOREIGN)
