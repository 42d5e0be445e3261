"""Which layers of an encoder have a window, and what its flags cannot be."""

import pytest

from megatron.config.bert import SentencesConfig, of_gpt, window, window_layers
from megatron.curriculum.analyze_dataset import AnalysisOptions, analysis_problems
from megatron.tasks.bert import BERT_TASK
from tests.support.configurations import make_config, problems_of

WINDOW = "--num-layers 6 --window-size 3,2 "


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        ("", (0, 1, 2, 3, 4, 5)),
        ("1", ()),
        ("2", (0, 2, 4)),
        ("3", (0, 1, 3, 4)),
        ("7", (0, 1, 2, 3, 4, 5)),
        ("[0,1,1]*2", (1, 2, 4, 5)),
        ("[0]*6", ()),
    ],
)
def test_a_number_gives_every_such_layer_the_whole_row(pattern: str, layers: tuple[int, ...]) -> None:
    """As in Megatron: of every N-th layer, so a 1 leaves no window."""
    config = make_config(WINDOW + (f"--window-attn-skip-freq {pattern}" if pattern else ""))
    assert window_layers(config.bert, 6) == layers


def test_windows_are_two_numbers() -> None:
    for text, wanted in (("64,64", (64, 64)), ("(0, 3)", (0, 3)), ("-1,-1", (-1, -1)), ("0,-1", (0, -1))):
        for between in (" ", "="):
            assert window(make_config(f"--window-size{between}'{text}'").bert) == wanted
    assert problems_of("--train-iters 1 -1,-1") == ["unknown flag -1,-1; --help lists all flags"]
    (problem,) = problems_of("--train-iters 1 --window-size 3")
    assert problem == "--window-size 3: write two numbers of at least -1, such as 64,64"
    (problem,) = problems_of(f"--train-iters 1 {WINDOW} --window-attn-skip-freq [0,1]")
    assert "is a pattern of 2 layers, and --num-layers is 6" in problem


def test_a_pair_and_no_pairs_contradict_each_other() -> None:
    flags = "--train-iters 1 --bert-no-binary-head"
    assert (
        problems_of(flags, rules=BERT_TASK.rules)
        == problems_of(f"{flags} --bert-pair sop", rules=BERT_TASK.rules)
        == []
    )
    wanted = ["--bert-pair nsp and --bert-no-binary-head, which has no pairs: give only one"]
    assert problems_of(f"{flags} --bert-pair nsp", rules=BERT_TASK.rules) == wanted
    sentences = SentencesConfig(bert_pair="nsp", bert_no_binary_head=True)
    options = AnalysisOptions(data_path="x", seq_length=8, output_dir="y", task="bert", sentences=sentences)
    assert analysis_problems(options) == wanted


def test_a_gpt_has_no_flags_of_encoders() -> None:
    flags = "--train-iters 1 --rotary-base 500 "
    assert problems_of(flags, rules=(of_gpt,)) == []
    assert problems_of(f"{flags} --local-rotary-base 90 --mask-prob 0.3", rules=(of_gpt,)) == [
        "--mask-prob, --local-rotary-base: belongs to pretrain_bert.py; leave it out"
    ]


def test_a_curriculum_that_cuts_samples_is_told_with_what_else_is_wrong() -> None:
    shape = "--curriculum seqlen_reshape:min=16,max=128,duration=2,quantum=8 --num-experts 4"
    experts, samples = problems_of(f"--train-iters 1 {shape}", rules=BERT_TASK.rules)
    assert experts.startswith("--num-experts: mixtures of experts are built by pretrain_gpt.py alone")
    assert samples.startswith("the curriculum seqlen_reshape cuts a sample into several")
