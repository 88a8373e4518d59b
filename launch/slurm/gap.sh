#!/bin/bash
# A study from a series to its report: this job plans the cells, an array job runs them, a last job writes the report.
#
#     sbatch launch/slurm/gap.sh                                     # in the project's folder, once the lines are changed
#     sbatch --dependency=afterok:JOB launch/slurm/gap.sh            # once the pretraining job JOB is done
#
# Give the same command again after a failure: finished cells are kept (docs/many-machines.md).
#SBATCH --partition=gpu --gpus-per-node=1             # CHANGE 1: your partition, often also --account=NAME
#SBATCH --job-name=gap --output=%x-%j.log
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=4 --time=4:00:00
#SBATCH --requeue
study=(--series runs/mine/series.json --tasks qa:train.json --output_dir runs/gap)    # CHANGE 2: your study
array=(--slurm_partition gpu --slurm_workers 16 --slurm_gpus 1 --slurm_minutes 240)   # CHANGE 3: the array's tasks

set -u
cd "${SLURM_SUBMIT_DIR:?start this file with sbatch}" || exit 2
source .venv/bin/activate

if [ "${1:-}" = report ]; then # what the array has not finished is run here
    exec python launch/gap.py "${study[@]}"
fi
submitted=$(python launch/gap.py "${study[@]}" "${array[@]}" --executor slurm) || exit
echo "$submitted"
# "submitted: 12_0, 12_1, ...": the tasks of array job 12, or "submitted: 12" for a single one; none when all cells were
# finished before.
job=$(sed -n 's/^submitted: \([0-9][0-9]*\).*/\1/p' <<<"$submitted")
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p')
sbatch ${job:+--dependency=afterany:$job} --job-name=report "$script" report
