"""Options of the `transformers` scripts and of other recipes that a recipe lacks, and their replacements."""

from __future__ import annotations

from finetuning.run.option_checks import RECIPES, options_class
from runtime.options.declaration import declarations

BY_REPLACEMENT: dict[str, tuple[str, ...]] = {
    "a run trains unless --num_train_epochs is 0; leave it out": ("do_train",),
    "the validation set is always scored, --num_train_epochs 0 only evaluates; leave it out": ("do_eval",),
    "a test set is always predicted, name it with --test_file; leave it out": ("do_predict",),
    "the same command continues or reads what is there, --resume_from_checkpoint false drops it": (
        "overwrite_output_dir",
        "ignore_data_skip",
        "no_resume_from_checkpoint",
    ),
    "use --save_steps N; an epoch's end is always saved, and the newest state kept": (
        "checkpointing_steps",
        "save_strategy",
        "save_total_limit",
        "save_only_model",
    ),
    "the validation set is scored after every epoch; leave it out": (
        "evaluation_strategy",
        "eval_strategy",
        "eval_steps",
        "eval_delay",
        "eval_on_start",
        "evaluate_during_training",
    ),
    "the best epoch's weights are always kept and scored; leave it out": (
        "load_best_model_at_end",
        "greater_is_better",
    ),
    "the task's own metric picks the best epoch; classification.py has --selection_metric": (
        "metric_for_best_model",
        "metric_name",
    ),
    "use --bf16 auto, true or false; there is no loss scaling for fp16": (
        "fp16",
        "fp16_opt_level",
        "fp16_backend",
        "fp16_full_eval",
        "bf16_full_eval",
        "half_precision_backend",
        "mixed_precision",
    ),
    "the classes are counted in the training set; leave it out": ("num_labels", "label_list", "num_classes"),
    "STS-B is a regression and all other tasks have classes; leave it out": (
        "do_regression",
        "is_regression",
        "problem_type",
    ),
    "every update is in journal.jsonl and in the trackers of --report_to; leave it out": (
        "logging_steps",
        "logging_strategy",
        "logging_first_step",
        "logging_dir",
        "log_level",
        "disable_tqdm",
    ),
    "use --report_to": ("with_tracking", "run_name"),
    "use --warmup_ratio, a share of the updates": ("warmup_steps", "num_warmup_steps", "warmup_proportion"),
    "use --max_steps": ("max_train_steps", "num_train_steps"),
    "use --max_seq_length": ("max_length", "max_len", "model_max_length", "block_size"),
    "rows are padded to the longest of their batch; leave it out": ("pad_to_max_length",),
    "rows of similar length always go together; leave it out": ("group_by_length", "length_column_name"),
    "use --max_eval_samples, for the validation and the test set": (
        "max_val_samples",
        "max_predict_samples",
        "max_test_samples",
    ),
    "use --test_file": ("predict_file",),
    "prediction.csv (predictions.csv, where texts are classified) is written to --output_dir; leave it out": (
        "prediction_csv_dir",
        "prediction_csv",
        "prediction_path",
        "prediction_file",
        "output_file",
        "output_csv",
        "pred_file",
    ),
    "use --per_device_train_batch_size, or --global_batch_rows for that of an update": (
        "per_gpu_train_batch_size",
        "train_batch_size",
        "batch_size",
    ),
    "use --per_device_eval_batch_size": ("per_gpu_eval_batch_size", "eval_batch_size", "eval_accumulation_steps"),
    "use --learning_rate": ("lr",),
    "use --label_smoothing (glue.py and classification.py)": ("label_smoothing_factor",),
    "use --version_2_with_negative (qa.py and multiple_choice.py)": ("version_2",),
    "use --tag_column (token_classification.py); the words are in the column tokens or words": (
        "text_column_name",
        "label_column_name",
    ),
    "only the first token of a word has a label; leave it out": ("label_all_tokens",),
    "precision, recall and F1 are those over all entities; leave it out": ("return_entity_level_metrics",),
    "the optimizer is AdamW with betas 0.9 and 0.999 and epsilon 1e-8; leave it out": (
        "optim",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "adafactor",
    ),
    "the tokenizer and the configuration are those in --model_name_or_path": (
        "tokenizer_name",
        "config_name",
        "model_type",
        "use_fast_tokenizer",
        "do_lower_case",
        "ignore_mismatched_sizes",
    ),
    "the hub's own settings are used: HF_HOME, HF_TOKEN; for a revision, name a directory downloaded before": (
        "cache_dir",
        "token",
        "use_auth_token",
        "model_revision",
    ),
    "code that comes with a model or a data set is never run": ("trust_remote_code",),
    "the best model is pushed when the run is done; leave it out": ("hub_strategy", "hub_always_push"),
    "the branch is main, and with --seeds seed-N as well; leave it out": ("hub_revision",),
    "the token is read from HF_TOKEN, or `hf auth login`: a command line is seen by others": ("hub_token",),
    "use --push_to_hub with --hub_model_id OWNER/NAME": ("push_to_hub_model_id", "push_to_hub_organization"),
    "the rows are encoded once, when the run starts, and stay in memory; leave it out": (
        "overwrite_cache",
        "preprocessing_num_workers",
        "dataloader_num_workers",
        "dataloader_drop_last",
        "dataloader_pin_memory",
        "remove_unused_columns",
    ),
    "--seed sets the order of the rows too": ("data_seed", "shuffle_seed", "shuffle_train_dataset"),
    "CUDA_VISIBLE_DEVICES= hides the GPUs": ("no_cuda", "use_cpu", "n_gpu"),
}
REPLACED_OPTIONS = {name: replacement for replacement, names in BY_REPLACEMENT.items() for name in names}


def replaced_option(name: str) -> str | None:
    """The replacement of an option that the given recipe lacks; None for an unknown name."""
    if name in REPLACED_OPTIONS:
        return REPLACED_OPTIONS[name]
    recipes = [recipe for recipe in RECIPES if name in declarations(options_class(recipe))]
    return f"it is one of {' and '.join(f'{recipe}.py' for recipe in recipes)}" if recipes else None
