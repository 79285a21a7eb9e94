"""Many deltas of one base, answered by one compiled program.

`multitask` is public (`st.multitask`); `stacks` holds the variants of each leaf,
`layouts` and `server_program` compile the trunk and the blocks of each task; `answers`
runs them.
"""
