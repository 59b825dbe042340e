"""Slipway: one neural network in, the best measured artifact for every target out.

The rooms, from the top: `cli` speaks to people; `planning`, `registry`, `reporting` decide, keep
and explain; `compression`, `conversion`, `profiling` transform and measure; `data`, `nets`,
`training` make the teacher; `preprocessing`, `targets`, `runtimes` also run on devices; `errors`,
`files`, `params`, `manifest`, `measurement` are the plain objects in which they all meet. Imports
only point downward.
"""
