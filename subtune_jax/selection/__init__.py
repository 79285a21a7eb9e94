"""From scores to masks: the algebra of masks, and choices with exact counts.

Public as `st.masks`, `st.choose`, `st.structured`, `st.coupled`, `st.stability`;
`top_k` and its two siblings find the largest elements exactly: in plain arrays, by
column, inside a compiled program. `reach` is the leaves that a method may train,
`stages` what two dynamic methods share.
"""
