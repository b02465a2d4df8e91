"""`isomorph check M.morph…`."""

from __future__ import annotations

from pathlib import Path

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.failures import NOT_TOTAL, AnswerIsNo
from isomorph.cli.options import output_options


@click.command("check")
@click.argument("morphs", nargs=-1, required=True, metavar="M.morph…")
@click.option("--set", "settings", multiple=True, metavar="AXIS=N", help="The size of an axis, or config.KEY=VALUE.")
@click.option("--config", metavar="FILE", help="The config that the morph asks.")
@click.option(
    "--like", metavar="TARGET", help="A checkpoint or model: the right sides must name and fit each of its tensors."
)
@click.option("--fmt", is_flag=True, help="Rewrite each file in canonical form; comments stay.")
@output_options
def command(
    morphs: tuple[str, ...],
    settings: tuple[str, ...],
    config: str | None,
    like: str | None,
    fmt: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check each morph alone: read it, pair its blocks, and run it both ways on a made-up checkpoint of prime sizes.

    In that checkpoint every free axis has a size of its own and every element is its own index, so that a wrong rule cannot hide.

    \b
    Example:  isomorph check tower.morph
              isomorph check tower.morph --fmt
    """
    from isomorph.errors import FormatError, Gap, MorphError
    from isomorph.job.likes import like as like_manifest
    from isomorph.job.port import make_port, morph_path
    from isomorph.testing.probe import Probe, probe

    target = None if like is None else like_manifest(like)
    results: list[Probe] = []
    unread: dict[Gap, None] = {}
    no_files: list[FormatError] = []
    for morph in morphs:
        try:
            port = make_port([morph], settings=settings, config=config)
            assert port.morph is not None
            port.morph.check()
            if fmt:
                changed = reformat(morph_path(morph))
                if not quiet and not as_json:
                    print_lines([f"{morph}: {'rewritten' if changed else 'already canonical'}"])
            results.append(probe(port.programs, file=morph, config=port.config, sizes=port.sizes, like=target))
        except FormatError as error:
            no_files.append(error)
        except MorphError as error:
            if error.kinds & NOT_TOTAL:
                unread.update(dict.fromkeys(error.gaps))
            else:
                problems = tuple(f"  {line}" for line in str(error).splitlines())
                results.append(Probe(morph, len(port.programs[0].rules), problems=problems))
    if len(no_files) == 1 and not unread and not results:
        raise no_files[0]
    unread.update((Gap("use", str(error)), None) for error in no_files)
    if as_json and not unread:
        print_json([result.to_json() for result in results])
    elif not quiet and not as_json:
        print_lines(line for result in results for line in result.lines())
    if unread:
        raise MorphError(unread)
    if not all(result.is_right for result in results):
        raise AnswerIsNo


def reformat(path: Path) -> bool:
    """Rewrite a morph file in canonical form; True when that changed it."""
    from isomorph.language.parse import parse
    from isomorph.language.unparse import unparse

    text = path.read_text(encoding="utf-8")
    canonical = unparse(parse(text, str(path)))
    if canonical == text:
        return False
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(canonical, encoding="utf-8")
    temporary.replace(path)
    return True
