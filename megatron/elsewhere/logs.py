"""What is said of words of other programs about logs, trackers, progress, profiles and memory, and of
what notebooks add."""

from megatron.elsewhere.answer import Answer

ANSWERS = (
    Answer(
        "a notebook adds it to its own cells: start a command as !python SCRIPT with its flags",
        "f",
    ),
    Answer(
        "wandb reads it from the environment, beside --wandb-project: WANDB_RUN_GROUP, WANDB_TAGS, "
        "WANDB_NOTES, WANDB_JOB_TYPE, WANDB_RUN_ID, WANDB_API_KEY, WANDB_BASE_URL; a run that goes on "
        "joins its own",
        "wandb-group wandb-run-group wandb-tags wandb-notes wandb-job-type wandb-id wandb-run-id "
        "wandb-resume-id wandb-resume wandb-resume-run-id wandb-api-key wandb-key wandb-host "
        "wandb-base-url wandb-token",
    ),
    Answer(
        "scalars of the log are sent, no weights or gradients; leave it out",
        "wandb-watch watch wandb-log-model log-model wandb-log-artifacts log-artifacts",
        "--wandb-project",
    ),
    Answer(
        "what is logged goes to --tensorboard-dir, --wandb-project and, as JSON lines, --metrics-file; "
        "give one of them",
        "tracker trackers with-tracking tracker-project-name metric-logger mlflow use-mlflow "
        "mlflow-tracking-uri mlflow-experiment mlflow-experiment-name mlflow-project mlflow-run-name "
        "comet use-comet comet-project comet-workspace comet-ml neptune use-neptune neptune-project "
        "swanlab use-swanlab swanlab-project trackio trackio-project clearml use-clearml aim csv "
        "csv-monitor log-csv use-csv tensorboard log-tensorboard log-tb use-tb",
    ),
    Answer(
        "nothing is sent to TensorBoard or wandb unless --tensorboard-dir or --wandb-project is given; "
        "leave it out",
        "no-tensorboard disable-tensorboard no-wandb disable-wandb wandb-disabled no-log",
    ),
    Answer(
        "training prints a line every --log-interval steps, without a progress bar; leave it out",
        "disable-tqdm no-tqdm tqdm no-progress-bar disable-progress-bar progress-bar progress show-progress "
        "enable-progress-bar progress-bar-refresh-rate log-to-console",
    ),
    Answer(
        "progress is shown where the output is a terminal; leave it out",
        "disable-tqdm no-tqdm tqdm no-progress-bar disable-progress-bar progress-bar progress "
        "show-progress enable-progress-bar progress-bar-refresh-rate",
    ),
    Answer(
        "what is printed has one level; leave it out",
        "quiet q silent verbose v verbose-logging debug log-level loglevel log-level-replica "
        "logging-level logging-verbosity verbosity",
    ),
    Answer(
        "what is printed goes into a file by 2>&1 | tee FILE, and a JSON record a step by --metrics-file",
        "log-file logfile log-to-file log-path log-filename save-log log-output",
    ),
    Answer(
        "what is printed goes into a file by 2>&1 | tee FILE",
        "log-file logfile log-to-file log-path log-filename save-log log-output",
    ),
    Answer(
        "give --device-peak-tflops, in 10^12 FLOP/s, beside --log-throughput",
        "peak-flops gpu-peak-flops peak-tflops device-flops flops-promised gpu-flops theoretical-flops",
    ),
    Answer(
        "it is logged always, without a flag; leave it out",
        "include-tokens-per-second include-num-input-tokens-seen log-tokens-per-sec log-tokens-per-second "
        "log-tokens log-num-tokens log-samples-per-second logging-first-step log-first-step log-grad-norm "
        "log-gnorm log-lr log-learning-rate log-loss log-validation log-step-time",
        "--log-interval",
    ),
    Answer(
        "the norm of all gradients is logged, and with --log-params-norm that of all weights; leave it out",
        "log-weights log-weight-norm log-param-norms log-layer-norms log-params-std log-gradients "
        "log-params-norm-per-layer log-optimizer-states log-gradient-noise-scale log-histograms "
        "gradient-noise-scale-n-batches gradient-noise-scale-cpu-offload",
    ),
    Answer(
        "--profile records the steps behind --profile-step-start up to --profile-step-end",
        "profile-freq profile-steps profile-interval profile-start profile-stop profile-end profile-begin "
        "profile-every profile-backward",
    ),
    Answer(
        "--profile writes its traces to profile/ in the folder of --save",
        "profile-dir profile-output profiler-output profile-path save-traces-folder trace-dir trace-folder",
    ),
    Answer(
        "the peak is logged behind the second step, and by --log-memory-to-tensorboard in every one; "
        "leave it out",
        "profile-memory memory-profile log-memory log-memory-usage log-gpu-memory log-peak-memory-stats "
        "memory-breakdown report-memory show-memory enable-memory-snapshot memory-snapshot "
        "log-cuda-memory",
    ),
    Answer(
        "--dry-run prints the configuration, the plan and the memory, and starts nothing",
        "show-config print-config print-args dump-config resolve-config estimate-memory memory-estimate plan",
        "--lr",
    ),
    Answer(
        "a run is validated every --eval-interval steps and at its end, and tested at its end; leave it out",
        "eval-before-training eval-at-beginning sanity-check test-interval",
    ),
    Answer(
        "every flag stands under its own name, or in a YAML file of --config",
        "set override overrides hparams override-args config-overrides opts",
    ),
    Answer(
        "other files are named by include: [FILE, FILE]",
        "defaults base-config -base- extends inherits imports",
        "--config",
    ),
    Answer(
        "NO_COLOR=1 in the environment leaves colours out",
        "no-color no-colour disable-color-printing color",
    ),
)
