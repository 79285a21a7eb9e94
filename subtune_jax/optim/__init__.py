"""Updates of the selection alone, as optax transformations.

`masked_updates` and `dynamic_updates` are public (`st.masked`, `st.compact`,
`st.moving_masked`); `optimizer` makes one by name; `partition` says which leaves are
whole, partial or frozen; `dynamic_mask`, `moments`, `additive` are parts of a step.
"""
