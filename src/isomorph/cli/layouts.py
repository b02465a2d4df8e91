"""`isomorph layouts [FAMILY[/LAYOUT] [FAMILY/LAYOUT]]`."""

from __future__ import annotations

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.options import output_options


@click.command("layouts")
@click.argument("names", nargs=-1, metavar="[FAMILY[/LAYOUT] [FAMILY/LAYOUT]]")
@click.option("--keys", is_flag=True, help="The layout's key set, without a file.")
@click.option("--set", "settings", multiple=True, metavar="AXIS=N,…", help="With --keys: sizes (layers=24,width=512).")
@click.option("--with", "with_", multiple=True, metavar="PART", help="With --keys: also this part (a head, buffers).")
@click.option("--without", multiple=True, metavar="PART", help="With --keys: not this part.")
@click.option("--markdown", is_flag=True, help="The whole catalogue as a page.")
@output_options
def command(
    names: tuple[str, ...],
    keys: bool,
    settings: tuple[str, ...],
    with_: tuple[str, ...],
    without: tuple[str, ...],
    markdown: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """The catalogue: families; the layouts of one, and how exact each is; a layout's text; the text from one to another.

    \b
    Example:  isomorph layouts
              isomorph layouts clip
              isomorph layouts clip/openai clip/hf
              isomorph layouts clip/openai --keys --set vision_layers=12
              isomorph layouts splice
    """
    from isomorph.describe import catalogue as pages
    from isomorph.describe.summary import key_lines
    from isomorph.job.config import parse_setting
    from isomorph.layouts.catalogue import SPLICES, families, find, hub, layouts, splices

    if (settings or with_ or without) and not keys:
        raise click.UsageError("--set, --with and --without go with --keys")
    if len(names) > 2 or (keys and len(names) != 1):
        raise click.UsageError("one layout for --keys, and two at most:  isomorph layouts FAMILY/LAYOUT FAMILY/LAYOUT")
    if markdown:
        if names or keys or as_json:
            raise click.UsageError("--markdown is the whole catalogue, and goes alone")
        print_lines(pages.markdown())
        return
    if not names:
        if as_json:
            print_json({name: [str(one) for one in layouts(name)] for name in families()})
        elif not quiet:
            print_lines(pages.family_lines())
        return
    if len(names) == 1 and not keys and names[0] == SPLICES:
        if as_json:
            print_json({str(one): {"title": one.header.title, "inputs": one.header.inputs} for one in splices()})
        elif not quiet:
            print_lines(pages.splice_table())
        return
    named = next((one for one in splices() if [str(one)] == list(names) and not keys), None)
    if named is not None:
        if as_json:
            print_json({"splice": str(named), "inputs": named.header.inputs, "morph": named.text})
        elif not quiet:
            print_lines(named.text.rstrip("\n").split("\n"))
        return
    if len(names) == 1 and not keys and names[0] in families():
        if as_json:
            print_json({str(one): _facts(one) for one in layouts(names[0])})
        elif not quiet:
            print_lines(pages.layout_table(names[0]))
        return
    first = hub(names[0]) if names[0] in families() else find(names[0])
    if keys:
        each = [one for text in settings for one in text.split(",")]
        sizes = {key: int(value) for key, value in map(parse_setting, each)}
        found = pages.key_set(first, sizes, without, with_)
        if as_json:
            print_json({name: list(spec.shape) for name, spec in found.items()})
        elif not quiet:
            print_lines([pages.key_head(first, found, sizes), *key_lines(found)])
        return
    text = first.text if len(names) == 1 else pages.text_between(first, find(names[1], within=first.family.name))
    if as_json:
        print_json({"layouts": [str(find(name, within=first.family.name)) for name in names], "morph": text})
    elif not quiet:
        print_lines(text.rstrip("\n").split("\n"))


def _facts(layout: object) -> dict[str, object]:
    from isomorph.describe.catalogue import exactness
    from isomorph.layouts.catalogue import Layout

    assert isinstance(layout, Layout)
    found = exactness(layout)
    return {
        "title": layout.header.title,
        "sources": list(layout.header.sources),
        "load": layout.header.load,
        "config": dict(layout.header.facts),
        "to_hub": found.forward,
        "from_hub": found.backward,
        "not_carried": list(found.dropped),
        "same_names": dict(layout.header.like),
    }
