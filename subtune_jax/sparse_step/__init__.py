"""Gradients of selected elements alone (public as `st.sparse`).

`selected` is the public part; `interpreter` walks the traced loss by its rules,
`operations` are the products whose weight gradient is sampled by `products`.
"""
