"""Options of the `transformers` language-modelling scripts that this program lacks, and their replacements."""

from __future__ import annotations

BUILD = "text becomes shards first: launch/build_shards.py --input FILE --output_dir DIR, then --shards DIR"
BY_REPLACEMENT: dict[str, tuple[str, ...]] = {
    BUILD: ("train_file", "train_data_file", "dataset_name", "dataset_config_name", "text_column_name", "input"),
    "the held-out documents of the shards are the validation set; leave it out": (
        "validation_file",
        "validation_split_percentage",
        "eval_data_file",
        "do_eval",
        "per_device_eval_batch_size",
    ),
    "it always trains; leave it out": ("do_train",),
    "use --mask_rate": ("mlm_probability",),
    "the objective is masked-language modelling; leave it out, or see --objective": ("mlm",),
    "use --budget_tokens, --budget_flops or --budget_hours; one pass over the shards is the default": (
        "num_train_epochs",
        "max_steps",
        "max_train_steps",
    ),
    "use --max_seq_length": ("block_size", "max_length", "max_len"),
    "one document per line is chosen when the shards are built: launch/build_shards.py --document line": (
        "line_by_line",
    ),
    "rows are filled from documents and hold next to no padding; leave it out": (
        "pad_to_max_length",
        "group_by_length",
    ),
    "the tokenizer is that of the shards: launch/build_shards.py --tokenizer DIR": (
        "tokenizer_name",
        "use_fast_tokenizer",
    ),
    "use --model for a named size, --from_config for a configuration": ("model_type", "config_name"),
    "use --global_batch_rows, and --per_device_train_batch_size for a micro-batch": (
        "train_batch_size",
        "batch_size",
        "per_gpu_train_batch_size",
    ),
    "use --warmup_fraction, a share of the smallest budget": ("warmup_steps", "warmup_ratio", "num_warmup_steps"),
    "the rate is constant after the warmup and goes to zero at each budget: --decay, --decay_fraction": (
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
    ),
    "use --learning_rate": ("lr",),
    "use --optimizer": ("optim", "adafactor"),
    "use --bf16 auto, true or false, or --fp16": ("fp16_opt_level", "fp16_backend", "mixed_precision"),
    "the same command resumes the run; --resume_from_checkpoint false, or another --output_dir, starts a new one": (
        "overwrite_output_dir",
    ),
    "use --save_steps or --save_minutes": ("save_strategy", "checkpointing_steps"),
    "checkpoints of the series are evaluated when they are made: --series": (
        "evaluation_strategy",
        "eval_strategy",
        "eval_steps",
    ),
    "every update is in journal.jsonl and in the trackers of --report_to; leave it out": (
        "logging_steps",
        "logging_strategy",
        "logging_first_step",
        "logging_dir",
    ),
    "use --report_to": ("with_tracking",),
    "--seed sets the order of the rows too": ("data_seed",),
    "code that comes with a model is never run": ("trust_remote_code",),
    "every checkpoint is pushed when it is exported; leave it out": ("hub_strategy", "hub_always_push"),
    "the branches are named by the budgets, tokens-1e6; leave it out": ("hub_revision",),
    "the token is read from HF_TOKEN, or `hf auth login`: a command line is seen by others": ("hub_token",),
    "use --push_to_hub with --hub_model_id OWNER/NAME": ("push_to_hub_model_id", "push_to_hub_organization"),
    "CUDA_VISIBLE_DEVICES= hides the GPUs": ("no_cuda", "use_cpu"),
}
REPLACED_OPTIONS = {name: replacement for replacement, names in BY_REPLACEMENT.items() for name in names}
