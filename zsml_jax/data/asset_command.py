"""``python -m zsml_jax.data.assets list|fetch|verify``: the pinned assets from the command line."""

import sys
from typing import Annotated

import tyro

from zsml_jax.data import assets


def main(args: list[str] | None = None) -> None:
    """Runs the command line; an :class:`~zsml_jax.data.assets.AssetError` ends it with status 1 and its message."""
    commands = {"list": _list, "fetch": _fetch, "verify": _verify}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, args=args, prog="python -m zsml_jax.data.assets")
    except assets.AssetError as error:
        sys.exit(f"error: {error}")


def _list() -> None:
    """Shows every asset with its size, its licence and whether it is on this machine."""
    import rich.console
    import rich.table

    table = rich.table.Table(title=f"assets in {assets.cache_dir()}")
    for column in ("name", "version", "MB", "here", "licence", "contents"):
        table.add_column(column, justify="right" if column == "MB" else "left", overflow="fold")
    for name in assets.names():
        asset = assets.describe(name)
        here = "yes" if assets.is_fetched(name) else ""
        megabytes = f"{asset.archive_bytes / 1e6:.1f}"
        table.add_row(name, asset.version, megabytes, here, asset.licence, asset.description)
    rich.console.Console().print(table)


def _fetch(names: Annotated[tuple[str, ...], tyro.conf.Positional], /) -> None:
    """Fetches assets, or all of them where none is named, and prints their folders.

    Args:
        names: names from `list`.
    """
    for name in names or assets.names():
        print(assets.path(name))


def _verify(names: Annotated[tuple[str, ...], tyro.conf.Positional], /) -> None:
    """Hashes every file of the named assets, or of all that are on this machine.

    Args:
        names: names from `list`.
    """
    for name in names or [name for name in assets.names() if assets.is_fetched(name)]:
        assets.verify(name)
        print(f"{name}: every file is as pinned")


if __name__ == "__main__":
    main()
