"""Files of weights, read without running code, and trees filled from them.

`weight_files.read` and `fill` are for any network; `vit_files`, `resnet_files` and
`bert_files` know the names that other libraries give to ours.
"""
