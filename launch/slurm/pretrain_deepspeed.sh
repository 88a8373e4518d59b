#!/bin/bash
# Pretraining on several nodes with DeepSpeed's launcher (ZeRO), without ssh: one rank on each GPU.
#
#     sbatch launch/slurm/pretrain_deepspeed.sh       # in the project's folder, once the three lines are changed
#
# Before the time limit, and when the job is preempted, the run saves and is queued again under the same job id
# (docs/many-machines.md).
#SBATCH --partition=gpu                               # CHANGE 1: your partition, often also --account=NAME
#SBATCH --nodes=2 --gpus-per-node=8 --time=24:00:00   # CHANGE 2: nodes, GPUs of a node, time limit
#SBATCH --job-name=pretrain --output=%x-%j.log --open-mode=append
#SBATCH --ntasks-per-node=1 --exclusive
#SBATCH --requeue --signal=B:TERM@300
output_dir=runs/mine run=(--shards shards/mine --model modernbert-base --budget_tokens 1e10)  # CHANGE 3: your run

set -u
cd "${SLURM_SUBMIT_DIR:?start this file with sbatch}" || exit 2
source .venv/bin/activate
source launch/slurm/requeue.sh
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
mkdir -p "$output_dir"
scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/ slots=${SLURM_GPUS_ON_NODE:-1}/" >"$output_dir/hostfile"

# The launcher's front end has no handler for SIGTERM: it would end, and srun with it, while the ranks still save. So it
# ignores the signal and waits for them.
# shellcheck disable=SC2016  # the variable is each node's
run_and_requeue "$output_dir" srun --kill-on-bad-exit=0 bash -c \
    'trap "" TERM && exec deepspeed --no_ssh --node_rank "$SLURM_NODEID" "$@"' node \
    --hostfile "$output_dir/hostfile" --master_addr "$first" --master_port "$((20000 + SLURM_JOB_ID % 10000))" \
    launch/pretrain.py --deepspeed ds_configs/zero2.json "${run[@]}" --output_dir "$output_dir"
