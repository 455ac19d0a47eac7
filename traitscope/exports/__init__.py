"""Exports: a run in other formats.  docs/exports.md says what is in each.

`flat.py` (csv, jsonl, npz) needs no torch, `experiments.py` (an older layout of .pt files) does;
`place.py` is how both write.  Import the one you need.  Nothing here changes a run.
"""
