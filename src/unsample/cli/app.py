"""The Typer app: the verbs in the order in which they are used, and the global options."""

from __future__ import annotations

from typing import Annotated

import typer

from unsample.cli import (
    bench,
    compare,
    datasets,
    doctor,
    edit,
    interpolate,
    invert,
    measure,
    methods,
    metrics,
    models,
    plan,
    reconstruct,
    report,
    sample,
    serve,
    show,
    study,
    train_inverse,
)
from unsample.cli.options import examples
from unsample.registry import use_plugins

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "unsample sample --prompt 'a large red circle' -o scene.png",
        "unsample edit scene.png --target-prompt 'a large blue circle' -o blue.png",
    ),
)
for verb in (
    invert,
    reconstruct,
    edit,
    interpolate,
    sample,
    compare,
    show,
    measure,
    metrics,
    datasets,
    bench,
    report,
    study,
    train_inverse,
    serve,
    methods,
    models,
    plan,
    doctor,
):
    verb.add_to(app)


@app.callback(invoke_without_command=True)
def unsample(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and every library's warnings.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="A script or module that registers methods, editors or metrics; before the verb, and may be repeated.",
            show_default="those of $UNSAMPLE_PLUGINS",
        ),
    ] = None,
) -> int:
    """Diffusion inversion: recover the noise from which a model makes a picture;
    reconstruct, edit, interpolate.

    Exit codes: 0 done, 1 unexpected error, 2 wrong option, 3 model not found,
    4 bad file (in or out), 5 diverged, 6 out of memory, 130 interrupted.
    """
    from unsample import __version__

    if version:
        typer.echo(f"unsample {__version__}")
        raise typer.Exit(0)
    if plugin:
        use_plugins(plugin)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return 0
