"""Tokenize text into the .bin/.idx files that training reads."""

import signal
import sys

from megatron.base.command import run_command
from megatron.config.arguments import parse, unused_flags
from megatron.config.other_megatrons import Foreign
from megatron.preprocess.preprocess import PreprocessOptions, preprocess

EXAMPLES = """\
  python tools/preprocess_data.py --input corpus.jsonl --output-prefix data/corpus --append-eod \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer.json
      writes data/corpus_text_document.bin, .idx and .json
  python tools/preprocess_data.py --input 'shards/*.jsonl.zst' books/ --output-prefix data/mix --append-eod \\
      --tokenizer-type GPT2BPETokenizer --vocab-file vocab.json --merge-file merges.txt \\
      --shuffle-documents 1234"""

FOREIGN = {
    "log-interval": Foreign(None, "progress is shown by time"),
    "partitions": Foreign(None, "one pass writes one file, whatever the size"),
    "keep-sequential-samples": Foreign(
        None, "the order of the input is always kept, unless --shuffle-documents is given"
    ),
    "find-optimal-num-workers": Foreign(None, "one worker a core is best"),
    "workers-to-check": Foreign(None, "one worker a core is best"),
    "max-documents": Foreign(None, "it belongs to --find-optimal-num-workers"),
    "keep-newlines": Foreign(None, "texts are never split into sentences"),
    "lang": Foreign(None, "texts are never split into sentences"),
    "dataset-impl": Foreign(("mmap",), "there is one format, read through memory maps"),
    "split-sentences": Foreign((), "it belongs to BERT; leave it out for GPT"),
    "vocab-extra-ids": Foreign(("0",), "the tokenizer's own tokens are all that there are"),
}


def main() -> None:
    options = parse(PreprocessOptions, sys.argv[1:], description=__doc__, examples=EXAMPLES, foreign=FOREIGN)
    for line in unused_flags(PreprocessOptions, sys.argv[1:], FOREIGN):
        print(line)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        preprocess(options)
    except KeyboardInterrupt:
        print("nothing was written; the same command starts over", file=sys.stderr)
        raise


if __name__ == "__main__":
    run_command(main)
