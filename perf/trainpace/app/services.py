"""A session's speed cases to Weights & Biases and MLflow, where they are installed: a run of theirs for each case.

Where they keep it, and as whom, stands in their own variables (WANDB_MODE, WANDB_API_KEY, MLFLOW_TRACKING_URI). Figures
become metrics, what a case is and what was said of it becomes config or tags. An invalid case has no metric.
"""

from collections.abc import Callable, Mapping

from trainpace.errors import FileError
from trainpace.report.exports import facts, figures, name
from trainpace.report.record import Results

SECONDS = 60
"""A person who is asked for a key gets this long; in CI nobody answers."""


def to_wandb(results: Results, project: str) -> None:
    """A run for each case in a project of Weights & Biases; facts are its config, figures its summary.

    Raises:
        FileError: with what the library said.
    """
    import wandb

    settings = wandb.Settings(login_timeout=SECONDS, console="off", silent=True)
    try:
        for case in results.cases:
            told = facts(case)
            with wandb.init(
                project=project,
                name=name(case),
                group=told["commit"] or None,
                job_type="trainpace",
                tags=[told["verdict"]],
                config={**told, "reasons": list(case.reasons)},
                settings=settings,
            ) as run:
                if known := figures(case):
                    run.log(known)
    except (wandb.Error, OSError) as error:
        raise FileError(f"wandb, project {project}: {error}") from None


def to_mlflow(results: Results, experiment: str) -> None:
    """A run for each case in an experiment of MLflow, which is made where there is none; facts are its tags.

    Raises:
        FileError: with what the library said.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient()
        there = client.get_experiment_by_name(experiment)
        place = there.experiment_id if there else client.create_experiment(experiment)
        for case in results.cases:
            told = facts(case)
            tags = {f"trainpace.{key}": value for key, value in told.items() if value}
            tags |= {"trainpace.reasons": "; ".join(case.reasons)} if case.reasons else {}
            tags |= {"mlflow.source.git.commit": told["commit"]} if told["commit"] else {}
            run = client.create_run(place, run_name=name(case), tags=tags).info.run_id
            for figure, value in figures(case).items():
                client.log_metric(run, figure, value)
            client.set_terminated(run)
    except (MlflowException, OSError) as error:
        raise FileError(f"mlflow, experiment {experiment}: {error}") from None


SEND: Mapping[str, Callable[[Results, str], None]] = {"mlflow": to_mlflow, "wandb": to_wandb}
"""By the name that --perf-export knows them by."""
