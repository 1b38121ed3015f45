"""The library's main functions, by what they do: train, load what a run holds, measure it."""
