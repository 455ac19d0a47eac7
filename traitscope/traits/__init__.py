"""Traits: their data (no torch) and the directions made from them.

`pairs.py` reads a trait's folder, `extract.py` turns it into directions on a model.  Import the
one you need: `pairs` alone is light.
"""
