"""The hooks of this distribution. Importing them imports no torch."""

from collections.abc import Iterable, Mapping

from curricula.plugins.hookspecs import Record, hookimpl

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""The strengths that are the five severities, at the default budget of 5."""

COMMON: Mapping[str, str] = {
    # Noise.
    "gaussian-noise": "noise:GaussianNoise",
    "shot-noise": "noise:ShotNoise",
    "impulse-noise": "noise:ImpulseNoise",
    # Blur.
    "defocus-blur": "blur:DefocusBlur",
    "glass-blur": "blur:GlassBlur",
    "motion-blur": "blur:MotionBlur",
    "zoom-blur": "blur:ZoomBlur",
    # Weather.
    "snow": "weather:Snow",
    "frost": "weather:Frost",
    "fog": "weather:Fog",
    "brighten": "colour:Brighten",
    # Digital.
    "low-contrast": "colour:LowContrast",
    "elastic-transform": "digital:ElasticTransform",
    "pixelate": "digital:Pixelate",
    "jpeg": "digital:Jpeg",
}
"""The fifteen corruptions of the benchmark in its order: the class of each, by our name."""

EXTRA: Mapping[str, str] = {
    "speckle-noise": "noise:SpeckleNoise",
    "gaussian-blur": "blur:GaussianBlur",
    "spatter": "spatter:Spatter",
    "saturate": "colour:Saturate",
}
"""The four extra corruptions in the benchmark's order, which it keeps for validation."""

SUMMARIES: Mapping[str, str] = {
    "gaussian-noise": "white noise",
    "shot-noise": "Poisson noise of few photons",
    "impulse-noise": "salt and pepper",
    "defocus-blur": "blur by a disc",
    "glass-blur": "pixels exchanged with near ones",
    "motion-blur": "blur along a random direction",
    "zoom-blur": "mean of growing enlargements",
    "snow": "streaks of snow on a whitened image",
    "frost": "a texture of ice",
    "fog": "a fractal veil",
    "brighten": "brighter by its HSV value",
    "low-contrast": "pixels moved towards their channel's mean",
    "elastic-transform": "smooth small displacements",
    "pixelate": "fewer, larger pixels",
    "jpeg": "JPEG artefacts",
    "speckle-noise": "white noise, stronger where it is bright",
    "gaussian-blur": "blur by a Gaussian",
    "spatter": "drops of water, then of mud",
    "saturate": "colours paler, then stronger",
}


@hookimpl
def curricula_perturbations() -> Iterable[Record]:
    for name, place in {**COMMON, **EXTRA}.items():
        yield Record(
            name=name,
            factory=f"curricula_corruptions.{place}",
            summary=f"{SUMMARIES[name]}, severities 1 to 5 (Hendrycks and Dietterich 2019)",
            install="pip install ./plugins/curricula-corruptions in a clone of curricula",
        )


@hookimpl
def curricula_suites() -> Iterable[Record]:
    for name, summary in {
        "corruptions": "the fifteen common corruptions at five severities",
        "extra-corruptions": "the four extra corruptions at five severities",
    }.items():
        yield Record(
            name=name,
            factory=f"curricula_corruptions.suites:{name.replace('-', '_')}",
            summary=f"{summary} (Hendrycks and Dietterich 2019)",
            install="pip install ./plugins/curricula-corruptions in a clone of curricula",
        )
