"""A virtual environment with a stand-in for lmms-eval 0.7.3: its command line, its output files and
its habits (it ends with status 0 where it failed), without a model.
"""

import sys
import venv
from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: lmms_eval\nVersion: 0.7.3\n"

MAIN = """
import argparse, json, os, sys, time, traceback
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("--model", "--model_args", "--tasks", "--batch_size", "--output_path"):
    parser.add_argument(name)
parser.add_argument("--limit", type=int)
args = parser.parse_args()
print("Evaluation tracker args:", dict(os.environ))
token = Path(os.environ.get("HF_TOKEN_PATH", Path(os.environ.get("HF_HOME", "~"), "token")))
print("Token:", token.read_text() if token.exists() else "")

def fail():
    raise ValueError("Tasks not found: " + args.tasks)

if args.tasks == "nothing":
    try:
        fail()
    except Exception:
        traceback.print_exc()
    sys.exit(0)
if args.tasks == "killed":
    sys.exit(9)
if args.tasks == "hangs":
    time.sleep(600)

arguments = dict(each.split("=") for each in args.model_args.split(","))
model = Path(arguments["pretrained"])
assert (model / "config.json").exists(), model
size = 9000
results = {
    "results": {
        "pope": {
            "alias": "pope", "samples": size, " ": " ",
            "pope_accuracy,none": 0.875, "pope_accuracy_stderr,none": 0.0035,
            "pope_accuracy_stderr_clt,none": 0.0034,
            "pope_f1_score,none": 0.86, "pope_f1_score_stderr,none": "N/A",
            "pope_yes_ratio,none": 0.5, "pope_yes_ratio_stderr,none": "N/A",
        },
        "amber_g": {
            "alias": "amber_g", "amber_cog,none": 0.04, "amber_cog_stderr,none": "N/A",
            "amber_chair,none": float("nan"), "amber_chair_stderr,none": "N/A",
        },
    },
    "group_subtasks": {"pope": [], "amber_g": []},
    "configs": {
        "pope": {
            "task": "pope", "dataset_path": "lmms-lab-encoder/POPE",
            "generation_kwargs": {"max_new_tokens": 128, "temperature": 0, "until": ["\\n\\n"]},
            "lmms_eval_specific_kwargs": {
                "pre_prompt": "", "post_prompt": "\\nAnswer with a single word."
            },
        },
        "amber_g": {"task": "amber_g", "dataset_kwargs": {"trust_remote_code": True}},
    },
    "versions": {"pope": "Yaml", "amber_g": "Yaml"},
    "n-shot": {"pope": 0, "amber_g": 0},
    "higher_is_better": {
        "pope": {"pope_accuracy": True, "pope_f1_score": True, "pope_yes_ratio": True},
        "amber_g": {"amber_cog": True, "amber_chair": False},
    },
    "n-samples": {
        "pope": {"original": size, "effective": args.limit or size},
        "amber_g": {"original": 1004, "effective": args.limit or 1004},
    },
    "config": {
        "model": args.model, "model_args": args.model_args, "batch_size": args.batch_size,
        "batch_sizes": [], "limit": args.limit, "random_seed": 0,
    },
    "git_hash": "unknown", "lmms_eval_version": "0.7.3", "date": "20261130_040000",
    "model_name": arguments["pretrained"], "total_evaluation_time_seconds": "1.5",
    "offline": os.environ.get("HF_HUB_OFFLINE"),
}
folder = Path(args.output_path) / "policy"
folder.mkdir(parents=True)
(folder / "20261130_040000_results.json").write_text(json.dumps(results, indent=2))
"""


def make_environment(folder: Path, *, with_lmms_eval: bool = True) -> Path:
    """The environment's interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    if with_lmms_eval:
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = folder / "lib" / python / "site-packages"
        (packages / "lmms_eval").mkdir()
        (packages / "lmms_eval/__init__.py").write_text("")
        (packages / "lmms_eval/__main__.py").write_text(MAIN)
        (packages / "lmms_eval-0.7.3.dist-info").mkdir()
        (packages / "lmms_eval-0.7.3.dist-info/METADATA").write_text(METADATA)
    return folder / "bin" / "python"
