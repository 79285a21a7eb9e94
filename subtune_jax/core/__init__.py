"""What every wing stands on: the contracts of plug-ins, trees, devices, programs.

`contracts` (Task, Backbone, Variables), `method` (Selector, Evidence, Selection),
`registry` (plug-ins by name), `trees` (leaves by path, and some of their elements),
`devices`, `jaxprs`, `flops`, `losses`, `process`. Imports nothing of ours.
"""
