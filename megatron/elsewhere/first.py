"""What is said of words of other programs before a flag of ours is named: they mean several of ours, or
another thing where a command finetunes, evaluates or sees images."""

from megatron.elsewhere.answer import Answer

ANSWERS = (
    Answer(
        "of the harness it says how a model is run, which is one way here; a checkpoint is named by --load",
        "model model-args m",
        "--lm-eval",
    ),
    Answer(
        "weights are those of --load FOLDER --finetune, and of a ViT, also Hugging Face's, those of "
        "--pretrained-checkpoint FOLDER; nothing is fetched",
        "pretrained initial-checkpoint pretrained-model",
    ),
    Answer(
        "--limit N asks the first N questions of every task; for chosen ones write a task of your own behind "
        "--include-path, whose data has these alone",
        "samples",
    ),
    Answer(
        "a task's YAML file says it, under metadata, also one of your own behind --include-path",
        "metadata",
    ),
    Answer(
        "a run trains to its end, and measures there; --eval-interval N tells losses on the way, and fewer "
        "--epochs stop it earlier",
        "early-stopping patience early-stopping-patience early-stop-patience early-stopping-threshold "
        "early-stopping-delta min-delta monitor load-best-model-at-end restore-best-weights "
        "metric-for-best-model save-best save-best-only save-best-model keep-best keep-best-checkpoints "
        "greater-is-better best-checkpoint-metric maximize-best-checkpoint-metric keep-last",
        "--save-model",
    ),
    Answer(
        "no checkpoint is kept on the way; --save-model keeps the model of the end",
        "save-total-limit save-strategy save-steps save-interval save-only-model save-safetensors save-top-k "
        "keep-last-epochs keep-last-n-checkpoints keep-checkpoints max-to-keep checkpoint-hist "
        "no-epoch-checkpoints",
        "--save-model",
    ),
    Answer(
        "a run is short, and begins anew by the same command; leave it out",
        "resume resume-from-checkpoint",
        "--save-model",
    ),
    Answer(
        "a run trains, and measures what is held out at its end; leave it out",
        "do-train do-eval do-valid do-predict do-test",
        "--save-model",
    ),
    Answer(
        "results that are there are kept; name another --save",
        "overwrite-output-dir overwrite overwrite-run",
        "--save-model",
    ),
    Answer(
        "all examples of --train-file are trained on; write a file with fewer of them",
        "max-train-samples max-eval-samples max-predict-samples max-val-samples",
        "--save-model",
    ),
    Answer(
        "give --train-samples N, or a file with fewer samples",
        "max-train-samples",
    ),
    Answer(
        "the classes are the labels of --train-file; leave it out",
        "num-labels num-classes nb-classes n-classes label-list labels label-names id2label label2id",
        "--save-model",
    ),
    Answer(
        "--task classification has classes, and --task regression values; give one of these",
        "problem-type is-regression regression output-mode do-regression",
        "--save-model",
    ),
    Answer(
        "every example counts alike in the loss; repeat those of rare classes in --train-file",
        "class-weights class-weight weighted-loss loss-weights balanced-weights pos-weight focal-loss "
        "label-smoothing label-smoothing-factor",
        "--save-model",
    ),
    Answer(
        "the tokenizer of the checkpoint says it; leave it out",
        "do-lower-case lowercase uncased use-fast-tokenizer use-fast",
        "--save-model",
    ),
    Answer(
        "--global-batch-size is accumulated over micro-batches of --micro-batch-size; give these",
        "gradient-accumulation-steps",
        "--save-model",
    ),
    Answer(
        "examples are measured in batches of --micro-batch-size; leave it out",
        "eval-micro-batch-size per-device-eval-batch-size eval-batch-size",
        "--save-model",
    ),
    Answer(
        "line ends are kept as they stand; leave it out",
        "keep-linebreaks line-by-line",
        "--cache",
    ),
    Answer(
        "every held-out token is told once, in blocks of --seq-length; leave it out",
        "stride overlapping-eval",
        "--cache",
    ),
    Answer(
        "the tokens of a text are made once and kept in --cache; leave it out",
        "preprocessing-num-workers preprocessing-only streaming low-cpu-mem-usage overwrite-cache",
        "--cache",
    ),
    Answer(
        "the text of a .jsonl line is under text; call it so",
        "text-column text-column-name text-key text-field json-key",
        "--cache",
    ),
    Answer(
        "the model is that of --load; leave it out",
        "model-type config-overrides",
        "--cache",
    ),
    Answer(
        "--train-file and --valid-file name texts of this machine; give these",
        "dataset-config-name dataset-config",
    ),
    Answer(
        "a class is a folder of --data-path, and its number the place of its name in order; leave it out",
        "class-map class-to-idx class-names",
        "--img-flip",
    ),
    Answer(
        "--img-crop-scale 1 and --img-flip 0 train on images as validation sees them",
        "no-aug no-augmentation",
    ),
    Answer(
        "give --num-channels 1",
        "grayscale gray greyscale to-gray",
    ),
    Answer(
        "the loss is cross-entropy, with --label-smoothing; every image counts alike",
        "bce-loss jsd-loss class-weights class-weight weighted-loss focal-loss",
        "--img-flip",
    ),
    Answer(
        "accuracies of the likeliest class and of the five likeliest are told; leave it out",
        "eval-metric",
        "--img-flip",
    ),
    Answer(
        "the head reads [CLS]; leave it out",
        "gp global-pool pool pooling",
        "--img-flip",
    ),
    Answer(
        "a shape is given by --num-layers, --hidden-size, --num-attention-heads and their fellows, a "
        "checkpoint by --load",
        "model model-name model.name model.flavor flavor model-config model-arch arch model-type "
        "base-model bert-config-file model-size config-overrides overrides-of-model-config model-kwargs "
        "model-tag transformer-block-type block-type model-init-kwargs base-model-config",
    ),
    Answer(
        "a run's length is --train-tokens; a batch has --micro-batch-size times --seq-length tokens",
        "max-tokens",
    ),
    Answer(
        "dropout is given by --hidden-dropout and --attention-dropout, and stands nowhere else",
        "dropout drop attn-drop no-dropout disable-dropout activation-dropout relu-dropout ffn-dropout",
    ),
    Answer(
        "give --bf16 or --fp16, or none of them for fp32",
        "fp8 float8 transformer-engine use-transformer-engine recipe-name mixed-precision-reduce dtype "
        "precision mixed-precision torch-dtype amp use-amp amp-dtype amp-impl model-dtype training-dtype "
        "mixed-precision-param param-dtype autocast half-precision-backend fp16-backend fp16-opt-level "
        "fp16-full-eval bf16-full-eval memory-efficient-fp16 memory-efficient-bf16 megatron-amp-o2 "
        "communication-data-type downcast-bf16",
    ),
)
