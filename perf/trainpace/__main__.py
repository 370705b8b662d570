"""`python -m trainpace ...`: what is no test run. Thin: each command calls one function of a room."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m trainpace", description="What is no test run.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_init(commands)
    comment = commands.add_parser("comment", help="show a report (--perf-report) in a comment of a pull request")
    comment.add_argument("folder", type=Path, help="the report's")
    comment.add_argument("--pull-request", type=int, required=True, metavar="NUMBER")
    comment.add_argument("--name", default="gate", help="of the comment: one each for several gates (default: gate)")
    comment.add_argument(
        "--author",
        default="github-actions[bot]",
        metavar="LOGIN",
        help="whom GITHUB_TOKEN belongs to (default: github-actions[bot])",
    )
    comment.add_argument(
        "--job",
        default="",
        choices=["success", "failure", "cancelled"],
        help="the result of the job that measured: results that say otherwise are called a contradiction",
    )
    comment.set_defaults(run=_comment)
    bisect = commands.add_parser(
        "bisect",
        help="which commit made a case slower: each measured beside GOOD, in pairs",
        epilog="Behind -- stand pytest's own tests and options: bisect v1 main -k bigram -- perf --perf-max-pairs 6",
    )
    bisect.add_argument("good", metavar="GOOD", help="a revision that was fast enough")
    bisect.add_argument("bad", metavar="BAD", help="a later revision that is slower")
    bisect.add_argument("-k", dest="cases", required=True, metavar="CASE", help="which cases, as for pytest -k")
    bisect.set_defaults(run=_bisect)
    # What `git bisect run` calls for each commit: not for people, and not in --help.
    commands.add_parser("bisect-step").set_defaults(run=_bisect_step)
    history = commands.add_parser("history", help="the trend of recorded runs (--perf-runs), and what moved it")
    history.add_argument("folder", type=Path, help="the runs'")
    history.add_argument("--check", action="store_true", help="exit with 1 where a case is below its best level")
    history.add_argument("--report", type=Path, metavar="DIR", help="write history.html into DIR")
    history.add_argument(
        "--since",
        action="append",
        default=[],
        metavar="[CASE=]WHEN",
        help="a date or a revision that the history begins with: what was lost before it is accepted",
    )
    history.set_defaults(run=_history)
    _add_predict(commands)
    counting = commands.add_parser("count", help="count the rows of a table, for its predictions")
    counting.add_argument("table", help="its name, or the path of its .csv file")
    counting.set_defaults(run=_count)
    published = commands.add_parser("published", help="a published table: its figures checked, its charts drawn")
    published.add_argument(
        "table",
        nargs="?",
        metavar="TABLE",
        help="llm-foundry, torchtitan, xtuner, or the path of a .csv (default: the 14 rows that `pytest perf` runs)",
    )
    published.add_argument("--report", type=Path, metavar="DIR", help="write table, charts and page into DIR")
    published.set_defaults(run=_published)
    commands.add_parser("schema", help="print the JSON schema of results.json").set_defaults(run=_schema)
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:own])
    options.pytest = given[own + 1 :]
    if options.pytest and options.run is not _bisect:
        parser.error("nothing may stand behind -- but the options of bisect's pytest")
    return int(options.run(options))


def _add_init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from trainpace.app.stubs import TRAINERS

    init = commands.add_parser(
        "init",
        help="begin in your repository: a case, a trainer to fill in, the workflow of the gate",
        description="Write a first case, a trainer to fill in, pytest.ini and the workflow of the gate into the git "
        "repository around this folder, and measure the case once. What is there is left as it is.",
    )
    init.add_argument("--name", help="of the case (default: the name of the repository's folder)")
    init.add_argument(
        "--adapter",
        choices=list(TRAINERS),
        help="what the trainer is written for; none: four methods (default: by what the repository imports)",
    )
    init.add_argument("--trainer", metavar="MODULE:NAME", help="a trainer that is there (default: one is written)")
    init.add_argument("--dry-run", action="store_true", help="print what would be written, write and run nothing")
    init.add_argument("--no-run", action="store_true", help="do not measure the case")
    init.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> int:
    from trainpace.app.init import init
    from trainpace.errors import UsageError

    try:
        return init(
            Path.cwd(),
            name=options.name,
            adapter=options.adapter,
            trainer=options.trainer,
            dry_run=options.dry_run,
            run=not options.no_run,
            say=lambda line: print(line, flush=True),
        )
    except UsageError as error:
        print(error, file=sys.stderr)
        return 4


def _comment(options: argparse.Namespace) -> int:
    from trainpace.app.github_client import GitHubError, comment_on

    try:
        name, author, job = options.name, options.author, options.job
        print(comment_on(options.pull_request, options.folder, name=name, author=author, job=job))
    except GitHubError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _bisect(options: argparse.Namespace) -> int:
    from trainpace.app.bisect import bisect
    from trainpace.errors import UsageError

    given = options.pytest if any(not each.startswith("-") for each in options.pytest) else ["perf", *options.pytest]
    try:
        return bisect(options.good, options.bad, [*given, "-k", options.cases], here=Path.cwd())
    except UsageError as error:
        print(error, file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("bisect: interrupted; nothing is left of it", file=sys.stderr)
        return 130


def _bisect_step(_: argparse.Namespace) -> int:
    from trainpace.app.bisect import step

    return step()


def _history(options: argparse.Namespace) -> int:
    from trainpace.app.printing import width
    from trainpace.app.revisions import remote_of
    from trainpace.errors import FileError
    from trainpace.report.console import on_terminal
    from trainpace.report.history import Web, judge, lines
    from trainpace.store.history_index import read_summaries
    from trainpace.store.reports import write_history

    try:
        judged = judge(read_summaries(options.folder), since=options.since)
        remote = remote_of(Path.cwd())
        web = Web.of_remote(remote) if remote else None
        if options.report:
            write_history(judged, options.report, web)
    except FileError as error:
        print(error, file=sys.stderr)
        return 4
    print("\n".join(on_terminal(lines(judged, web), width())))
    return int(options.check and any(series.lost for series in judged))


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = commands.add_parser(
        "predict",
        help="floor and predicted speed on a device: of every published case, or of your model",
        description="Floor, predicted speed and peak memory on a device, from counted costs and published tables "
        "(docs/prediction.md). Without --model: every case of the published table.",
    )
    predict.add_argument("device", help="h100-sxm5-80gb, say, or as much of it as no other begins with")
    predict.add_argument("--model", metavar="CONFIG", help="the path of a config.json, or the name of a known model")
    predict.add_argument("--sequence", default="8k", metavar="LENGTH", help="tokens: 8k, 1m, 5000 (default: 8k)")
    predict.add_argument("--gpus", type=int, default=8, metavar="N", help="all GPUs (default: 8)")
    predict.add_argument("--micro-batch", type=int, default=1, metavar="N", help="sequences a step (default: 1)")
    predict.add_argument("--accumulation", type=int, default=1, metavar="N", help="micro-steps an update (default: 1)")
    predict.add_argument("--sp", type=int, default=1, metavar="N", help="GPUs that share a sequence (default: 1)")
    predict.add_argument(
        "--recompute",
        default="full",
        choices=["full", "selective_op", "selective_layer", "none"],
        help="what a layer makes again in its backward (default: full)",
    )
    predict.add_argument("--sharding", default="full", choices=["full", "zero2"], help="(default: full)")
    predict.add_argument("--engine", default="fsdp2", choices=["fsdp2", "deepspeed"], help="(default: fsdp2)")
    predict.add_argument("--table", metavar="TABLE", help="learn from the rows of this table alone: as its stack would")
    predict.add_argument("--network", type=float, metavar="GB/S", help="between nodes, what a GPU gets, one direction")
    predict.add_argument(
        "--sweep", action="store_true", help="every micro-batch, recompute, sp and sharding: those that fit"
    )
    predict.add_argument("--errors", action="store_true", help="how far off each table's left-out rows are")
    predict.add_argument(
        "--report", type=Path, metavar="DIR", help="write prediction.html into DIR: predicted against published rows"
    )
    predict.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    from trainpace.app.printing import width
    from trainpace.cost.predict import check_network, forecasts, learnt
    from trainpace.errors import SuiteError
    from trainpace.report import predict as report
    from trainpace.store.reports import write_prediction

    network = None if options.network is None else 1e9 * options.network
    try:
        check_network(network)
        if options.report:
            write_prediction(learnt(), options.report)
        if options.errors:
            print(report.render_errors(learnt(), width=width()), end="")
        elif options.model is None:
            found = forecasts(options.device, table=options.table, network=network)
            print(report.render(found, width=width()), end="")
        else:
            print(_of_model(options, network), end="")
    except (SuiteError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _of_model(options: argparse.Namespace, network: float | None) -> str:
    from trainpace.app import prediction
    from trainpace.app.printing import width
    from trainpace.report import predict as report

    case = prediction.case_of(
        options.model,
        sequence=options.sequence,
        gpus=options.gpus,
        micro_batch=options.micro_batch,
        accumulation=options.accumulation,
        sp=options.sp,
        recompute=options.recompute,
        sharding=options.sharding,
    )
    chosen = {"engine": options.engine, "table": options.table, "network": network}
    if options.sweep:
        return report.render_sweep(prediction.sweep_case(case, options.device, **chosen), width=width())
    return report.render_one(prediction.predict_case(case, options.device, **chosen))


def _count(options: argparse.Namespace) -> int:
    from trainpace.app.prediction import count_table, counted_rows
    from trainpace.errors import SuiteError

    try:
        path = count_table(options.table)
    except SuiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}: {counted_rows(options.table)} counted rows")
    return 0


def _published(options: argparse.Namespace) -> int:
    from trainpace.app.printing import width
    from trainpace.cost.predict import published_table
    from trainpace.errors import FileError
    from trainpace.report.published import render
    from trainpace.store.reports import write_published

    try:
        if options.table is not None:
            return _table(options)
        found = published_table()
        if options.report:
            write_published(found, options.report)
    except FileError as error:
        print(error, file=sys.stderr)
        return 4
    print(render(found, width=width()), end="")
    return 0


def _table(options: argparse.Namespace) -> int:
    from trainpace.app.printing import width
    from trainpace.cost.predict import expected
    from trainpace.judge.tables import examine
    from trainpace.report import tables
    from trainpace.store.reports import write_table
    from trainpace.store.tables import load_table

    table = load_table(options.table)
    report = tables.Report(table, examine(table, expected(options.table)))
    if options.report:
        write_table(report, options.report)
    print(tables.render(report, width=width()), end="")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from trainpace.report.record import schema_text

    print(schema_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
