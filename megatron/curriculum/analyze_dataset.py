"""From a dataset on disk to its analysis and a table of it: the work of tools/analyze_data.py, and of
tools/preprocess_data.py --metrics behind its own."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from megatron.base.cores import usable_cores
from megatron.base.errors import UserError, collect_problems
from megatron.base.terminal import show
from megatron.config.bert import SentencesConfig, of_pairs
from megatron.config.config import TokenizerOptions
from megatron.config.flags import flag, spelling
from megatron.config.tokenizer import in_vain
from megatron.curriculum.analysis import analyze, choose_metrics, folder_problems
from megatron.curriculum.analysis_folder import read_manifest
from megatron.curriculum.difficulty import METRICS
from megatron.data.corpora import SPLITS, Corpus, Source, open_corpus, open_source, parse_split
from megatron.data.pairs import joining_of, open_sentences
from megatron.data.vocabulary import find_vocabulary
from megatron.data.wordpiece import bert_tokens


@dataclass(frozen=True, kw_only=True)
class AnalysisOptions:
    data_path: str = flag(
        help="prefix of the .bin/.idx files",
        metavar="PREFIX",
        of_several="analyse every dataset of a blend by itself, and give training all folders by "
        "--difficulty-path",
    )
    seq_length: int = flag(help="tokens of a sample, as in training", at_least=1)
    output_dir: str = flag(
        help="folder for the analysis; an older one there is replaced, unless it has other metrics, too",
        metavar="FOLDER",
    )
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    task: str = flag("gpt", "what is trained: windows, or samples of sentences", choices=("gpt", "bert"))
    sentences: SentencesConfig = field(default_factory=SentencesConfig)
    seed: int = flag(1234, "of the samples of sentences, as in training")
    metrics: tuple[str, ...] = flag(
        ("vocab_rarity",), f"what to compute: {', '.join(METRICS)}, or module:function"
    )
    split: str = flag("969,30,1", "shares of training, validation and test, as in training")
    part: str = flag("train", "which part to analyse", choices=SPLITS)
    workers: int = flag(usable_cores(), "threads; they change no byte of the result", at_least=1)
    allow_trailing_bytes: bool = flag(False, "accept a .bin longer than its .idx says")


def analysis_problems(options: AnalysisOptions, folder_flag: str = "--output-dir") -> list[str]:
    """What is wrong with the options, as far as it can be told without the data. `folder_flag`: the flag
    that names the folder."""
    problems = of_pairs(options.sentences) if options.task == "bert" else _of_windows(options.sentences)
    problems += in_vain(options.tokenizer, ("vocab_size", "eod_token"))
    with collect_problems(problems):
        chosen = choose_metrics(options.metrics)
        if options.task == "gpt" and (alike := [name for name, one in chosen.items() if one.of_texts]):
            raise UserError(
                f"--metrics {', '.join(alike)}: is the same for all windows of a GPT; leave it out, or "
                "run tools/analyze_data.py --task bert on sentences"
            )
    with collect_problems(problems):
        low, high = _share(options)
        if low == high:
            raise UserError(
                f"--split {options.split} leaves nothing for {options.part}, which is to be analysed; "
                "give it a share"
            )
    folder = Path(options.output_dir)
    if folder.resolve() in Path(options.data_path).resolve().parents:
        problems.append(
            f"{folder_flag} {folder} is the folder of the data {options.data_path}; choose one of its own"
        )
    else:
        problems += folder_problems(folder, folder_flag)
    return problems


def metrics_at_stake(options: AnalysisOptions) -> list[str]:
    """Why the older analysis in the folder is not replaced: it holds metrics that the new one would not."""
    try:
        held = read_manifest(Path(options.output_dir))["metrics"]
    except UserError:
        return []  # nothing that a run could read
    lost = sorted(held.keys() - choose_metrics(options.metrics).keys())
    words = "which would be gone; name it in --metrics, too, or choose another folder"
    return [f"--output-dir {options.output_dir} holds {', '.join(lost)}, {words}"] if lost else []


def analyze_dataset(options: AnalysisOptions) -> None:
    """Write the analysis of a part of a dataset to its folder, and print how difficulty is spread."""
    source = open_source(options.data_path, options.allow_trailing_bytes)
    source.dataset.validate()
    corpus = _corpus(source, options)
    if corpus is None:
        raise UserError(
            f"--split {options.split} leaves no sample of {options.seq_length} tokens for {options.part}; "
            "use more data, give it a larger share, or lower --seq-length"
        )
    metrics = choose_metrics(options.metrics)
    vocabulary = find_vocabulary(options.tokenizer, [corpus])
    folder = Path(options.output_dir)
    manifest = analyze(corpus, options.part, metrics, vocabulary.size, folder, options.workers)
    show(_table(options, manifest))
    print(f"wrote {folder}")


def _of_windows(sentences: SentencesConfig) -> list[str]:
    """Flags that do nothing where samples are windows."""
    given = [spelling(one.name) for one in fields(sentences) if getattr(sentences, one.name) != one.default]
    words = "says how sentences become samples; give --task bert, or leave it out"
    return [f"{', '.join(given)}: {words}"] if given else []


def _corpus(source: Source, options: AnalysisOptions) -> Corpus | None:
    """The samples as they will be trained, before any is masked."""
    share = _share(options)
    if options.task == "gpt":
        return open_corpus(source, share, options.seq_length, options.part)
    joining = joining_of(options.sentences, options.seq_length, options.seed)
    corpus = open_sentences(source, share, joining, options.part)
    return corpus and replace(corpus, marks=bert_tokens(options.tokenizer, [corpus]))


def _share(options: AnalysisOptions) -> tuple[float, float]:
    return dict(zip(SPLITS, parse_split(options.split)))[options.part]


def _table(options: AnalysisOptions, manifest: dict[str, Any]) -> Table:
    """One row a metric: its values from the easiest to the hardest sample."""
    table = Table(
        title=f"{manifest['samples']:,} samples of {options.seq_length} tokens, {options.part} part of "
        f"{options.data_path}"
    )
    for heading in ("metric", "easiest", "10 %", "25 %", "median", "75 %", "90 %", "hardest", "mean"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, entry in manifest["metrics"].items():
        table.add_row(
            name,
            *(f"{entry['percentiles'][share]:,}" for share in (0, 10, 25, 50, 75, 90, 100)),
            f"{entry['mean']:,.1f}",
        )
    return table
