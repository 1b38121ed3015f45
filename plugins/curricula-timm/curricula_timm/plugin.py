"""The records of this distribution; imports neither torch nor timm."""

from collections.abc import Iterable

from curricula.plugins.hookspecs import Record, hookimpl


@hookimpl
def curricula_models() -> Iterable[Record]:
    yield Record(
        name="timm",
        factory="curricula_timm.networks:classifier",
        summary="any classifier of timm, untrained or pretrained: timm(resnet18)",
        choices="curricula_timm.names:names",
        install="pip install ./plugins/curricula-timm in a clone of curricula",
    )
